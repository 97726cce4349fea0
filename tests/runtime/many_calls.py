"""Calls by the hundred: what they ask for, and how many connections they may have."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from seamless import Checksum
from stored_buffers import buffer_of, checksum_of, fresh, put_file

from seamless_remote import Settings, buffer_remote, database_remote
from seamless_remote.clients.connections import connections

LANE_BOUND = Settings().max_connections
LIMITER_BOUND = Settings().database_max_inflight

Calls = list[Callable[[], Awaitable[None]]]


def reads(folder: Path, count: int) -> Calls:
    """Reads of so many buffers, which are put into a hashserver's folder here."""

    async def read(checksum: Checksum, content: bytes) -> None:
        buffer = await buffer_remote.get_buffer(checksum)
        assert buffer is not None
        assert buffer.content == content

    contents = [fresh(100) for _ in range(count)]
    return [partial(read, put_file(folder, content), content) for content in contents]


def look_ups(count: int) -> Calls:
    """Look-ups of what no database knows."""

    async def look_up() -> None:
        assert await database_remote.get_transformation_result(checksum_of(fresh(30))) is None

    return [look_up] * count


def writes(count: int) -> Calls:
    """Writes of small buffers."""

    async def write() -> None:
        content = fresh(100)
        assert await buffer_remote.write_buffer(checksum_of(content), buffer_of(content)) is True

    return [write] * count


def records(count: int) -> Calls:
    """Writes of results."""

    async def record() -> None:
        checksum = checksum_of(fresh(30))
        assert await database_remote.set_transformation_result(checksum, checksum) is True

    return [record] * count


async def all_at_once(calls: Calls) -> None:
    """Make all calls at once."""
    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(call)


@contextmanager
def within_bounds(calls: Calls, loops: int = 1) -> Iterator[Calls]:
    """The same calls, to be made in the block by so many loops.

    At the end of each it is noted how many descriptors this process has. They must never be more
    than the bounds of all lanes together allow.
    """
    before = descriptors()
    most = 0

    async def noted(call: Callable[[], Awaitable[None]]) -> None:
        nonlocal most
        await call()
        most = max(most, descriptors() - before)

    yield [partial(noted, call) for call in calls]
    lanes = [f"{pool.lane} to {pool.origin}" for pool in connections.snapshot()]
    assert most <= len(lanes) * (LANE_BOUND + loops - 1), f"{most} descriptors for {lanes}"


def descriptors() -> int:
    """How many files and sockets this process has open."""
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Other processes that compute all the time."""
    script = "print(flush=True)\nwhile True: pass"
    running: list[subprocess.Popen[Any]] = []
    try:
        for _ in range(count):
            running.append(subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE))
        for each in running:
            assert each.stdout is not None
            each.stdout.readline()
        yield
    finally:
        for each in running:
            each.kill()
            with each:
                each.wait()
