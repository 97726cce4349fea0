"""How nurseries and calls end: grace first, then cancellation; nobody else is touched."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from loops import ASYNCIO_KINDS, DROPPED, KINDS, ON_ASYNCIO, Dropped, LoopThread, new_loop, run
from signals import LONG, Signal, outcome_of, until

from seamless_remote import NurseryClosedError, Settings
from seamless_remote.nursery import process
from seamless_remote.nursery.calling import call, call_blocking, share
from seamless_remote.nursery.calls import Call
from seamless_remote.nursery.event_loops import running_loop
from seamless_remote.nursery.hosted_thread import THREAD_NAME
from seamless_remote.nursery.nursery import NurseryState, RemoteNursery
from seamless_remote.nursery.waiter import wait_for

Start = Callable[..., Future[Any]]
Loops = Callable[[str], LoopThread]

SHORT_GRACE = Settings(grace_period=0.1)
LONG_GRACE = Settings(grace_period=3600.0)


class Running:
    """An operation that says when it has begun, and goes on for ever or until it may end."""

    def __init__(self) -> None:
        self.begun = Signal()
        self.may_end = Signal()

    async def __call__(self, this: Call) -> str:
        self.begun.set()
        await self.may_end.reached()
        return "ended"


async def answer(this: Call) -> str:
    await anyio.lowlevel.checkpoint()
    return "here"


def under_way() -> list[Any]:
    return process.this_process().calls.under_way()


def hosted_threads() -> int:
    return [each.name for each in threading.enumerate()].count(THREAD_NAME)


@pytest.fixture
def when_ending(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has something done when a host's nursery has begun to end."""

    def arrange(act: Callable[[], object]) -> None:
        original = RemoteNursery._end_calls

        async def end_calls(self: RemoteNursery) -> None:
            act()
            await original(self)

        monkeypatch.setattr(RemoteNursery, "_end_calls", end_calls)

    return arrange


class Idle:
    """A resource of the process that notes when it is to let go of what it does not use."""

    def __init__(self) -> None:
        self.looked_after = Signal()
        self.let_gos = 0

    def __str__(self) -> str:
        return "a resource"

    async def upkeep(self, call: Call) -> None:
        self.looked_after.set()
        await anyio.sleep_forever()

    def let_go(self) -> None:
        self.let_gos += 1

    def snapshot(self) -> tuple[Any, ...]:
        return ()


@pytest.fixture
def idle() -> Iterator[Idle]:
    resource = Idle()
    process.adopt(resource)
    yield resource
    process.this_process().resources.remove(resource)


# The block of a host.


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
@ON_ASYNCIO
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
async def test_a_bug_in_the_nursery_ends_it_with_the_error_shown_and_calls_elsewhere_go_on(
    elsewhere: Start,
) -> None:
    running = Running()
    calls: list[Future[Any]] = []

    async def bug() -> None:
        raise AssertionError("a bug")

    async def host() -> None:
        async with process.open_nursery(SHORT_GRACE) as nursery:
            calls.append(elsewhere(call, "a test", running))
            await until(running.begun)
            nursery._task_group.start_soon(bug)
            await anyio.sleep_forever()

    with pytest.raises(Exception, match=r"TaskGroup|nursery") as caught:
        await host()
    assert [str(each) for each in caught.value.exceptions] == ["a bug"]  # type: ignore[attr-defined]
    replacement = process.current_nursery()
    assert replacement is not None
    assert replacement.hosted
    running.may_end.set()
    assert await outcome_of(calls[0]) == "ended"


def test_a_bug_in_the_hosted_nursery_is_logged_and_calls_go_on_with_another(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Start, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(self: RemoteNursery) -> None:
        raise AssertionError("a bug")

    running = Running()
    asked = elsewhere(call, "a test", running)
    assert running.begun.wait(LONG)
    broken = process.current_nursery()
    assert broken is not None
    (thread,) = process.this_process().hosted
    with monkeypatch.context() as patch:
        patch.setattr(RemoteNursery, "_arrange", bug)
        broken.rearrange()
        thread.join()
    assert process.current_nursery() is None
    assert call_blocking("a test", answer) == "here"
    assert process.current_nursery() is not None
    running.may_end.set()
    assert asked.result(LONG) == "ended"
    process.close()
    assert "a bug" in caplog.text


# Calls of the loop whose block is left.


@pytest.mark.anyio
@pytest.mark.parametrize("cancelled", [False, True])
async def test_calls_of_the_loop_get_their_grace(
    when_ending: Callable[[Callable[[], object]], None], cancelled: bool
) -> None:
    running = Running()
    answers: list[str] = []

    async def shared(this: Call) -> str:
        return await share(this, "key", lambda: running)

    async def ask(operation: Callable[[Call], Any]) -> None:
        answers.append(await call("a test", operation))

    when_ending(running.may_end.set)
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            async with process.open_nursery(LONG_GRACE):
                for operation in (running, shared, shared):
                    tasks.start_soon(ask, operation)
                await until(running.begun)
                if cancelled:
                    scope.cancel()
                    await anyio.sleep_forever()
        assert answers == 3 * ["ended"]


@pytest.mark.anyio
async def test_calls_that_outlast_the_grace_are_cancelled_and_told_so_and_their_tasks_go_on() -> (
    None
):
    told: list[str] = []

    async def ask(running: Running) -> None:
        with pytest.raises(NurseryClosedError):
            await call("a test", running)
        await anyio.lowlevel.checkpoint()  # the task itself is not cancelled
        told.append("it was closed")

    async with anyio.create_task_group() as tasks, process.open_nursery(SHORT_GRACE):
        for running in (Running(), Running()):
            tasks.start_soon(ask, running)
            await until(running.begun)
    assert len(told) == 2
    assert not under_way()


@pytest.mark.anyio
async def test_leaving_the_block_waits_for_the_cleanup_of_cancelled_calls(
    when_ending: Callable[[Callable[[], object]], None],
) -> None:
    begun, cleaned_up = Signal(), Signal()

    async def operation(this: Call) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.wait_all_tasks_blocked()  # the nursery has done all it does by then
            cleaned_up.set()

    async def ask() -> None:
        with pytest.raises(NurseryClosedError):
            await call("a test", operation)

    # No grace for the call, and all that it may need for its cleanup.
    when_ending(lambda: under_way()[0].end_within(0.0))
    async with anyio.create_task_group() as tasks:
        async with process.open_nursery(LONG_GRACE):
            tasks.start_soon(ask)
            await until(begun)
        assert cleaned_up.is_set()


@pytest.mark.anyio
async def test_leaving_the_block_does_not_wait_for_a_cleanup_that_never_ends() -> None:
    begun, may_end = Signal(), Signal()

    async def operation(this: Call) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await until(may_end)

    async def ask() -> None:
        with pytest.raises(NurseryClosedError):
            await call("a test", operation)

    async with anyio.create_task_group() as tasks:
        async with process.open_nursery(SHORT_GRACE):
            tasks.start_soon(ask)
            await until(begun)
        assert len(under_way()) == 1
        may_end.set()


# Calls of other loops.


@pytest.mark.anyio
@pytest.mark.parametrize("caller", KINDS)
async def test_a_host_opens_its_nursery_at_once_and_a_call_of_another_thread_goes_on(
    elsewhere: Start, short_grace: Settings, caller: str
) -> None:
    running = Running()
    under_way = elsewhere(call, "a test", running, kind=caller)
    await until(running.begun)
    hosted = process.current_nursery()
    async with process.open_nursery(LONG_GRACE) as nursery:
        assert process.current_nursery() is nursery
        assert hosted is not nursery
        assert [each.what for each in nursery.snapshot().calls] == ["a test"]
        assert not under_way.done()
        running.may_end.set()
        assert await outcome_of(under_way) == "ended"


@pytest.mark.anyio
@pytest.mark.parametrize("caller", KINDS)
async def test_when_a_host_leaves_its_block_a_call_of_another_thread_goes_on_on_a_hosted_nursery(
    elsewhere: Start, idle: Idle, caller: str
) -> None:
    running = Running()
    async with process.open_nursery(Settings(grace_period=0.0)):
        await until(idle.looked_after)
        under_way = elsewhere(call, "a test", running, kind=caller)
        await until(running.begun)
        idle.looked_after.clear()
    assert not under_way.done()
    nursery = process.current_nursery()
    assert nursery is not None
    assert nursery.hosted
    await until(idle.looked_after)
    assert idle.let_gos == 0
    running.may_end.set()
    assert await outcome_of(under_way) == "ended"


@pytest.mark.anyio
async def test_when_a_host_leaves_its_block_and_nobody_calls_all_is_let_go(idle: Idle) -> None:
    async with process.open_nursery():
        assert await call("a test", answer) == "here"
        assert idle.let_gos == 0
    assert process.current_nursery() is None
    assert hosted_threads() == 0
    assert idle.let_gos >= 1


# Closing all.


@pytest.mark.parametrize("host", [None, *KINDS])
def test_closing_ends_the_calls_of_all_loops_within_the_grace(
    elsewhere: Start, loop_threads: Loops, short_grace: Settings, host: str | None
) -> None:
    async def open_one() -> None:
        async with process.open_nursery(SHORT_GRACE):
            opened.set()
            await anyio.sleep_forever()

    opened = Signal()
    if host is not None:
        loop_threads(host).start(open_one)
        assert opened.wait(LONG)
    calls = []
    for kind in (*KINDS, *KINDS):
        running = Running()
        calls.append(elsewhere(call, "a test", running, kind=kind))
        assert running.begun.wait(LONG)
    process.close()
    for each in calls:
        with pytest.raises(NurseryClosedError):
            each.result(LONG)
    assert not under_way()


@pytest.mark.anyio
async def test_calls_that_end_within_the_grace_of_a_close_have_their_outcomes(
    elsewhere: Start, threaded: Start
) -> None:
    process.this_process().settings = LONG_GRACE
    running = Running()
    asked = elsewhere(call, "a test", running)
    await until(running.begun)
    (this,) = under_way()
    closes = [threaded(process.close) for _ in range(3)]
    while not this.ending:
        await anyio.lowlevel.checkpoint()
    assert not any(close.done() for close in closes)
    running.may_end.set()
    assert await outcome_of(asked) == "ended"
    for close in closes:
        await outcome_of(close)
    assert hosted_threads() == 0


def test_closing_may_be_repeated_and_with_nothing_open(threaded: Start) -> None:
    process.close()
    assert call_blocking("a test", answer) == "here"
    for close in [threaded(process.close) for _ in range(8)]:
        close.result(LONG)
        assert hosted_threads() == 0
    process.close()
    assert process.current_nursery() is None


@pytest.mark.anyio
async def test_closing_inside_a_loop_waits_for_all_calls_but_those_of_that_loop(
    elsewhere: Start, short_grace: Settings
) -> None:
    own, other = Running(), Running()

    async def ask() -> None:
        with pytest.raises(NurseryClosedError):
            await call("a test", own)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        asked = elsewhere(call, "a test", other)
        await until(own.begun)
        await until(other.begun)
        process.close()
        with pytest.raises(NurseryClosedError):
            asked.result(LONG)
        assert [each.loop for each in under_way()] == [running_loop()]
    assert not under_way()


def test_closing_in_a_loop_inside_a_trio_task_does_not_wait_for_that_task_s_loop() -> None:
    process.this_process().settings = LONG_GRACE
    running = Running()

    async def close() -> None:
        process.close()

    async def main() -> None:
        async with trio.open_nursery() as tasks:
            tasks.start_soon(call, "a test", running)
            await until(running.begun)
            asyncio.run(close())
            running.may_end.set()

    trio.run(main)
    assert not under_way()


def test_closing_in_the_host_of_a_trio_guest_does_not_wait_for_the_guest_s_calls() -> None:
    process.this_process().settings = LONG_GRACE
    running = Running()

    async def guest() -> None:
        assert await call("a test", running) == "ended"

    async def host() -> None:
        here = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = here.create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=here.call_soon_threadsafe,
            done_callback=ended.set_result,
        )
        # Not `until`: while trio runs in this thread, anyio takes asyncio's tasks for trio's.
        while not running.begun.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0)
        process.close()
        running.may_end.set()
        (await ended).unwrap()

    asyncio.run(host())
    assert not under_way()


@pytest.mark.parametrize("kind", ASYNCIO_KINDS)
def test_closing_does_not_wait_for_calls_of_a_loop_that_has_stopped(
    threaded: Start, kind: str
) -> None:
    process.this_process().settings = LONG_GRACE
    stopped = Dropped(kind)
    stopped.begin(lambda: call("a test", Running()))
    assert len(under_way()) == 1
    threaded(process.close).result(LONG)
    stopped.cancel()
    assert not under_way()


def test_a_call_that_the_collector_ends_in_the_closing_thread_does_not_stop_it(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Start
) -> None:
    process.this_process().settings = LONG_GRACE
    running = Running()
    asked = elsewhere(call, "a test", running)
    assert running.begun.wait(LONG)
    calls = process.this_process().calls
    original = calls.under_way
    dropped = [Dropped("asyncio")]
    dropped[0].begin(lambda: call("a test", Running()))
    dropped[0].close()

    def collect_and_look() -> Any:
        if dropped:
            dropped.pop().collect()
            running.may_end.set()
        return original()

    monkeypatch.setattr(calls, "under_way", collect_and_look)
    process.close()
    assert asked.result(LONG) == "ended"


# Loops that are dropped with calls under way.


@DROPPED
@pytest.mark.parametrize("host", [True, False])
def test_calls_of_a_dropped_loop_are_not_counted_and_nothing_is_left_of_it(
    kind: str, closed: bool, host: bool
) -> None:
    process.this_process().settings = LONG_GRACE
    limiter = process.this_process().limiter
    places = limiter.snapshot().bound

    async def limited(this: Call) -> None:
        place = limiter.take_now(this.loop)
        if place is None:
            place = await limiter.take(this.loop)
        try:
            await Running()(this)
        finally:
            limiter.give_back(place)

    async def shared(this: Call) -> None:
        await share(this, "key", lambda: Running())

    def drop() -> None:
        dropped = Dropped(kind)
        dropped.begin(
            *(places + 3) * [lambda: call("a test", limited)], *3 * [lambda: call("", shared)]
        )
        assert len(under_way()) == places + 6
        loop: Any = weakref.ref(dropped.loop)
        process.this_process().calls.under_way()[0].end_within(3600.0)
        if closed:
            dropped.close()
            assert not under_way()
        dropped.collect()
        assert loop() is None
        assert not under_way()
        assert not process.this_process().calls._calls
        assert limiter.unused
        assert not process.this_process().shared._pieces

    async def hosting() -> None:
        async with process.open_nursery():
            await anyio.to_thread.run_sync(drop)

    if host:
        anyio.run(hosting)
    else:
        drop()


@pytest.mark.parametrize("kind", ASYNCIO_KINDS)
def test_closing_does_not_wait_for_calls_of_a_loop_that_is_closed_meanwhile(
    threaded: Start, kind: str
) -> None:
    process.this_process().settings = LONG_GRACE
    loop = new_loop(kind)
    running = Running()
    go = Signal()
    tasks: list[asyncio.Task[Any]] = []

    async def begin() -> None:
        tasks.append(asyncio.ensure_future(call("a test", running)))
        tasks[0]._log_destroy_pending = False  # type: ignore[attr-defined]
        await until(running.begun)
        await until(go)

    def run_and_close() -> None:
        loop.run_until_complete(begin())
        loop.close()

    ran = threaded(run_and_close)
    assert running.begun.wait(LONG)
    (this,) = under_way()
    closing = threaded(process.close)
    while not this.ending:
        pass
    assert not closing.done()
    go.set()
    ran.result(LONG)
    closing.result(LONG)
    del this
    tasks.clear()
    gc.collect()


@pytest.mark.anyio
async def test_a_call_made_while_the_nursery_of_its_loop_ends_is_answered(
    when_ending: Callable[[Callable[[], object]], None],
) -> None:
    async def ask() -> None:
        answers.append(await call("a test", answer))

    answers: list[str] = []
    async with anyio.create_task_group() as tasks:
        when_ending(lambda: tasks.start_soon(ask))
        async with process.open_nursery(LONG_GRACE):
            pass
    assert answers == ["here"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_thread_may_wait_for_a_close_in_its_loop(elsewhere: Start, kind: str) -> None:
    async def close_elsewhere() -> None:
        assert await call("a test", answer) == "here"
        await wait_for(elsewhere(anyio.to_thread.run_sync, process.close))

    run(kind, close_elsewhere)
    assert hosted_threads() == 0
