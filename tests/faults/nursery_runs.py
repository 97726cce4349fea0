"""Running a test's body in a nursery of a host, on a backend, with short timeouts."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
from leaks import watch_tasks

import seamless_remote
from seamless_remote import Settings

BACKENDS = ("asyncio", "trio")

SILENCE = 0.25
"""Seconds: the read timeout of the hurried."""

TOTAL = 0.75
"""Seconds: the total timeout of the hurried."""

HURRIED = Settings(
    connect_timeout=1.0,
    read_timeout=SILENCE,
    healthcheck_timeout=SILENCE,
    total_timeout=TOTAL,
    max_tries=1,
    grace_period=0.5,
)
"""One try, and no time for a server that makes no sense."""

PATIENT = Settings(grace_period=0.5)
"""For calls that end well, at whatever speed of the machine."""

ONE_TRY = Settings(max_tries=1, grace_period=0.5)
"""For those that must do so at once: a connection that is in doubt would cost a try."""


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Calls that begin in this block are not hurried, and have one try all the same."""
    nursery = seamless_remote.current_nursery()
    assert nursery is not None
    former, nursery.settings = nursery.settings, ONE_TRY
    try:
        yield
    finally:
        nursery.settings = former


def in_nursery(backend: str, settings: Settings, body: Callable[[], Awaitable[Any]]) -> Any:
    """Run `body` in a host's nursery; no task may be left when it has ended."""

    async def main() -> Any:
        async with seamless_remote.open_nursery(settings):
            return await body()

    return anyio.run(watch_tasks(main), backend=backend)
