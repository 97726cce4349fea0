"""Limited calls begin in the order of their coming, so many at a time; nobody is forgotten."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from seamless_remote import NurseryClosedError, Settings
from seamless_remote.nursery import process
from seamless_remote.nursery.handover import Handover
from seamless_remote.nursery.hosted_thread import THREAD_NAME
from seamless_remote.nursery.line import FIRST_SWEEP, Line
from seamless_remote.nursery.event_loops import mailbox_of, running_loop, wait_for
from seamless_remote.nursery.nursery import RemoteNursery
from seamless_remote.nursery.scope import LoneScope, Scope

Start = Callable[..., Future[Any]]

LONG = 20.0
PLACES = 4
CALLERS = pytest.mark.parametrize("caller", ["asyncio", "trio"])


def bounded(**settings: Any) -> Settings:
    """Settings with a small bound, a long patience and a long grace, unless told otherwise."""
    chosen = {"handover_patience": 3600.0, "grace_period": 3600.0, "database_max_inflight": PLACES}
    return Settings(**{**chosen, **settings})


class Probe:
    """An operation that notes who begins where, and goes on until its call may end."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.alone: list[Any] = []
        self.tasks: set[int] = set()
        self.running = 0
        self.peak = 0
        self.all_may_end = False
        self._may_end: dict[Any, anyio.Event] = {}

    async def __call__(self, scope: Scope, name: Any) -> Any:
        (self.alone if isinstance(scope, LoneScope) else self.begun).append(name)
        self.tasks.add(anyio.get_current_task().id)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await checkpoint()
            if not (self.all_may_end or isinstance(scope, LoneScope)):
                await self._event(name).wait()
        finally:
            self.running -= 1
        return name

    def _event(self, name: Any) -> anyio.Event:
        return self._may_end.setdefault(name, anyio.Event())

    def end(self, name: Any) -> None:
        self._event(name).set()

    def end_all(self) -> None:
        self.all_may_end = True
        for event in self._may_end.values():
            event.set()

    async def call(self, name: Any) -> Any:
        return await process.call(self, name, limited=True)

    async def until_begun(self, count: int) -> None:
        while len(self.begun) < count:
            await checkpoint()

    async def call_many(self, names: Any) -> list[Any]:
        answers: list[Any] = []

        async def one(name: Any) -> None:
            answers.append(await self.call(name))

        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(one, name)
        return answers


async def until_in_line(nursery: RemoteNursery, count: int) -> None:
    while sum(nursery.calls._line.waiting()) != count:
        await checkpoint()


@asynccontextmanager
async def full_line(probe: Probe, **settings: Any) -> AsyncIterator[RemoteNursery]:
    """A nursery of this loop whose places are taken, by calls named `place 0` and so on."""
    chosen = bounded(**settings)
    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks, process.open_nursery(chosen) as nursery:
            for number in range(PLACES):
                tasks.start_soon(probe.call, f"place {number}")
            await probe.until_begun(PLACES)
            yield nursery
            probe.end_all()
            while nursery.snapshot().calls:
                await checkpoint()
            assert nursery.calls._line._taken == 0
            assert not nursery.calls._line._waiting


@pytest.mark.anyio
@CALLERS
async def test_who_came_first_begins_first_whichever_loop_it_is_of(
    elsewhere: Start, caller: str
) -> None:
    probe = Probe()
    others: list[Future[Any]] = []
    async with anyio.create_task_group() as tasks, full_line(probe) as nursery:
        for number in range(8):
            if number % 3:
                others.append(elsewhere(probe.call, number, backend=caller))
            else:
                tasks.start_soon(probe.call, number)
            await until_in_line(nursery, number + 1)
        snapshot = nursery.snapshot()
        assert (snapshot.calls, snapshot.limiter.waiting) == (PLACES + 8, 8)
        for number in range(8):
            probe.end("place 0" if number == 0 else number - 1)
            await probe.until_begun(PLACES + number + 1)
            assert probe.begun[PLACES:] == list(range(number + 1))
        probe.end_all()
        assert [await wait_for(each) for each in others] == [1, 2, 4, 5, 7]


@pytest.mark.anyio
@CALLERS
async def test_no_more_than_the_places_have_begun_and_all_are_answered(
    elsewhere: Start, caller: str
) -> None:
    probe = Probe()
    async with full_line(probe) as nursery:
        others = elsewhere(probe.call_many, range(300), backend=caller)
        await until_in_line(nursery, 300)
        probe.end_all()
        own = await probe.call_many(range(300, 600))
        assert sorted(await wait_for(others)) == list(range(300))
        assert sorted(own) == list(range(300, 600))
    assert probe.peak == PLACES
    assert probe.alone == []


@pytest.mark.anyio
@CALLERS
async def test_handed_over_calls_in_line_begin_in_a_task_that_has_ended_another_one(
    elsewhere: Start, caller: str
) -> None:
    probe = Probe()
    async with full_line(probe) as nursery:
        others = elsewhere(probe.call_many, range(100), backend=caller)
        await until_in_line(nursery, 100)
        probe.tasks.clear()
        probe.end_all()
        await wait_for(others)
    assert 1 <= len(probe.tasks) <= PLACES


@pytest.mark.anyio
async def test_a_cancelled_call_leaves_the_line_at_once() -> None:
    probe = Probe()
    async with full_line(probe) as nursery, anyio.create_task_group() as tasks:
        cancelled = anyio.CancelScope()

        async def impatient() -> None:
            with cancelled:
                await probe.call("cancelled")

        tasks.start_soon(impatient)
        await until_in_line(nursery, 1)
        tasks.start_soon(probe.call, "next")
        await until_in_line(nursery, 2)
        cancelled.cancel()
        await until_in_line(nursery, 1)
        probe.end("place 0")
        await probe.until_begun(PLACES + 1)
        assert probe.begun[PLACES:] == ["next"]
        probe.end_all()


@pytest.mark.anyio
@CALLERS
async def test_a_handed_over_call_whose_caller_is_cancelled_in_line_never_begins(
    elsewhere: Start, caller: str
) -> None:
    probe = Probe()
    give_up = threading.Event()

    async def impatient() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(probe.call, "cancelled")
            await anyio.to_thread.run_sync(give_up.wait)
            tasks.cancel_scope.cancel()

    async with full_line(probe) as nursery, anyio.create_task_group() as tasks:
        other = elsewhere(impatient, backend=caller)
        await until_in_line(nursery, 1)
        tasks.start_soon(probe.call, "next")
        await until_in_line(nursery, 2)
        give_up.set()
        await wait_for(other)
        assert nursery.snapshot().limiter.waiting == 1
        probe.end("place 0")
        await probe.until_begun(PLACES + 1)
        assert probe.begun[PLACES:] == ["next"]
        probe.end_all()


@pytest.mark.anyio
@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_a_place_that_comes_together_with_a_cancellation_goes_on_to_the_next(
    cancelled_first: bool,
) -> None:
    probe = Probe()
    scope = anyio.CancelScope()
    holding, go = anyio.Event(), anyio.Event()

    async def hold(_: Scope) -> None:
        holding.set()
        await go.wait()
        if cancelled_first:
            scope.cancel()

    async def pass_on() -> None:
        await process.call(hold, limited=True)
        scope.cancel()  # no checkpoint after the end of the call

    async def impatient() -> None:
        with scope:
            await probe.call("cancelled")

    async with full_line(probe) as nursery, anyio.create_task_group() as tasks:
        tasks.start_soon(pass_on)
        await until_in_line(nursery, 1)
        probe.end("place 0")
        await holding.wait()
        tasks.start_soon(impatient)
        await until_in_line(nursery, 1)
        tasks.start_soon(probe.call, "next")
        await until_in_line(nursery, 2)
        go.set()
        while "next" not in probe.begun:
            await checkpoint()
        probe.end_all()
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_a_call_in_line_whose_caller_s_loop_was_closed_passes_its_place_on() -> None:
    probe = Probe()
    loop = asyncio.new_event_loop()
    kept: list[Any] = []

    async def begin(nursery: RemoteNursery) -> None:
        task = asyncio.ensure_future(probe.call("of a closed loop"))
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        kept.append(task)
        while sum(nursery.calls._line.waiting()) != 1:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)

    def begin_and_close(nursery: RemoteNursery) -> None:
        loop.run_until_complete(begin(nursery))
        loop.close()

    async with full_line(probe) as nursery, anyio.create_task_group() as tasks:
        await anyio.to_thread.run_sync(begin_and_close, nursery)
        tasks.start_soon(probe.call, "next")
        await until_in_line(nursery, 2)
        probe.end_all()
    assert "next" in probe.begun


@pytest.mark.anyio
async def test_calls_in_line_are_answered_within_the_grace_of_the_nursery() -> None:
    probe = Probe()
    answers: list[Any] = []

    async def ask(number: int) -> None:
        answers.append(await probe.call(number))

    async with anyio.create_task_group() as tasks:
        async with process.open_nursery(bounded()) as nursery:
            for number in range(50):
                tasks.start_soon(ask, number)
            await probe.until_begun(PLACES)
            await until_in_line(nursery, 50 - PLACES)
            tasks.start_soon(_end_when_closing, nursery, probe)
        assert sorted(answers) == list(range(50))
    assert nursery.snapshot().calls == 0


async def _end_when_closing(nursery: RemoteNursery, probe: Probe) -> None:
    while nursery.state == "open":
        await checkpoint()
    probe.end_all()


@pytest.mark.anyio
async def test_calls_that_are_in_line_after_the_grace_never_begin_and_are_told_so() -> None:
    probe = Probe()
    told: list[str] = []

    async def ask(number: int) -> None:
        try:
            await probe.call(number)
        except NurseryClosedError as exc:
            told.append(str(exc))
        await checkpoint()  # the task itself is not cancelled

    async with anyio.create_task_group() as tasks:
        async with process.open_nursery(bounded(grace_period=0.1)) as nursery:
            for number in range(50):
                tasks.start_soon(ask, number)
            await until_in_line(nursery, 50 - PLACES)
        assert len(probe.begun) == PLACES
        assert sum("in its line" in each for each in told) == 50 - PLACES
        assert len(told) == 50
    assert (nursery.calls._line._taken, nursery.snapshot().calls) == (0, 0)


@pytest.mark.anyio
@CALLERS
async def test_handed_over_calls_in_line_go_elsewhere_when_the_nursery_ends(
    elsewhere: Start, caller: str
) -> None:
    threads: list[str] = []
    never = Probe()

    async def operation(scope: Scope) -> str:
        await checkpoint()
        threads.append(threading.current_thread().name)
        return "answered"

    async def burst() -> list[str]:
        answers: list[str] = []

        async def one() -> None:
            answers.append(await process.call(operation, limited=True))

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(one)
        return answers

    answers: list[Any] = []

    async def let_end(other: Future[Any]) -> None:
        answers.extend(await wait_for(other))
        never.end_all()

    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks, process.open_nursery(bounded()) as nursery:
            for number in range(PLACES):
                tasks.start_soon(never.call, number)
            await never.until_begun(PLACES)
            other = elsewhere(burst, backend=caller)
            await until_in_line(nursery, 50)
            tasks.start_soon(let_end, other)
    assert answers == 50 * ["answered"]
    assert threads == 50 * [THREAD_NAME]


@pytest.mark.anyio
@CALLERS
async def test_calls_in_line_of_a_loop_that_stalls_are_taken_back_once_each(
    elsewhere: Start, caller: str
) -> None:
    probe = Probe()
    async with full_line(probe, handover_patience=0.02) as nursery:
        other = elsewhere(probe.call_many, range(50), backend=caller)
        while sum(nursery.calls._line.waiting()) + len(probe.alone) < 50:
            await checkpoint()
        assert sorted(other.result(LONG)) == list(range(50))  # blocks the nursery's loop
        assert sorted(probe.alone) == list(range(50))
        await until_in_line(nursery, 0)
    assert len(probe.begun) == PLACES


@pytest.mark.anyio
async def test_a_call_that_was_put_in_line_is_not_taken_back_at_a_short_standstill() -> None:
    here = mailbox_of(running_loop())
    call = Handover(Probe(), ("name",), here, here, limited=True)
    call.in_line = True
    call.loop_stands_still(for_long=False)
    assert not call.is_claimed()
    call.loop_stands_still(for_long=True)
    assert call.is_claimed()
    assert call.is_settled()


@pytest.mark.anyio
@CALLERS
async def test_calls_that_fail_or_are_cancelled_pass_their_places_on(
    elsewhere: Start, caller: str
) -> None:
    probe = Probe()
    outcomes: list[str] = []

    async def operation(scope: Scope, number: int) -> None:
        if number % 3 == 0:
            raise LookupError("on purpose")
        await checkpoint()
        if number % 3 == 1:
            await anyio.sleep_forever()

    async def ask(number: int) -> None:
        try:
            with anyio.move_on_after(0.001 * number):
                await process.call(operation, number, limited=True)
                outcomes.append("answered")
                return
        except LookupError:
            outcomes.append("failed")
            return
        outcomes.append("cancelled")

    async def burst() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(ask, number)

    async with full_line(probe) as nursery:
        other = elsewhere(burst, backend=caller)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(burst)
            while not sum(nursery.calls._line.waiting()):
                await checkpoint()
            probe.end_all()
        await wait_for(other)
        assert len(outcomes) == 200
        assert await wait_for(elsewhere(probe.call, "the last", backend=caller)) == "the last"
        assert await probe.call("the very last") == "the very last"


_left_behind: contextvars.ContextVar[str] = contextvars.ContextVar("_left_behind", default="none")


@pytest.mark.anyio
async def test_what_a_call_leaves_in_its_context_does_not_reach_the_next(elsewhere: Start) -> None:
    probe = Probe()
    found: list[str] = []

    async def operation(scope: Scope, number: int) -> None:
        found.append(_left_behind.get())
        _left_behind.set(f"by call {number}")
        await checkpoint()

    async def burst() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(partial(process.call, operation, number, limited=True))

    async with full_line(probe) as nursery:
        other = elsewhere(burst)
        await until_in_line(nursery, 20)
        token = _left_behind.set("by the host")
        probe.end_all()
        _left_behind.reset(token)
        await wait_for(other)
    assert found == 20 * ["none"]


@pytest.mark.anyio
async def test_a_host_s_call_that_passes_its_place_on_lends_it_no_context(elsewhere: Start) -> None:
    found: list[str] = []
    go = anyio.Event()

    async def operation(scope: Scope) -> None:
        found.append(_left_behind.get())

    async def hold() -> None:
        _left_behind.set("by the host")
        await process.call(lambda scope: go.wait(), limited=True)

    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks, process.open_nursery(bounded()) as nursery:
            for _ in range(PLACES):
                tasks.start_soon(hold)
            while nursery.calls._line._taken < PLACES:
                await checkpoint()
            other = elsewhere(partial(process.call, operation, limited=True))
            await until_in_line(nursery, 1)
            go.set()
            await wait_for(other)
    assert found == ["none"]


@pytest.mark.anyio
async def test_a_call_in_line_that_cannot_be_started_gets_the_error_and_passes_its_place_on(
    elsewhere: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    probe = Probe()
    answers: list[Any] = []

    async def ask() -> None:
        answers.append(await probe.call("next"))

    async with full_line(probe) as nursery, anyio.create_task_group() as tasks:
        other = elsewhere(probe.call, "refused")
        await until_in_line(nursery, 1)
        tasks.start_soon(ask)
        await until_in_line(nursery, 2)

        def refuse(*args: object, **options: object) -> None:
            raise RuntimeError("no more tasks")

        with monkeypatch.context() as patch:
            patch.setattr(nursery._task_group, "start_soon", refuse)
            probe.end_all()
            with pytest.raises(RuntimeError, match="no more tasks"):
                await wait_for(other)
    assert answers == ["next"]
    assert "could not be started" in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize(
    "settings",
    [bounded(database_max_inflight=0), bounded(total_timeout=3600.0)],
    ids=["no bound", "a total timeout"],
)
async def test_nobody_waits_in_line_without_a_bound_or_with_a_total_timeout(
    elsewhere: Start, settings: Settings
) -> None:
    probe = Probe()
    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks, process.open_nursery(settings) as nursery:
            tasks.start_soon(probe.call_many, range(50))
            other = elsewhere(probe.call_many, range(50, 100))
            await probe.until_begun(100)
            assert nursery.snapshot().limiter.waiting == 0
            probe.end_all()
            await wait_for(other)


@pytest.mark.anyio
async def test_calls_in_line_outlast_a_rest_of_the_nursery() -> None:
    probe = Probe()
    async with full_line(probe) as nursery, anyio.create_task_group() as tasks:
        tasks.start_soon(probe.call, "in line")
        await until_in_line(nursery, 1)
        process.close()
        assert sum(nursery.calls._line.waiting()) == 1
        probe.end_all()
    assert "in line" in probe.begun


@pytest.mark.anyio
async def test_calls_that_were_taken_back_do_not_pile_up_in_line() -> None:
    here = mailbox_of(running_loop())
    line = Line(running_loop(), 1)
    assert line.enter()
    kept = Handover(Probe(), ("kept",), here, here)
    line.append(kept)
    for number in range(20 * FIRST_SWEEP):
        call = Handover(Probe(), (number,), here, here)
        line.append(call)
        assert call.claim()
        assert len(line._waiting) <= FIRST_SWEEP
    assert line.waiting() == (0, 1)
    assert line.next() is None
    line.leave()
    assert line.next() is kept
