"""What reading from a socket promises, in the way for any backend and in asyncio's own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import anyio
import pytest

from seamless_remote.transport.readiness import reading_of

pytestmark = pytest.mark.anyio
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    here.setblocking(False)
    with here, there:
        yield here, there


async def test_a_step_is_taken_whenever_something_came_until_it_is_enough(pair: Pair) -> None:
    here, there = pair
    reading = reading_of(here)
    received: list[bytes] = []

    def step() -> bool:
        received.append(here.recv(3))
        if len(received) == 2:
            there.send(b"ghi")
        return len(received) == 3

    there.send(b"abcdef")
    await reading.until(step)
    reading.close()
    assert received == [b"abc", b"def", b"ghi"]


async def test_the_error_of_a_step_is_the_readers(pair: Pair) -> None:
    here, there = pair
    reading = reading_of(here)

    def fail() -> bool:
        raise LookupError(here.recv(10))

    there.send(b"oops")
    with pytest.raises(LookupError, match="oops"):
        await reading.until(fail)
    there.send(b"more")
    await reading.until(lambda: here.recv(10) == b"more")
    reading.close()


async def test_a_cancelled_read_takes_nothing(pair: Pair) -> None:
    here, there = pair
    reading = reading_of(here)
    taken: list[bytes] = []

    def take() -> bool:
        taken.append(here.recv(10))
        return True

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(reading.until, take)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    there.send(b"late")
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    assert taken == []
    await reading.until(take)
    assert taken == [b"late"]
    reading.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_nobody_reads_does_not_keep_the_loop_busy(pair: Pair) -> None:
    here, there = pair
    reading = reading_of(here)
    there.send(b"a")
    await reading.until(lambda: here.recv(1) == b"a")
    there.send(b"bc")
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    # Not registered any more: the loop has nothing to remove.
    assert not asyncio.get_running_loop().remove_reader(here)
    await reading.until(lambda: here.recv(1) == b"b")
    await reading.until(lambda: here.recv(1) == b"c")
    reading.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_closed_reading_leaves_nothing_with_the_loop(pair: Pair) -> None:
    here, there = pair
    reading = reading_of(here)
    there.send(b"a")
    await reading.until(lambda: here.recv(1) == b"a")
    reading.close()
    assert not asyncio.get_running_loop().remove_reader(here)
