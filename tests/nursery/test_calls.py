"""Where a call runs, whoever makes it: in the nursery, or, where that cannot, at the caller."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint
from signals import LONG, Signal, until

from seamless_remote import NurseryClosedError, Settings
from seamless_remote.nursery import handover, loops, process, watch
from seamless_remote.nursery.hosted_thread import THREAD_NAME
from seamless_remote.nursery.event_loops import running_loop, wait_for
from seamless_remote.nursery.scope import LoneScope, Scope

Start = Callable[..., Future[Any]]

FOR_EVER = Settings(handover_patience=3600.0)


async def where(scope: Scope) -> tuple[str, Any]:
    """The thread and the loop in which it runs."""
    await checkpoint()
    return threading.current_thread().name, running_loop()


async def is_lone(scope: Scope) -> bool:
    await checkpoint()
    return isinstance(scope, LoneScope)


async def fail(scope: Scope) -> None:
    await checkpoint()
    raise LookupError("on purpose")


async def double(scope: Scope, number: int) -> int:
    await checkpoint()
    return 2 * number


@pytest.fixture
def watch_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[Signal], None]:
    """Has callers watch the nursery's loop from a signal on: it might stall by chance before."""

    def arrange(signal: Signal) -> None:
        wait = watch.Watch.wait

        async def wait_then(self: watch.Watch, call: watch.Watched) -> None:
            await until(signal)
            await wait(self, call)

        monkeypatch.setattr(watch.Watch, "wait", wait_then)

    return arrange


@pytest.mark.anyio
async def test_a_call_from_the_nursery_s_loop_runs_in_the_caller_s_own_task() -> None:
    async def task_id(scope: Scope) -> int:
        return anyio.get_current_task().id

    async with process.open_nursery():
        assert await process.call(task_id) == anyio.get_current_task().id


@pytest.mark.anyio
@pytest.mark.parametrize("caller", ["asyncio", "trio"])
async def test_a_call_from_another_loop_runs_in_the_nursery(elsewhere: Start, caller: str) -> None:
    async with process.open_nursery(FOR_EVER):
        found = await wait_for(elsewhere(process.call, where, backend=caller))
        assert found == (threading.current_thread().name, running_loop())


@pytest.mark.anyio
async def test_an_error_comes_back_with_its_traceback(elsewhere: Start) -> None:
    async with process.open_nursery(FOR_EVER):
        with pytest.raises(LookupError, match="on purpose") as caught:
            await wait_for(elsewhere(process.call, fail))
        names = [frame.name for frame in traceback.extract_tb(caught.tb)]
        assert "fail" in names


@pytest.mark.parametrize("caller", ["asyncio", "trio"])
def test_without_a_host_calls_run_on_one_thread_that_starts_by_itself(caller: str) -> None:
    first = anyio.run(process.call, where, backend=caller)
    second = anyio.run(process.call, where, backend=caller)
    assert first == second
    assert first[0] == THREAD_NAME
    assert [each.name for each in threading.enumerate()].count(THREAD_NAME) == 1


def test_importing_and_asking_start_no_thread() -> None:
    process.settings()
    assert process.current_nursery() is None
    assert THREAD_NAME not in [each.name for each in threading.enumerate()]


def test_threads_that_call_at_once_start_one_nursery(elsewhere: Start) -> None:
    calls = [elsewhere(process.call, where) for _ in range(16)]
    assert len({call.result() for call in calls}) == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_blocking_call_works_in_a_thread_with_a_loop_and_without(backend: str) -> None:
    async def blocking() -> int:
        return process.call_blocking(double, 4)

    assert process.call_blocking(double, 3) == 6
    assert anyio.run(blocking, backend=backend) == 8


@pytest.mark.anyio
async def test_a_blocking_call_in_the_nursery_s_own_loop_runs_on_the_side() -> None:
    async with process.open_nursery(FOR_EVER):
        assert process.call_blocking(is_lone)
        with pytest.raises(LookupError, match="on purpose"):
            process.call_blocking(fail)


def test_a_second_asyncio_loop_in_a_thread_whose_loop_has_the_nursery_runs_on_the_side() -> None:
    loop = asyncio.new_event_loop()

    async def main() -> None:
        async with process.open_nursery(FOR_EVER):
            inside.set()
            await leave.wait()

    inside, leave = asyncio.Event(), asyncio.Event()
    try:
        host = loop.create_task(main())
        loop.run_until_complete(inside.wait())
        assert asyncio.run(process.call(is_lone))
        leave.set()
        loop.run_until_complete(host)
    finally:
        loop.close()


def test_an_asyncio_loop_inside_a_trio_host_s_task_runs_calls_on_the_side() -> None:
    async def main() -> None:
        async with process.open_nursery(FOR_EVER):
            assert asyncio.run(process.call(is_lone))
            with pytest.raises(LookupError):
                asyncio.run(process.call(fail))
            assert await trio.to_thread.run_sync(lambda: asyncio.run(process.call(where))) == (
                threading.current_thread().name,
                running_loop(),
            )

    trio.run(main)


def test_an_asyncio_loop_inside_a_trio_task_reaches_the_hosted_nursery() -> None:
    async def main() -> tuple[str, Any]:
        return asyncio.run(process.call(where))

    assert trio.run(main)[0] == THREAD_NAME


@pytest.mark.anyio
async def test_a_helper_thread_of_a_host_that_waits_for_it_runs_the_call_itself_once(
    elsewhere: Start,
) -> None:
    runs: list[bool] = []

    async def operation(scope: Scope) -> str:
        runs.append(isinstance(scope, LoneScope))
        await checkpoint()
        return "done"

    async with process.open_nursery(Settings(handover_patience=0.02)):
        helper = elsewhere(process.call, operation)
        assert helper.result(10) == "done"  # blocks the nursery's loop
        for _ in range(10):
            await checkpoint()
        assert runs == [True]


@pytest.mark.anyio
async def test_a_call_that_the_nursery_began_is_repeated_where_its_loop_waits_for_it(
    elsewhere: Start, watch_once: Callable[[Signal], None]
) -> None:
    runs: list[str] = []
    begun = Signal()
    watch_once(begun)

    async def operation(scope: Scope) -> str:
        if isinstance(scope, LoneScope):
            runs.append("alone")
            return "done"
        runs.append("here")
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            runs.append("cancelled here")
        return "never"

    async with process.open_nursery(Settings(handover_patience=0.02)) as nursery:
        helper = elsewhere(process.call, operation)
        await until(begun)
        assert helper.result(LONG) == "done"  # blocks the nursery's loop
        assert runs == ["here", "alone"]
        with anyio.fail_after(LONG):
            while nursery.snapshot().calls:
                await checkpoint()
        assert runs == ["here", "alone", "cancelled here"]


@pytest.mark.anyio
@pytest.mark.parametrize("caller", ["asyncio", "trio"])
async def test_of_a_hundred_calls_that_wait_for_a_loop_that_stalls_each_runs_once(
    elsewhere: Start, caller: str
) -> None:
    runs: list[int] = []

    async def operation(scope: Scope, number: int) -> None:
        assert isinstance(scope, LoneScope)
        runs.append(number)
        await checkpoint()

    async def burst() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(process.call, operation, number)

    async with process.open_nursery(Settings(handover_patience=0.02)) as nursery:
        elsewhere(burst, backend=caller).result(20)  # blocks the nursery's loop
        while nursery.mailbox.waiting_since() is not None:
            await checkpoint()
    assert sorted(runs) == list(range(100))


@pytest.mark.anyio
@pytest.mark.parametrize("caller", ["asyncio", "trio"])
async def test_of_a_hundred_calls_that_a_loop_had_begun_when_it_stalled_each_is_repeated_once(
    elsewhere: Start, caller: str, watch_once: Callable[[Signal], None]
) -> None:
    begun: set[int] = set()
    cancelled: set[int] = set()
    repeated: list[int] = []
    all_begun = Signal()
    watch_once(all_begun)

    async def operation(scope: Scope, number: int) -> None:
        if isinstance(scope, LoneScope):
            repeated.append(number)
            await checkpoint()
            return
        begun.add(number)
        if len(begun) == 100:
            all_begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.add(number)

    async def burst() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(process.call, operation, number)

    async with process.open_nursery(Settings(handover_patience=0.02)) as nursery:
        helper = elsewhere(burst, backend=caller)
        await until(all_begun)
        helper.result(LONG)  # blocks the nursery's loop
        assert sorted(repeated) == list(range(100))
        assert cancelled == set()
        with anyio.fail_after(LONG):
            while nursery.snapshot().calls:
                await checkpoint()
        assert cancelled == begun


@pytest.mark.anyio
async def test_a_call_that_must_not_be_repeated_is_waited_for(
    elsewhere: Start, watch_once: Callable[[Signal], None]
) -> None:
    begun, go = Signal(), anyio.Event()
    runs: list[bool] = []
    watch_once(begun)

    async def operation(scope: Scope) -> str:
        runs.append(isinstance(scope, LoneScope))
        begun.set()
        await go.wait()
        return "done"

    async def once() -> str:
        return await process.call(operation, repeatable=False)

    async with process.open_nursery(Settings(handover_patience=0.02)):
        helper = elsewhere(once)
        await until(begun)
        concurrent.futures.wait([helper], 0.5)  # blocks the nursery's loop
        assert not helper.done()
        go.set()
        assert await wait_for(helper) == "done"
        assert runs == [False]


@pytest.mark.anyio
async def test_callers_of_a_loop_that_is_known_to_stall_do_not_try_it_again(
    elsewhere: Start,
) -> None:
    async with process.open_nursery(Settings(handover_patience=0.02)) as nursery:
        assert elsewhere(process.call, is_lone).result(10)
        waiting = len(nursery.mailbox._calls)
        for _ in range(3):
            assert elsewhere(process.call, is_lone).result(10)
        assert len(nursery.mailbox._calls) == waiting
        await checkpoint()
        while nursery.mailbox.waiting_since() is not None:
            await checkpoint()
        assert not await wait_for(elsewhere(process.call, is_lone))


@pytest.mark.anyio
async def test_a_loop_that_turns_keeps_the_calls_that_wait_for_longer_than_the_patience(
    elsewhere: Start,
) -> None:
    async def burst() -> list[bool]:
        return await asyncio.gather(*[process.call(is_lone) for _ in range(500)])

    async with process.open_nursery(Settings(handover_patience=5.0)):
        assert not any(await wait_for(elsewhere(burst)))


@pytest.mark.anyio
async def test_short_lived_loops_on_many_threads_are_all_served(threaded: Start) -> None:
    def worker(number: int) -> list[int]:
        return [asyncio.run(process.call(double, 1000 * number + each)) for each in range(13)]

    async with process.open_nursery(FOR_EVER) as nursery:
        workers = [threaded(worker, number) for number in range(16)]
        for number, each in enumerate(workers):
            answers = await wait_for(each)
            assert answers == [2 * (1000 * number + call) for call in range(13)]
        assert nursery.snapshot().calls == 0


@pytest.mark.anyio
@pytest.mark.parametrize("caller", ["asyncio", "trio"])
async def test_a_burst_from_one_loop_is_answered_in_full(elsewhere: Start, caller: str) -> None:
    async def burst() -> list[int]:
        answers = [0] * 3000

        async def ask(number: int) -> None:
            answers[number] = await process.call(double, number)

        async with anyio.create_task_group() as tasks:
            for number in range(3000):
                tasks.start_soon(ask, number)
        return answers

    async with process.open_nursery(FOR_EVER):
        answers = await wait_for(elsewhere(burst, backend=caller))
    assert answers == [2 * number for number in range(3000)]


@pytest.mark.anyio
async def test_an_operation_that_meets_a_cancelled_future_does_not_end_the_nursery(
    elsewhere: Start, anyio_backend: str
) -> None:
    if anyio_backend == "trio":
        pytest.skip("trio has no cancellation from outside of a scope")

    async def stray(scope: Scope) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with process.open_nursery(FOR_EVER):
        with pytest.raises(NurseryClosedError):
            await wait_for(elsewhere(process.call, stray))
        with pytest.raises(NurseryClosedError):
            await wait_for(
                elsewhere(process.call, lambda scope: scope.share("key", partial(stray, scope)))
            )
        assert await wait_for(elsewhere(process.call, double, 2)) == 4


@pytest.mark.parametrize("wake_up_under_way", [False, True])
def test_a_nursery_whose_loop_was_closed_without_leaving_its_block_is_replaced(
    wake_up_under_way: bool,
) -> None:
    async def main() -> None:
        async with process.open_nursery(FOR_EVER):
            inside.set()
            await anyio.sleep_forever()

    inside = asyncio.Event()
    loop = asyncio.new_event_loop()
    tasks: set[asyncio.Task[Any]] = {loop.create_task(main())}
    loop.run_until_complete(inside.wait())
    tasks |= asyncio.all_tasks(loop)
    dropped = process.current_nursery()
    assert dropped is not None
    if wake_up_under_way:
        dropped.post(lambda: None)
    loop.close()
    assert anyio.run(process.call, where)[0] == THREAD_NAME
    assert process.current_nursery() is not dropped
    _KEPT.append(tasks)


_KEPT: list[Any] = []
"""What was dropped in mid-block: collected, it would complain that it cannot leave the block."""


def test_a_call_that_runs_when_the_nursery_s_loop_is_closed_under_it_gets_an_error(
    elsewhere: Start, monkeypatch: pytest.MonkeyPatch, watch_once: Callable[[Signal], None]
) -> None:
    monkeypatch.setattr(watch, "LIVENESS_INTERVAL", 0.01)
    begun = Signal()
    watch_once(begun)

    async def operation(scope: Scope) -> None:
        begun.set()
        await anyio.sleep_forever()

    async def main() -> None:
        async with process.open_nursery(Settings(handover_patience=0.01)):
            _KEPT.append(elsewhere(partial(process.call, operation, repeatable=False)))
            await until(begun)
            inside.set()
            await anyio.sleep_forever()

    inside = asyncio.Event()
    loop = asyncio.new_event_loop()
    _KEPT.append(loop.create_task(main()))
    loop.run_until_complete(inside.wait())
    _KEPT.append(asyncio.all_tasks(loop))
    loop.close()
    call = next(each for each in reversed(_KEPT) if isinstance(each, Future))
    with pytest.raises(NurseryClosedError, match="closed under"):
        call.result(LONG)


def test_an_outcome_that_is_on_its_way_when_the_nursery_s_loop_closes_arrives() -> None:
    async def caller() -> int:
        here = loops.mailbox_of(running_loop())

        call: list[handover.Handover[int]] = []

        async def run_and_close() -> None:
            call.append(handover.Handover(double, (2,), here, loops.mailbox_of(running_loop())))
            assert call[0].claim()
            await call[0].run(LoneScope(FOR_EVER), anyio.CancelScope(), lambda call: None)

        # Run on the side while this loop does not turn: the news of it cannot have come.
        other = loops.mailbox_of(_run_in_thread(run_and_close))
        assert other.is_closed()
        assert await call[0].wait(watch.Watches(other, 0.0).of(here), 0.0)
        return call[0].outcome()

    assert asyncio.run(caller()) == 4


def _run_in_thread(function: Callable[[], Any]) -> asyncio.AbstractEventLoop:
    """Run an async function in a new loop on a thread, to its end; the loop, closed."""
    loop = asyncio.new_event_loop()

    def work() -> None:
        loop.run_until_complete(function())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return loop
