"""Time-outs of minutes and more, on trio's mock clock: a server that takes requests, and is silent.

Nobody accepts the connections of the listening socket: the kernel does, and takes what is sent.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
from request_kinds import fresh_checksum, use
from trio.testing import MockClock

import seamless_remote
from seamless_remote import Settings, buffer_remote, database_remote
from seamless_remote.errors import ServiceTimeout

MINUTE = 60.0


@pytest.fixture
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def minutes_until_timeout(settings: Settings, call: Callable[[], Awaitable[Any]]) -> float:
    """How long, by the clock of its loop, a call takes to end in a ServiceTimeout."""

    async def main() -> float:
        async with seamless_remote.open_nursery(settings):
            started = trio.current_time()
            with pytest.raises(ServiceTimeout) as caught:
                await call()
            assert isinstance(caught.value, TimeoutError)
            return (trio.current_time() - started) / MINUTE

    return trio.run(main, clock=MockClock(autojump_threshold=0.005))


def look_up(url: str) -> Callable[[], Awaitable[Any]]:
    async def call() -> Any:
        use(database_remote, url)
        return await database_remote.get_transformation_result(fresh_checksum())

    return call


def get_buffer(url: str) -> Callable[[], Awaitable[Any]]:
    async def call() -> Any:
        use(buffer_remote, url)
        return await buffer_remote.get_buffer(fresh_checksum())

    return call


CALLS = pytest.mark.parametrize("call", [look_up, get_buffer])


@CALLS
@pytest.mark.parametrize("tries", [1, 3])
def test_each_try_waits_for_the_whole_read_timeout(
    silent: str, call: Callable[[str], Callable[[], Awaitable[Any]]], tries: int
) -> None:
    settings = Settings(read_timeout=20 * MINUTE, max_tries=tries)
    assert minutes_until_timeout(settings, call(silent)) == pytest.approx(20 * tries, abs=0.1)


@CALLS
def test_the_total_timeout_ends_a_call_in_mid_try(
    silent: str, call: Callable[[str], Callable[[], Awaitable[Any]]]
) -> None:
    settings = Settings(read_timeout=20 * MINUTE, total_timeout=50 * MINUTE)
    assert minutes_until_timeout(settings, call(silent)) == pytest.approx(50, abs=0.1)


@CALLS
def test_without_any_timeout_a_call_waits_as_long_as_its_caller_does(
    silent: str, call: Callable[[str], Callable[[], Awaitable[Any]]]
) -> None:
    hour = 60 * MINUTE
    patient = call(silent)

    async def main() -> bool:
        # Pings of such a server are of no use here: each would keep a connection.
        settings = Settings(read_timeout=None, keepalive_interval=30 * hour)
        async with seamless_remote.open_nursery(settings):
            with trio.move_on_after(hour) as waited:
                await patient()
            return waited.cancelled_caught

    assert trio.run(main, clock=MockClock(autojump_threshold=0.005))
