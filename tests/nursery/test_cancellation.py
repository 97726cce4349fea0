"""Cancelling a caller cancels its call, wherever that runs, and the cancellation goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from signals import LONG, Signal, until

from seamless_remote import Settings
from seamless_remote.nursery import process
from seamless_remote.nursery.event_loops import wait_for
from seamless_remote.nursery.scope import Scope

Start = Callable[..., Future[Any]]

FOR_EVER = Settings(handover_patience=3600.0, grace_period=60.0)


class Probe:
    """An operation that runs until it is cancelled, and what became of it."""

    def __init__(self) -> None:
        self.started = Signal()
        self.cleaning = Signal()
        self.may_end = threading.Event()
        self.may_end.set()
        self.ended = Signal()
        self.cancelled = False
        self.runs = 0

    async def __call__(self, scope: Scope) -> None:
        self.runs += 1
        self.started.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            self.cleaning.set()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self.may_end.wait)
            raise
        finally:
            self.ended.set()


@contextmanager
def hosted() -> Iterator[None]:
    """The hosted nursery, open."""

    async def nothing(scope: Scope) -> None:
        pass

    process.call_blocking(nothing)
    try:
        yield
    finally:
        process.close()


@pytest.mark.anyio
async def test_a_cancelled_scope_cancels_a_call_in_the_own_loop() -> None:
    probe = Probe()
    async with process.open_nursery(FOR_EVER), anyio.create_task_group() as tasks:
        tasks.start_soon(process.call, probe)
        await until(probe.started)
        tasks.cancel_scope.cancel()
    assert probe.cancelled


@pytest.mark.anyio
async def test_a_cancelled_scope_cancels_a_handed_over_call() -> None:
    probe = Probe()
    with hosted():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(process.call, probe)
            await until(probe.started)
            tasks.cancel_scope.cancel()
        assert probe.ended.is_set()
        assert probe.cancelled


@pytest.mark.anyio
async def test_a_timeout_cancels_a_handed_over_call() -> None:
    probe = Probe()

    async def call(timeout: anyio.CancelScope) -> None:
        with timeout:
            await process.call(probe)

    with hosted():
        timeout = anyio.CancelScope(deadline=anyio.current_time() + 3600.0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, timeout)
            await until(probe.started)
            timeout.deadline = anyio.current_time()
        assert timeout.cancelled_caught
        assert probe.ended.is_set()
        assert probe.cancelled


@pytest.mark.anyio
async def test_the_caller_waits_for_the_clean_up_of_its_cancelled_call() -> None:
    probe = Probe()
    probe.may_end.clear()
    with hosted():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(process.call, probe)
            await until(probe.started)
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await until(probe.cleaning)
                assert not probe.ended.is_set()
                probe.may_end.set()
        assert probe.ended.is_set()


@pytest.mark.anyio
async def test_the_wait_for_the_clean_up_is_bounded_by_the_grace_period(
    short_grace: Settings,
) -> None:
    probe = Probe()
    probe.may_end.clear()
    with hosted():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(process.call, probe)
            await until(probe.started)
            tasks.cancel_scope.cancel()
        assert not probe.ended.is_set()
        probe.may_end.set()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_cancels_a_handed_over_call() -> None:
    probe = Probe()
    with hosted():
        task = asyncio.ensure_future(process.call(probe))
        await until(probe.started)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert probe.ended.is_set()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_second_native_cancellation_does_not_wait_for_the_clean_up() -> None:
    probe = Probe()
    probe.may_end.clear()
    with hosted():
        task = asyncio.ensure_future(process.call(probe))
        await until(probe.started)
        task.cancel()
        await until(probe.cleaning)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not probe.ended.is_set()
        probe.may_end.set()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_of_a_call_in_the_own_loop_goes_on() -> None:
    probe = Probe()
    async with process.open_nursery(FOR_EVER) as nursery:
        task = asyncio.ensure_future(process.call(probe))
        await until(probe.started)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert probe.cancelled
        assert nursery.snapshot().calls == 0


@pytest.mark.anyio
@pytest.mark.parametrize("caller", ["asyncio", "trio"])
async def test_a_call_that_is_cancelled_before_it_is_taken_up_never_runs(
    elsewhere: Start, caller: str
) -> None:
    probe = Probe()

    async def give_up() -> int:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(process.call, probe)
            await anyio.wait_all_tasks_blocked()
            posted = len(nursery.mailbox._calls)
            tasks.cancel_scope.cancel()
        return posted

    async with process.open_nursery(FOR_EVER) as nursery:
        given_up = elsewhere(give_up, backend=caller)
        assert given_up.result(LONG) == 1  # blocks the nursery's loop
        while nursery.mailbox.waiting_since() is not None:
            await anyio.lowlevel.checkpoint()
    assert probe.runs == 0


@pytest.mark.anyio
async def test_a_call_whose_caller_s_loop_is_closed_goes_on_without_it() -> None:
    started, may_end, ended = Signal(), threading.Event(), Signal()

    async def operation(scope: Scope) -> str:
        started.set()
        await anyio.to_thread.run_sync(may_end.wait)
        ended.set()
        return "nobody hears it"

    with hosted():
        nursery = process.current_nursery()
        call = process.call(operation)
        loop = asyncio.new_event_loop()
        await anyio.to_thread.run_sync(_run_until, loop, call, started)
        may_end.set()
        await until(ended)
        assert await process.call(_answer) == "here"
        assert process.current_nursery() is nursery


async def _answer(scope: Scope) -> str:
    return "here"


_kept: list[Any] = []


def _run_until(loop: asyncio.AbstractEventLoop, call: Any, started: Signal) -> None:
    """Begin a call in a loop, and close the loop under it."""

    async def begin() -> None:
        task = asyncio.ensure_future(call)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        _kept.append(task)
        await until(started)

    loop.run_until_complete(begin())
    loop.close()


@pytest.mark.anyio
async def test_a_call_whose_coroutine_is_closed_after_its_loop_is_cancelled() -> None:
    probe = Probe()
    with hosted():
        call = process.call(probe)
        loop = asyncio.new_event_loop()
        await anyio.to_thread.run_sync(_run_until, loop, call, probe.started)
        call.close()
        await until(probe.ended)
        assert probe.cancelled


def test_a_cancelled_loop_inside_a_trio_task_cancels_its_call_and_waits_for_it() -> None:
    probe = Probe()
    probe.may_end.clear()

    async def in_asyncio() -> None:
        task = asyncio.ensure_future(process.call(probe))
        assert await asyncio.to_thread(probe.started.wait, LONG)
        task.cancel()
        assert await asyncio.to_thread(probe.cleaning.wait, LONG)
        assert not task.done()
        probe.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def main() -> None:
        asyncio.run(in_asyncio())

    with hosted():
        trio.run(main)
        assert probe.ended.is_set()
        assert probe.cancelled


@pytest.mark.anyio
async def test_the_nursery_lives_on_after_hundreds_of_cancelled_calls() -> None:
    async def operation(scope: Scope) -> None:
        await anyio.sleep(0.001)

    async def impatient(number: int) -> None:
        with anyio.move_on_after(number % 7 / 2000):
            await process.call(operation)

    with hosted():
        async with anyio.create_task_group() as tasks:
            for number in range(400):
                tasks.start_soon(impatient, number)
        assert await process.call(_answer) == "here"
        nursery = process.current_nursery()
        assert nursery is not None
        assert nursery.snapshot().calls <= 1  # the one just made may not have gone yet


@pytest.mark.anyio
async def test_a_cancelled_wait_does_not_cancel_the_call_of_another(elsewhere: Start) -> None:
    probe = Probe()
    async with process.open_nursery(FOR_EVER):
        other = elsewhere(process.call, _answer)
        with anyio.move_on_after(0.01):
            await process.call(probe)
        assert await wait_for(other) == "here"
