"""Waiting for sockets: with the loop's own epoll object, its readers and writers, or anyio."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable, Iterator

import anyio
import pytest
from exchanges import until
from virtual_time import Clock, in_virtual_time

from seamless_remote.nursery.event_loops import running_loop
from seamless_remote.transport.poller import EpollPoller, Received, poller_of
from seamless_remote.transport.readiness import (
    AsyncioReadiness,
    Readiness,
    SilenceError,
    Step,
    readiness_in,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("poller_kind")]
Pair = tuple[socket.socket, socket.socket]
NOTHING, SOME, ENOUGH = Received.NOTHING, Received.SOME, Received.ENOUGH

asyncio_only = pytest.mark.parametrize(
    "anyio_backend", ["asyncio", ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)


@pytest.fixture
def make_pair() -> Iterator[Callable[[], Pair]]:
    sockets: list[socket.socket] = []

    def make() -> Pair:
        pair = socket.socketpair()
        for each in pair:
            each.setblocking(False)
        sockets.extend(pair)
        return pair

    yield make
    for each in sockets:
        each.close()


@pytest.fixture
def pair(make_pair: Callable[[], Pair]) -> Pair:
    return make_pair()


def of(sock: socket.socket, timeout: float | None = None) -> Readiness:
    return readiness_in(running_loop(), sock, timeout)


def take(sock: socket.socket, into: list[bytes], enough: bytes) -> Step:
    """Takes all that has come, until that is `enough`."""

    def step() -> Received:
        try:
            data = sock.recv(3)
        except BlockingIOError:
            return NOTHING
        into.append(data)
        return ENOUGH if b"".join(into) == enough else SOME

    return step


def fill(sock: socket.socket) -> None:
    """Send until the kernel takes no more."""
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(65536))


async def wait(readiness: Readiness, step: Step) -> None:
    await readiness.until(step)


async def turns() -> None:
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def test_a_step_is_taken_whenever_something_came_until_it_is_enough(pair: Pair) -> None:
    here, there = pair
    readiness = of(here)
    received: list[bytes] = []
    async with anyio.create_task_group() as group:
        group.start_soon(wait, readiness, take(here, received, b"abcdefghij"))
        for data in (b"abcdef", b"gh", b"ij"):
            before = len(received)
            there.send(data)
            await until(lambda: len(received) > before)  # noqa: B023
    assert b"".join(received) == b"abcdefghij"
    readiness.detach()


async def test_the_error_of_a_step_is_the_waiters(pair: Pair) -> None:
    here, there = pair
    readiness = of(here)

    def fail() -> Received:
        raise LookupError(here.recv(10))

    there.send(b"oops")
    with pytest.raises(LookupError, match="oops"):
        await readiness.until(fail)
    there.send(b"abc")
    assert await readiness.until(take(here, [], b"abc"))
    readiness.detach()


async def test_a_cancelled_wait_takes_nothing(pair: Pair) -> None:
    here, there = pair
    readiness = of(here)
    received: list[bytes] = []
    async with anyio.create_task_group() as group:
        group.start_soon(wait, readiness, take(here, received, b"abc"))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    there.send(b"abc")
    await turns()
    assert received == []
    assert await readiness.until(take(here, received, b"abc"))
    assert received == [b"abc"]
    readiness.detach()


@asyncio_only
async def test_what_nobody_waits_for_does_not_keep_the_loop_busy(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    calls: list[None] = []
    ready = AsyncioReadiness.ready

    def counted(readiness: AsyncioReadiness) -> Received:
        calls.append(None)
        return ready(readiness)

    monkeypatch.setattr(AsyncioReadiness, "ready", counted)
    readiness = of(here)
    there.send(b"abc")
    assert await readiness.until(take(here, [], b"abc"))
    assert len(calls) == 1
    there.send(b"def")
    await turns()
    assert not await readiness.until(lambda: NOTHING, 0.01)
    before = len(calls)
    await turns()
    assert len(calls) == before
    assert await readiness.until(take(here, [], b"def"))
    readiness.detach()


@pytest.mark.parametrize("which", ["readable", "writable"])
async def test_readable_or_writable_is_either(pair: Pair, which: str) -> None:
    here, there = pair
    readiness = of(here)
    await readiness.readable_or_writable()
    fill(here)
    ended: list[None] = []

    async def wait() -> None:
        await readiness.readable_or_writable()
        ended.append(None)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert not ended
        if which == "readable":
            there.send(b"a")
        else:
            there.recv(1 << 22)
    readiness.detach()


async def test_a_socket_that_is_neither_readable_nor_writable_is_silent(pair: Pair) -> None:
    here, _ = pair
    readiness = of(here, 0.01)
    fill(here)
    with pytest.raises(SilenceError):
        await readiness.readable_or_writable()
    readiness.detach()


@in_virtual_time
async def test_each_of_many_waits_ends_at_its_own_time(make_pair: Callable[[], Pair]) -> None:
    clock = Clock()
    ended: list[float | str] = []
    moved: list[bytes] = []

    async def wait(here: socket.socket, timeout: float, patience: float | None = None) -> None:
        readiness = readiness_in(clock.call.loop, here, timeout)
        try:
            step = take(here, moved, b"enough")
            if not await readiness.until(step, patience):
                ended.append(f"{patience} of patience")
        except SilenceError:
            ended.append(timeout)
        readiness.detach()

    pairs = [make_pair() for _ in range(5)]
    async with anyio.create_task_group() as group:
        for (here, _), timeout in zip(pairs, (30, 10, 20, 40), strict=False):
            group.start_soon(wait, here, timeout)
        group.start_soon(wait, pairs[4][0], 100, 25)
        await anyio.wait_all_tasks_blocked()
        await clock.passes(9)
        assert ended == []
        pairs[2][1].send(b"x")  # moves, so that it has 20 seconds from here on
        await until(lambda: moved)
        pairs[4][1].send(b"x")  # moves, but patience is for all of it
        await until(lambda: len(moved) == 2)
        await clock.passes(2)
        assert ended == [10]
        await clock.passes(15)
        assert ended == [10, "25 of patience"]
        await clock.passes(5)
        assert sorted(ended[2:]) == [20, 30]
        await clock.passes(11)
    assert ended[4:] == [40]


async def test_a_socket_with_the_number_of_a_closed_one_is_waited_for() -> None:
    numbers: set[int] = set()
    for _ in range(3):
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            numbers.add(here.fileno())
            readiness = of(here)
            there.send(b"abc")
            assert await readiness.until(take(here, [], b"abc"))
            async with anyio.create_task_group() as group:
                group.start_soon(wait, readiness, take(here, [], b"abc"))
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
            readiness.detach()
    assert len(numbers) == 1


def test_a_socket_is_waited_for_in_one_loop_after_the_other(pair: Pair) -> None:
    here, there = pair

    async def once() -> None:
        readiness = of(here)
        there.send(b"abc")
        assert await readiness.until(take(here, [], b"abc"))
        readiness.detach()

    loops = [asyncio.new_event_loop() for _ in range(3)]
    for loop in loops * 3:
        loop.run_until_complete(once())
    for loop in loops:
        loop.close()


def test_ctrl_c_in_one_step_leaves_the_others_theirs(make_pair: Callable[[], Pair]) -> None:
    pairs = [make_pair() for _ in range(3)]
    interrupted: list[socket.socket] = []

    async def wait(here: socket.socket) -> str:
        readiness = of(here)

        def step() -> Received:
            here.recv(10)
            if not interrupted:
                interrupted.append(here)
                raise KeyboardInterrupt
            return ENOUGH

        try:
            return "enough" if await readiness.until(step) else ""
        except Exception as exc:
            return str(exc)
        finally:
            readiness.detach()

    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(wait(here)) for here, _ in pairs]
    loop.run_until_complete(asyncio.sleep(0))
    for _, there in pairs:
        there.send(b"x")
    everything = asyncio.wait(tasks)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(everything)
    loop.run_until_complete(asyncio.wait(tasks))
    assert sorted(task.result() for task in tasks) == ["enough", "enough", "interrupted"]
    loop.close()


@pytest.mark.parametrize("poller_kind", ["epoll"], indirect=True)
def test_ctrl_c_between_the_report_and_the_steps_loses_no_wait(
    make_pair: Callable[[], Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [make_pair() for _ in range(3)]
    loop = asyncio.new_event_loop()

    async def wait(here: socket.socket) -> bool:
        readiness = of(here)
        try:
            return await readiness.until(take(here, [], b"x"))
        finally:
            readiness.detach()

    class Interrupted:
        """An epoll object; Ctrl-C comes as soon as it has reported something."""

        def __init__(self, real: select.epoll) -> None:
            self.modify, self.register = real.modify, real.register
            self._poll, self.comes = real.poll, True

        def poll(self, timeout: float) -> list[tuple[int, int]]:
            found = self._poll(timeout)
            if found and self.comes:
                self.comes = False
                raise KeyboardInterrupt
            return found

    tasks = [loop.create_task(wait(here)) for here, _ in pairs]
    loop.run_until_complete(asyncio.sleep(0))
    poller = poller_of(loop)
    assert isinstance(poller, EpollPoller)
    monkeypatch.setattr(poller, "_epoll", Interrupted(poller._epoll))
    for _, there in pairs:
        there.send(b"x")
    everything = asyncio.gather(*tasks)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(everything)
    assert loop.run_until_complete(everything) == [True] * 3
    loop.close()
