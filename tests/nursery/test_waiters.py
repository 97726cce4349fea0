"""The wait of one task, ended from anywhere: no wake-up is lost, whatever it meets."""

from __future__ import annotations

import asyncio
import selectors
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import anyio
import pytest
import trio
from loops import ASYNCIO_KINDS, DROPPED, Dropped, LoopThread, new_loop
from signals import LONG

from seamless_remote.nursery.event_loops import has_ended, is_running, running_loop
from seamless_remote.nursery.waiter import Waiter, turns_within, wait_for, waiter_in

Start = Callable[..., Future[Any]]
Loops = Callable[[str], LoopThread]


async def wait(waiters: list[Waiter]) -> None:
    waiters.append(waiter_in(running_loop()))
    await waiters[-1].wait()


@pytest.mark.anyio
async def test_a_wake_up_ends_the_wait_that_came_before_it_and_the_one_after_it() -> None:
    waiters: list[Waiter] = []
    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, waiters)
            await anyio.wait_all_tasks_blocked()
            after = waiter_in(running_loop())
            assert not waiters[0].woken
            for each in (waiters[0], after, after):
                assert each.wake()
            await after.wait()


@pytest.mark.anyio
async def test_tasks_are_woken_from_any_thread(threaded: Start) -> None:
    waiters: list[Waiter] = []
    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(wait, waiters)
            await anyio.wait_all_tasks_blocked()
            for first in range(4):
                threaded(lambda first=first: [each.wake() for each in waiters[first::4]])


@pytest.mark.anyio
async def test_a_wake_up_after_the_cancellation_of_its_wait_is_no_error() -> None:
    waiter = waiter_in(running_loop())
    with anyio.move_on_after(0) as scope:
        await waiter.wait()
    assert scope.cancelled_caught
    assert waiter.wake()


def test_waking_a_task_of_an_ended_loop_says_so(anyio_backend: Any) -> None:
    waiters: list[Waiter] = []

    async def begin() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, waiters)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

    backend, options = (anyio_backend, {}) if isinstance(anyio_backend, str) else anyio_backend
    anyio.run(begin, backend=backend, backend_options=options)
    assert not waiters[0].wake()


# A destructor or a signal handler runs at any moment in the loop's own thread, also when the loop
# has just decided how long to sleep.


def test_an_asyncio_loop_that_is_about_to_sleep_wakes_up() -> None:
    class Selector(selectors.DefaultSelector):
        before_sleep: Callable[[], object] | None = None

        def select(self, timeout: float | None = None) -> Any:
            act = self.before_sleep
            if act is not None and (timeout is None or timeout > 1):
                self.before_sleep = None
                act()
            return super().select(timeout)

    async def main() -> None:
        waiter = waiter_in(running_loop())
        selector.before_sleep = waiter.wake
        timer = loop.call_later(LONG, lambda: None)
        await waiter.wait()
        assert selector.before_sleep is None
        assert loop.time() < timer.when()
        timer.cancel()

    selector = Selector()
    loop = asyncio.SelectorEventLoop(selector)
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_a_trio_run_that_is_about_to_sleep_wakes_up() -> None:
    class BeforeSleep(trio.abc.Instrument):
        waiter: Waiter | None = None

        def before_io_wait(self, timeout: float) -> None:
            if self.waiter is not None and timeout > 1:
                waiter, self.waiter = self.waiter, None
                waiter.wake()

    async def main() -> None:
        instrument.waiter = waiter = waiter_in(running_loop())
        with trio.move_on_after(LONG) as limit:
            await waiter.wait()
        assert instrument.waiter is None
        assert trio.current_time() < limit.deadline

    instrument = BeforeSleep()
    trio.run(main, instruments=[instrument])


@pytest.mark.anyio
async def test_a_callback_of_a_loop_wakes_its_tasks() -> None:
    here: Any = running_loop()
    waiter = waiter_in(here)
    (here.call_soon if hasattr(here, "call_soon") else here.run_sync_soon)(waiter.wake)
    with anyio.fail_after(LONG):
        await waiter.wait()


# Futures of threads.


@pytest.mark.anyio
async def test_waiting_for_a_thread_s_future_gives_its_outcome(threaded: Start) -> None:
    assert await wait_for(threaded(lambda: 3)) == 3
    with pytest.raises(ZeroDivisionError):
        await wait_for(threaded(lambda: 1 / 0))


@pytest.mark.anyio
async def test_cancelling_a_wait_leaves_the_future_to_others() -> None:
    future: Future[int] = Future()
    with anyio.move_on_after(0):
        await wait_for(future)
    future.set_result(5)
    assert await wait_for(future) == 5


@DROPPED
def test_a_future_that_is_never_done_keeps_no_loop(kind: str, closed: bool) -> None:
    future: Future[int] = Future()
    dropped = Dropped(kind)
    dropped.begin(lambda: wait_for(future))
    loop = weakref.ref(dropped.loop)
    if closed:
        dropped.close()
    dropped.collect()
    assert loop() is None
    future.set_result(1)


# Whether a loop turns.


@pytest.mark.anyio
@pytest.mark.parametrize("other", ["asyncio", "trio", "uvloop"])
async def test_a_loop_turns_or_stands_still(loop_threads: Loops, other: str) -> None:
    thread = loop_threads(other)
    loop = thread.run(running_loop)
    assert await turns_within(loop, LONG)
    standing, go_on = threading.Event(), threading.Event()
    thread.start(lambda: (standing.set(), go_on.wait()))
    try:
        assert standing.wait(LONG)
        assert not await turns_within(loop, 0.01)
    finally:
        go_on.set()
    assert await turns_within(loop, LONG)


@pytest.mark.anyio
@pytest.mark.parametrize("other", ASYNCIO_KINDS)
async def test_a_loop_that_has_stopped_or_ended_does_not_turn(other: str) -> None:
    loop = new_loop(other)
    assert not is_running(loop)
    assert not await turns_within(loop, 0.01)
    assert not has_ended(loop)
    loop.close()
    assert not await turns_within(loop, LONG)
    assert has_ended(loop)
