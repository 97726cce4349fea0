"""A call runs where it is made: in its caller's own task, in whatever loop."""

from __future__ import annotations

import asyncio
import contextvars
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
from loops import ASYNCIO_KINDS, KINDS, ON_ASYNCIO, LoopThread, new_loop, run
from signals import LONG, Signal, outcome_of, until

from seamless_remote.nursery import process
from seamless_remote.nursery.calling import call, call_blocking, share
from seamless_remote.nursery.calls import Call
from seamless_remote.nursery.event_loops import running_loop
from seamless_remote.nursery.hosted_thread import THREAD_NAME
from seamless_remote.nursery.waiter import wait_for

Start = Callable[..., Future[Any]]
Loops = Callable[[str], LoopThread]

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="none")


async def where(this: Call) -> tuple[int, Any, int]:
    """The thread, the loop and the task in which it runs."""
    await checkpoint()
    return threading.get_ident(), running_loop(), anyio.get_current_task().id


async def fail(this: Call) -> None:
    await checkpoint()
    raise LookupError("on purpose")


async def double(this: Call, number: int) -> int:
    await checkpoint()
    return 2 * number


async def asyncio_double(this: Call, number: int) -> int:
    """For a loop that anyio takes for one of trio."""
    await asyncio.sleep(0)
    return 2 * number


async def call_where() -> None:
    """A call runs in the thread, the loop and the task that makes it."""
    found = await call("a test", where)
    assert found == (threading.get_ident(), running_loop(), anyio.get_current_task().id)


@pytest.mark.anyio
async def test_a_call_runs_in_its_caller_s_own_task() -> None:
    await call_where()
    await call_where()


@pytest.mark.anyio
@pytest.mark.parametrize("caller", KINDS)
async def test_so_it_does_beside_a_host_s_nursery_and_in_it(elsewhere: Start, caller: str) -> None:
    async with process.open_nursery():
        await call_where()
        await outcome_of(elsewhere(call_where, kind=caller))


@pytest.mark.anyio
async def test_the_caller_s_context_variables_are_the_operation_s() -> None:
    async def operation(this: Call) -> str:
        found = VARIABLE.get()
        VARIABLE.set("by the operation")
        return found

    VARIABLE.set("by the caller")
    assert await call("a test", operation) == "by the caller"
    assert VARIABLE.get() == "by the operation"


@pytest.mark.anyio
async def test_an_error_comes_out_as_it_is_with_the_frames_of_the_caller_s_own_task() -> None:
    with pytest.raises(LookupError, match="on purpose") as caught:
        await call("a test", fail)
    names = [frame.name for frame in traceback.extract_tb(caught.tb)]
    assert names[-1] == "fail"
    assert names[0].startswith("test_an_error")
    assert caught.value.__cause__ is None


@pytest.mark.anyio
async def test_a_call_under_way_says_what_it_does_for_how_long_and_what_it_waits_for() -> None:
    go = anyio.Event()

    async def operation(this: Call) -> None:
        this.waits_for = LookupError("a thing whose text says it")
        await go.wait()

    async with anyio.create_task_group() as tasks, process.open_nursery() as nursery:
        tasks.start_soon(call, "testing it", operation)
        await anyio.wait_all_tasks_blocked()
        (snapshot,) = nursery.snapshot().calls
        assert snapshot.what == "testing it"
        assert 0 <= snapshot.age < LONG
        assert snapshot.waits_for == "a thing whose text says it"
        go.set()
        await anyio.wait_all_tasks_blocked()
        assert nursery.snapshot().calls == ()


@pytest.mark.anyio
@ON_ASYNCIO
async def test_an_operation_that_meets_a_cancelled_future_ends_nothing_else() -> None:
    async def stray(this: Call) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with process.open_nursery() as nursery:
        with pytest.raises(asyncio.CancelledError):
            await call("a test", stray)
        assert await call("a test", double, 2) == 4
        assert nursery.is_open


# The hosted nursery.


@pytest.mark.parametrize("caller", KINDS)
def test_without_a_host_one_hosted_nursery_looks_after_all_calls(caller: str) -> None:
    for _ in range(3):
        run(caller, call_where)
    assert [each.name for each in threading.enumerate()].count(THREAD_NAME) == 1
    nursery = process.current_nursery()
    assert nursery is not None
    assert nursery.hosted


def test_importing_and_asking_start_no_thread() -> None:
    process.settings()
    assert process.current_nursery() is None
    assert THREAD_NAME not in [each.name for each in threading.enumerate()]


def test_threads_that_call_at_once_start_one_nursery(elsewhere: Start) -> None:
    nurseries = []

    async def operation(this: Call) -> None:
        nurseries.append(process.current_nursery())

    for each in [elsewhere(call, "a test", operation) for _ in range(16)]:
        each.result(LONG)
    assert len(nurseries) == 16
    assert len(set(nurseries)) == 1
    assert nurseries[0] is not None


# Synchronous callers.


def test_a_blocking_call_in_a_thread_without_a_loop_runs_in_that_thread() -> None:
    assert call_blocking("a test", double, 3) == 6
    assert call_blocking("a test", where)[0] == threading.get_ident()


@pytest.mark.anyio
async def test_a_blocking_call_works_inside_a_loop_and_inside_the_nursery_s_own() -> None:
    assert call_blocking("a test", double, 4) == 8
    async with process.open_nursery():
        assert call_blocking("a test", double, 5) == 10
        with pytest.raises(LookupError, match="on purpose"):
            call_blocking("a test", fail)


@pytest.mark.anyio
@pytest.mark.parametrize("inside", [True, False])
async def test_a_blocking_call_takes_the_context_variables_along(inside: bool) -> None:
    async def variable(this: Call) -> str:
        return VARIABLE.get()

    VARIABLE.set("by the caller")
    if inside:
        assert call_blocking("a test", variable) == "by the caller"
    else:
        answer = anyio.to_thread.run_sync(call_blocking, "a test", variable)
        assert await answer == "by the caller"


@pytest.mark.anyio
async def test_a_blocking_call_inside_a_loop_that_holds_every_place_goes_through() -> None:
    limiter = process.this_process().limiter

    async def limited(this: Call) -> str:
        share = limiter.take_now(this.loop)
        if share is None:
            share = await limiter.take(this.loop)
        limiter.give_back(share)
        return "done"

    async with process.open_nursery():
        here = running_loop()
        shares = [await limiter.take(here) for _ in range(limiter.snapshot().bound)]
        assert limiter.take_now(here) is None
        assert call_blocking("a test", limited) == "done"
        for share in shares:
            limiter.give_back(share)


@pytest.mark.anyio
@pytest.mark.parametrize("caller", KINDS)
async def test_a_thread_for_which_a_host_waits_in_its_loop_makes_its_calls(
    elsewhere: Start, caller: str
) -> None:
    async def burst() -> list[int]:
        answers: list[int] = []

        async def ask(number: int) -> None:
            answers.append(await call("a test", double, number))

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(ask, number)
        return answers

    async with process.open_nursery():
        answers = elsewhere(burst, kind=caller).result(LONG)  # blocks the nursery's loop
    assert sorted(answers) == [2 * number for number in range(100)]


# Loops inside of others.


def test_an_asyncio_loop_inside_a_trio_task_makes_calls_although_libraries_take_it_for_trio() -> (
    None
):
    async def main() -> None:
        for _ in range(2):
            assert asyncio.run(call("a test", asyncio_double, 2)) == 4
            assert asyncio.run(call("a test", double, 2)) == 4
            with pytest.raises(LookupError):
                asyncio.run(call("a test", fail))

    async def host() -> None:
        async with process.open_nursery():
            await main()
            assert await trio.to_thread.run_sync(lambda: asyncio.run(call("", double, 3))) == 6

    trio.run(main)
    trio.run(host)


@pytest.mark.parametrize("kind", ASYNCIO_KINDS)
def test_a_second_loop_in_a_thread_whose_first_loop_has_the_nursery_makes_calls(kind: str) -> None:
    loop = new_loop(kind)

    async def main() -> None:
        async with process.open_nursery():
            inside.set()
            await leave.wait()

    inside, leave = asyncio.Event(), asyncio.Event()
    try:
        host = loop.create_task(main())
        loop.run_until_complete(inside.wait())
        assert run(kind, call, "a test", double, 2) == 4
        leave.set()
        loop.run_until_complete(host)
    finally:
        loop.close()


@pytest.mark.parametrize("kind", ASYNCIO_KINDS)
def test_trio_as_a_guest_of_asyncio_makes_calls_beside_its_host(kind: str) -> None:
    async def guest() -> None:
        async with process.open_nursery():
            for _ in range(3):
                await call_where()
                assert call_blocking("a test", double, 1) == 2

    async def host() -> None:
        here = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = here.create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=here.call_soon_threadsafe,
            done_callback=ended.set_result,
            host_uses_signal_set_wakeup_fd=kind == "uvloop",
        )
        while not ended.done():
            assert await call("a test", asyncio_double, 2) == 4
            await asyncio.sleep(0)
        ended.result().unwrap()

    loop = new_loop(kind)
    try:
        loop.run_until_complete(host())
    finally:
        loop.close()


# Many of them.


@pytest.mark.anyio
async def test_many_threads_with_a_new_loop_for_each_call_are_all_answered(threaded: Start) -> None:
    def worker(number: int) -> list[int]:
        return [
            asyncio.run(call("a test", double, 1000 * number + each))  # a loop for each
            for each in range(13)
        ]

    async with process.open_nursery() as nursery:
        workers = [threaded(worker, number) for number in range(16)]
        for number, each in enumerate(workers):
            answers = await outcome_of(each)
            assert answers == [2 * (1000 * number + call) for call in range(13)]
        assert nursery.snapshot().calls == ()


@pytest.mark.anyio
@pytest.mark.parametrize("caller", KINDS)
async def test_a_burst_from_one_loop_is_answered_in_full(elsewhere: Start, caller: str) -> None:
    async def burst() -> list[int]:
        answers = [0] * 3000

        async def ask(number: int) -> None:
            answers[number] = await call("a test", double, number)

        async with anyio.create_task_group() as tasks:
            for number in range(3000):
                tasks.start_soon(ask, number)
        return answers

    async with process.open_nursery():
        answers = await wait_for(elsewhere(burst, kind=caller))
    assert answers == [2 * number for number in range(3000)]


@pytest.mark.anyio
async def test_calls_of_a_stopped_loop_go_on_when_it_turns_again(threaded: Start) -> None:
    begun, go = Signal(), Signal()

    async def operation(this: Call) -> str:
        begun.set()
        await until(go)
        return "done"

    def in_pieces() -> str:
        loop = asyncio.new_event_loop()
        try:
            task = loop.create_task(call("a test", operation))
            loop.run_until_complete(until(begun))
            process.close()  # does not wait for what has stopped
            go.set()
            return loop.run_until_complete(task)
        finally:
            loop.close()

    assert await outcome_of(threaded(in_pieces)) == "done"


_KEPT: list[Any] = []
"""What was dropped in mid-block: collected, it would complain that it cannot leave the block."""


@pytest.mark.parametrize("kind", ASYNCIO_KINDS)
@pytest.mark.parametrize("wake_up_under_way", [False, True])
def test_a_nursery_whose_loop_was_closed_without_leaving_its_block_is_replaced(
    kind: str, wake_up_under_way: bool
) -> None:
    async def main() -> None:
        async with process.open_nursery():
            inside.set()
            await anyio.sleep_forever()

    inside = asyncio.Event()
    loop = new_loop(kind)
    tasks: set[asyncio.Task[Any]] = {loop.create_task(main())}
    loop.run_until_complete(inside.wait())
    tasks |= asyncio.all_tasks(loop)
    _KEPT.append(tasks)
    dropped = process.current_nursery()
    assert dropped is not None
    if wake_up_under_way:
        dropped.rearrange()
    loop.close()
    run("asyncio", call_where)
    replacement = process.current_nursery()
    assert replacement is not dropped
    assert replacement is not None
    assert replacement.hosted


def test_two_who_ask_for_the_same_share_it_and_another_loop_does_not(elsewhere: Start) -> None:
    made: list[Any] = []

    async def operation(this: Call) -> str:
        return await share(this, "key", partial(make, running_loop()))

    def make(loop: Any) -> Callable[[Call], Any]:
        made.append(loop)

        async def work(this: Call) -> str:
            await anyio.wait_all_tasks_blocked()
            return "outcome"

        return work

    async def several() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(call, "a test", operation)

    for each in [elsewhere(several, kind=kind) for kind in KINDS]:
        each.result(LONG)
    assert len(made) == len(set(made)) == 3
