"""How a nursery ends: grace first, then cancellation; its block's errors come out as they are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from signals import Signal, outcome_of, until

from seamless_remote import NurseryClosedError, Settings
from seamless_remote.nursery import process
from seamless_remote.nursery.handover import Handover
from seamless_remote.nursery.event_loops import LoopClosedError, mailbox_of, running_loop, wait_for
from seamless_remote.nursery.nursery import NurseryState, RemoteNursery
from seamless_remote.nursery.scope import Scope

Start = Callable[..., Future[Any]]

SHORT = Settings(handover_patience=3600.0, grace_period=0.1)
LONG = Settings(handover_patience=3600.0, grace_period=3600.0)


class Running:
    """An operation that says when it has begun, and goes on for ever or until it may end."""

    def __init__(self) -> None:
        self.begun = Signal()
        self.may_end = Signal()

    async def __call__(self, scope: Scope) -> str:
        self.begun.set()
        await self.may_end.reached()
        return "ended"


class Closing:
    """A resource that says whether it was closed, and whether a call was still running then."""

    def __init__(self, scope: Scope) -> None:
        self.closed = False

    async def upkeep(self) -> None:
        await anyio.sleep_forever()

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error", [LookupError("mine"), KeyboardInterrupt(), SystemExit(3), StopAsyncIteration()]
)
async def test_an_error_of_the_block_comes_out_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        async with process.open_nursery():
            raise error
    assert caught.value is error
    assert process.current_nursery() is None


@pytest.mark.anyio
async def test_a_timeout_around_the_block_ends_it_quietly() -> None:
    with anyio.move_on_after(0.01) as scope:
        async with process.open_nursery() as nursery:
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert nursery.state is NurseryState.CLOSED


@pytest.mark.anyio
async def test_an_error_during_the_cancellation_of_the_block_is_not_lost() -> None:
    async def host(scope: anyio.CancelScope) -> None:
        async with process.open_nursery():
            scope.cancel()
            try:
                await anyio.sleep_forever()
            finally:
                raise LookupError("instead")

    with anyio.CancelScope() as scope, pytest.raises(LookupError, match="instead"):
        await host(scope)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_of_the_block_goes_on() -> None:
    inside = asyncio.Event()

    async def host() -> None:
        async with process.open_nursery():
            inside.set()
            await anyio.sleep_forever()

    task = asyncio.ensure_future(host())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert process.current_nursery() is None


@pytest.mark.anyio
async def test_leaving_the_block_waits_for_the_calls_in_flight(elsewhere: Start) -> None:
    running = Running()
    async with process.open_nursery(LONG):
        call = elsewhere(process.call, running)
        await until(running.begun)
        threading.Timer(0.05, running.may_end.set).start()
    assert await wait_for(call) == "ended"


@pytest.mark.anyio
async def test_a_cancellation_of_the_block_leaves_handed_over_calls_their_grace(
    elsewhere: Start,
) -> None:
    running = Running()
    with anyio.CancelScope() as scope:
        async with process.open_nursery(LONG):
            call = elsewhere(process.call, running)
            await until(running.begun)
            threading.Timer(0.05, running.may_end.set).start()
            scope.cancel()
            await anyio.sleep_forever()
    assert await wait_for(call) == "ended"


@pytest.mark.anyio
async def test_a_cancellation_of_the_block_leaves_shared_work_its_grace(elsewhere: Start) -> None:
    running = Running()

    async def shared(scope: Scope) -> str:
        return await scope.share("key", lambda: running(scope))

    with anyio.CancelScope() as cancelled:
        async with process.open_nursery(LONG):
            calls = [elsewhere(process.call, shared) for _ in range(3)]
            await until(running.begun)
            threading.Timer(0.05, running.may_end.set).start()
            cancelled.cancel()
            await anyio.sleep_forever()
    assert [await wait_for(call) for call in calls] == 3 * ["ended"]


@pytest.mark.anyio
async def test_calls_that_outlast_the_grace_are_cancelled_and_told_so(elsewhere: Start) -> None:
    running = Running()
    async with process.open_nursery(SHORT) as nursery:
        call = elsewhere(process.call, running)
        await until(running.begun)
    with pytest.raises(NurseryClosedError):
        await wait_for(call)
    assert nursery.snapshot().calls == 0


@pytest.mark.anyio
async def test_host_tasks_that_outlive_the_block_are_told_that_it_ended() -> None:
    running = Running()
    told: list[BaseException] = []

    async def outliving() -> None:
        try:
            await process.call(running)
        except NurseryClosedError as exc:
            told.append(exc)
        await anyio.lowlevel.checkpoint()  # the task itself is not cancelled

    async with anyio.create_task_group() as tasks:
        async with process.open_nursery(SHORT):
            tasks.start_soon(outliving)
            await until(running.begun)
        assert len(told) == 1


@pytest.mark.anyio
async def test_cancelled_calls_clean_up_while_the_resources_are_still_there(
    elsewhere: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = Signal()
    closed_at_clean_up: list[bool] = []

    async def operation(scope: Scope) -> None:
        resource = scope.resource(Closing)
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.wait_all_tasks_blocked()  # the nursery has done all it does by then
            closed_at_clean_up.append(resource.closed)

    async with process.open_nursery(LONG) as nursery:
        call = elsewhere(process.call, operation)
        await until(begun)
        resource = nursery._scope.has(Closing)
        # No grace for the call, and all that it may need for its clean-up.
        to_end, graces = nursery.calls.to_end, iter([0.0, 3600.0])
        monkeypatch.setattr(nursery.calls, "to_end", lambda patience: to_end(next(graces)))
    with pytest.raises(NurseryClosedError):
        await wait_for(call)
    assert closed_at_clean_up == [False]
    assert resource is not None
    assert resource.closed


@pytest.mark.anyio
async def test_what_is_left_of_a_call_cannot_use_an_ended_nursery() -> None:
    scopes: list[Scope] = []

    async def keep(scope: Scope) -> None:
        scopes.append(scope)

    async with process.open_nursery():
        await process.call(keep)
    with pytest.raises(NurseryClosedError):
        scopes[0].resource(Closing)
    with pytest.raises(NurseryClosedError):
        await scopes[0].share("key", lambda: anyio.lowlevel.checkpoint())


@pytest.mark.anyio
async def test_a_call_is_answered_or_returned_whenever_it_comes_to_an_ending_nursery(
    threaded: Start,
) -> None:
    async def operation(scope: Scope) -> int:
        return 1

    async def hand_over(nursery: RemoteNursery) -> bool:
        here = mailbox_of(running_loop())
        handover = Handover(operation, (), here, nursery.mailbox)
        try:
            nursery.take(handover)
        except LoopClosedError:
            return True
        assert await handover.wait(nursery.watches.of(here), 0.0)
        return handover.returned or handover.outcome() == 1

    async def caller(nursery: RemoteNursery, calling: Signal) -> None:
        while nursery.state is not NurseryState.CLOSED:
            assert await hand_over(nursery)
            calling.set()
        for _ in range(100):
            assert await hand_over(nursery)

    async with process.open_nursery(LONG) as nursery:
        callings = [Signal() for _ in range(4)]
        workers = [
            threaded(lambda calling=each: asyncio.run(caller(nursery, calling)))
            for each in callings
        ]
        for calling in callings:
            await until(calling)
    assert nursery.state is NurseryState.CLOSED
    for worker in workers:
        await outcome_of(worker)


@pytest.mark.anyio
async def test_calls_that_were_not_taken_up_go_to_the_next_nursery(elsewhere: Start) -> None:
    async def thread(scope: Scope) -> int:
        return threading.get_ident()

    async with process.open_nursery(LONG) as nursery:
        call = elsewhere(process.call, thread)
        while not nursery.mailbox._calls:
            pass  # the nursery's loop does not turn: the call waits
    assert await wait_for(call) != threading.get_ident()


@pytest.mark.anyio
async def test_a_bug_in_the_nursery_ends_it_with_the_error_shown(elsewhere: Start) -> None:
    running = Running()

    async def bug() -> None:
        raise AssertionError("a bug")

    calls: list[Future[Any]] = []

    async def host() -> None:
        async with process.open_nursery(SHORT) as nursery:
            calls.append(elsewhere(process.call, running))
            await until(running.begun)
            nursery._task_group.start_soon(bug)
            await anyio.sleep_forever()

    with pytest.raises(Exception, match=r"TaskGroup|nursery") as caught:
        await host()
    assert [str(each) for each in caught.value.exceptions] == ["a bug"]
    with pytest.raises(NurseryClosedError):
        await wait_for(calls[0])
    assert process.current_nursery() is None


def test_a_bug_in_the_hosted_nursery_is_logged_and_the_next_call_starts_another(
    elsewhere: Start, short_grace: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    running = Running()

    async def bug() -> None:
        raise AssertionError("a bug")

    async def answer(scope: Scope) -> str:
        return "here"

    call = elsewhere(process.call, running)
    assert running.begun.wait(20)
    broken = process.current_nursery()
    assert broken is not None
    broken.mailbox.post(lambda: broken._task_group.start_soon(bug))
    with pytest.raises(NurseryClosedError):
        call.result(20)
    assert process.call_blocking(answer) == "here"
    assert process.current_nursery() is not broken
    process.close()
    assert "a bug" in caplog.text


def test_a_call_that_cannot_be_started_gets_the_error(
    elsewhere: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(scope: Scope) -> str:
        return "here"

    async def main() -> None:
        async with process.open_nursery(LONG) as nursery:

            def refuse(*args: object, **options: object) -> None:
                raise RuntimeError("no more tasks")

            monkeypatch.setattr(nursery.calls._task_group, "start_soon", refuse)
            with pytest.raises(RuntimeError, match="no more tasks"):
                await wait_for(elsewhere(process.call, answer))
            monkeypatch.undo()

    asyncio.run(main())
