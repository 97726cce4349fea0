"""A caller's cancellation is its call's; a call that is ended from outside says so."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from loops import ON_ASYNCIO
from signals import LONG, Signal, until

from seamless_remote import NurseryClosedError
from seamless_remote.nursery import deadline, process
from seamless_remote.nursery.calling import call, call_blocking
from seamless_remote.nursery.calls import Call, TrackedCall
from seamless_remote.nursery.event_loops import is_asyncio, running_loop

Start = Callable[..., Future[Any]]

SINCE_3_11 = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="Python 3.10 does not count the cancellations of a task"
)


class Probe:
    """An operation that runs until it is cancelled, and what became of it."""

    def __init__(self) -> None:
        self.started = Signal()
        self.cleaning = Signal()
        self.may_end = Signal()
        self.may_end.set()
        self.ended = Signal()
        self.cancelled = False

    async def __call__(self, this: Call) -> None:
        self.started.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            self.cleaning.set()
            with anyio.CancelScope(shield=True):
                await until(self.may_end)
            raise
        finally:
            self.ended.set()


async def answer(this: Call) -> str:
    await anyio.lowlevel.checkpoint()
    return "here"


def under_way() -> list[Any]:
    return process.this_process().calls.under_way()


@pytest.fixture(params=["in a host's nursery", "beside a hosted one"])
def nursery(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """A nursery to be open during the block."""

    class Hosted:
        async def __aenter__(self) -> None:
            await call("a test", answer)

        async def __aexit__(self, *error: object) -> None: ...

    return process.open_nursery if request.param == "in a host's nursery" else Hosted


@pytest.mark.anyio
async def test_a_cancelled_scope_cancels_its_call(nursery: Callable[[], Any]) -> None:
    probe = Probe()
    async with nursery(), anyio.create_task_group() as tasks:
        tasks.start_soon(call, "a test", probe)
        await until(probe.started)
        tasks.cancel_scope.cancel()
    assert probe.cancelled
    assert not under_way()


@pytest.mark.anyio
async def test_a_timeout_cancels_its_call(nursery: Callable[[], Any]) -> None:
    probe = Probe()
    async with nursery():
        with anyio.move_on_after(0.01) as scope:
            await call("a test", probe)
    assert scope.cancelled_caught
    assert probe.cancelled
    assert not under_way()


@pytest.mark.anyio
async def test_a_cancelled_call_cleans_up_before_its_caller_goes_on() -> None:
    probe = Probe()
    probe.may_end = Signal()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, "a test", probe)
        await until(probe.started)
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await until(probe.cleaning)
            assert len(under_way()) == 1
            probe.may_end.set()
    assert probe.ended.is_set()


@pytest.mark.anyio
@ON_ASYNCIO
async def test_a_native_cancellation_cancels_its_call_and_goes_on(
    nursery: Callable[[], Any],
) -> None:
    probe = Probe()
    async with nursery():
        task = asyncio.ensure_future(call("a test", probe))
        await until(probe.started)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert probe.cancelled
        assert not under_way()


@SINCE_3_11
@pytest.mark.anyio
@ON_ASYNCIO
async def test_timeouts_and_task_groups_of_asyncio_work_around_a_call() -> None:
    probe = Probe()
    calls: list[asyncio.Task[None]] = []

    async def time_out() -> None:
        async with asyncio.timeout(0.01):
            await call("a test", Probe())

    async def fail() -> None:
        async with asyncio.TaskGroup() as tasks:
            calls.append(tasks.create_task(call("a test", probe)))
            await until(probe.started)
            raise LookupError("on purpose")

    with pytest.raises(TimeoutError):
        await time_out()
    with pytest.raises(Exception, match="TaskGroup") as caught:
        await fail()
    assert [str(each) for each in caught.value.exceptions] == ["on purpose"]  # type: ignore[attr-defined]
    assert calls[0].cancelled()
    assert probe.cancelled
    assert_balanced()
    assert not under_way()


@pytest.mark.anyio
async def test_a_call_of_a_cancelled_scope_is_cancelled_at_its_first_checkpoint() -> None:
    reached: list[bool] = []

    async def operation(this: Call) -> None:
        await anyio.lowlevel.checkpoint()
        reached.append(True)

    with anyio.CancelScope() as scope:
        scope.cancel()
        await call("a test", operation)
    assert scope.cancelled_caught
    assert not reached
    assert not under_way()


def test_a_loop_that_runs_inside_a_trio_task_can_cancel_its_call_and_waits_for_its_end() -> None:
    probe = Probe()
    probe.may_end = Signal()

    async def in_asyncio() -> None:
        task = asyncio.ensure_future(call("a test", probe))
        assert await asyncio.to_thread(probe.started.wait, LONG)
        task.cancel()
        assert await asyncio.to_thread(probe.cleaning.wait, LONG)
        assert not task.done()
        probe.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def main() -> None:
        asyncio.run(in_asyncio())

    trio.run(main)
    assert probe.ended.is_set()
    assert probe.cancelled


@pytest.mark.anyio
async def test_hundreds_of_cancelled_calls_leave_nothing() -> None:
    limiter = process.this_process().limiter

    async def operation(this: Call) -> None:
        share = limiter.take_now(this.loop)
        if share is None:
            share = await limiter.take(this.loop)
        try:
            await anyio.sleep(0.001)
        finally:
            limiter.give_back(share)

    async def impatient(number: int) -> None:
        with anyio.move_on_after(number % 7 / 2000):
            await call("a test", operation)

    async with anyio.create_task_group() as tasks:
        for number in range(400):
            tasks.start_soon(impatient, number)
    assert limiter.unused
    assert not under_way()
    assert await call("a test", answer) == "here"


# Ended from outside.


async def end(grace: float = 0.0) -> None:
    """Have the one call under way end."""
    (this,) = under_way()
    this.end_within(grace)


def assert_balanced() -> None:
    """The task is not being cancelled any more, as far as asyncio knows."""
    if is_asyncio(running_loop()) and sys.version_info >= (3, 11):
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()


@pytest.mark.anyio
async def test_a_call_that_is_ended_from_outside_raises_an_error_that_says_so() -> None:
    probe = Probe()

    async def caller() -> None:
        with pytest.raises(NurseryClosedError, match="closed on this side during testing it"):
            await call("testing it", probe)
        assert_balanced()
        await anyio.lowlevel.checkpoint()  # the task itself is not cancelled
        went_on.set()

    went_on = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(caller)
        await until(probe.started)
        await end()
        with anyio.fail_after(LONG):
            await went_on.wait()
    assert probe.cancelled


@pytest.mark.anyio
async def test_a_call_knows_that_it_is_being_ended_before_it_is_cancelled() -> None:
    begun, go = Signal(), Signal()

    async def operation(this: Call) -> tuple[bool, bool]:
        before = this.ending
        begun.set()
        await until(go)
        return before, this.ending

    async def caller() -> None:
        assert await call("a test", operation) == (False, True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(caller)
        await until(begun)
        await end(grace=LONG)
        go.set()


@pytest.mark.anyio
async def test_a_call_that_ends_by_itself_within_the_grace_is_not_cancelled_later() -> None:
    graces = (0.02, 0.01, 0.03)

    async def operation(this: TrackedCall) -> str:
        for grace in graces:
            this.end_within(grace)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
        return "done"

    async def caller() -> None:
        outcome = None
        while outcome is None:
            with contextlib.suppress(NurseryClosedError):  # the machine was slower than the grace
                outcome = await call("a test", operation)
        await anyio.sleep(2 * max(graces))
        assert_balanced()
        went_on.append(outcome)

    went_on: list[str] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(caller)
    assert went_on == ["done"]


@pytest.mark.anyio
async def test_a_second_end_neither_puts_the_first_off_nor_cancels_the_cleanup() -> None:
    probe = Probe()
    probe.may_end = Signal()

    async def caller() -> None:
        with pytest.raises(NurseryClosedError):
            await call("a test", probe)
        assert_balanced()
        await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(caller)
        await until(probe.started)
        await end(0.01)
        await end(3600.0)
        await until(probe.cleaning)
        await end(0.0)
        await end(0.0)
        await anyio.wait_all_tasks_blocked()
        assert not probe.ended.is_set()
        probe.may_end.set()
    assert probe.ended.is_set()


@pytest.mark.anyio
async def test_an_operation_that_has_its_outcome_when_it_is_ended_keeps_it() -> None:
    begun = Signal()

    async def stubborn(this: Call) -> str:
        begun.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return "done all the same"

    async def failing(this: Call) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            raise LookupError("on purpose")

    async def caller(operation: Callable[[Call], Awaitable[Any]]) -> None:
        try:
            outcomes.append(await call("a test", operation))
        except LookupError as exc:
            outcomes.append(str(exc))
        assert_balanced()
        await anyio.lowlevel.checkpoint()

    outcomes: list[str] = []
    for operation in (stubborn, failing):
        begun.clear()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(caller, operation)
            await until(begun)
            await end()
    assert outcomes == ["done all the same", "on purpose"]


# Both at once: the caller's own cancellation goes before the error.


@contextlib.contextmanager
def together(*, first: bool, cancel: Callable[[], object]) -> Iterator[None]:
    """Have `cancel` called in the same turn as a call is ended from outside, just before or after.

    In trio, by whoever ends the call.
    """
    with pytest.MonkeyPatch.context() as patch:
        for kind, name in ((deadline._AsyncioDeadline, "_cancel"), (deadline._TrioDeadline, "set")):
            original = getattr(kind, name)

            def both(self: Any, *args: Any, original: Any = original, name: str = name) -> None:
                for act in (cancel, original) if first else (original, cancel):
                    if act is cancel:
                        cancel()
                    else:
                        original(self, *args)
                        if name == "set":
                            self._scope.cancel()

            patch.setattr(kind, name, both)
        yield


BOTH_ORDERS = pytest.mark.parametrize("first", [True, False])


@pytest.mark.anyio
@BOTH_ORDERS
async def test_a_cancelled_scope_goes_before_the_end_of_the_nursery(first: bool) -> None:
    probe = Probe()
    scope = anyio.CancelScope()

    async def caller() -> None:
        with scope:
            await call("a test", probe)
        assert_balanced()
        await anyio.lowlevel.checkpoint()
        went_on.append(True)

    went_on: list[bool] = []
    with together(first=first, cancel=scope.cancel):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(caller)
            await until(probe.started)
            await end()
    assert scope.cancelled_caught
    assert went_on


@SINCE_3_11
@pytest.mark.anyio
@ON_ASYNCIO
@BOTH_ORDERS
async def test_a_native_cancellation_goes_before_the_end_of_the_nursery(first: bool) -> None:
    probe = Probe()
    task = asyncio.ensure_future(call("a test", probe))
    await until(probe.started)
    with together(first=first, cancel=task.cancel):
        await end()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert task.cancelled()
    assert task.cancelling() == 1


@SINCE_3_11
@pytest.mark.anyio
@ON_ASYNCIO
@BOTH_ORDERS
async def test_a_timeout_of_asyncio_goes_before_the_end_of_the_nursery(first: bool) -> None:
    probe = Probe()

    async def limited() -> None:
        async with asyncio.timeout(None) as timeout:
            timeouts.append(timeout)
            await call("a test", probe)

    async def caller() -> None:
        with pytest.raises(TimeoutError):
            await limited()
        assert_balanced()
        await asyncio.sleep(0)

    timeouts: list[Any] = []
    task = asyncio.ensure_future(caller())
    await until(probe.started)
    with together(first=first, cancel=lambda: timeouts[0]._on_timeout()):
        await end()
        await task


def test_a_blocking_call_that_is_ended_from_outside_raises_the_error(threaded: Start) -> None:
    probe = Probe()
    blocked = threaded(call_blocking, "a test", probe)
    assert probe.started.wait(LONG)
    (this,) = under_way()
    this.end_within(0.0)
    with pytest.raises(NurseryClosedError):
        blocked.result(LONG)
