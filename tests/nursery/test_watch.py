"""The watch that the waiting calls of one loop share: nobody who waits is ever left without one."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from signals import LONG

from seamless_remote import Settings
from seamless_remote.nursery import event_loops as loops
from seamless_remote.nursery import watch as watch_module
from seamless_remote.nursery.handover import Handover
from seamless_remote.nursery.event_loops import Mailbox, mailbox_of, running_loop
from seamless_remote.nursery.scope import LoneScope, Scope
from seamless_remote.nursery.watch import Watch, Watched, Watches

PATIENCE = 0.02


class Loop(Mailbox):
    """A loop that turns, stands still or is closed, as the test wants it."""

    def __init__(self, *, turns: bool = False, closed: bool = False) -> None:
        super().__init__()
        self.turns = turns
        self.closed = closed
        self.wake_ups = 0

    def is_closed(self) -> bool:
        return self.closed

    def _wake(self) -> None:
        self.wake_ups += 1

    def _wake_up_is_lost(self) -> bool:
        return False

    def waiting_since(self) -> float | None:
        if self.turns:
            self.drain()
        return super().waiting_since()


class Call(Watched):
    """A call that notes what it is told, and is settled by what `settling` names."""

    def __init__(self, settling: str = "still") -> None:
        super().__init__()
        self.settling = settling
        self.told: list[str] = []
        self.settled = False

    def is_settled(self) -> bool:
        return self.settled

    def loop_closed(self) -> None:
        self._tell("closed")

    def loop_stands_still(self, *, for_long: bool) -> None:
        self._tell("still for long" if for_long else "still")

    def _tell(self, news: str) -> None:
        self.told.append(news)
        if news == self.settling:
            self.answer()

    def answer(self) -> None:
        self.settled = True
        self.wake()


class Waiting:
    """A watch of one loop by the running one."""

    def __init__(self, other: Mailbox) -> None:
        self.watch = Watch(mailbox_of(running_loop()), other, PATIENCE)

    async def wait(self, call: Call) -> None:
        await self.watch.wait(call)

    async def impatient(self, call: Call, scope: anyio.CancelScope) -> None:
        with scope:
            await self.watch.wait(call)


@pytest.mark.anyio
async def test_every_call_that_waits_is_told_that_the_loop_stands_still() -> None:
    waiting = Waiting(Loop())
    calls = [Call() for _ in range(100)]
    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            for call in calls:
                tasks.start_soon(waiting.wait, call)
    assert {tuple(call.told) for call in calls} == {("still",)}
    assert waiting.watch._leader is None


@pytest.mark.anyio
async def test_every_call_that_waits_is_told_that_the_loop_is_closed() -> None:
    waiting = Waiting(Loop(closed=True))
    calls = [Call("closed") for _ in range(100)]
    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            for call in calls:
                tasks.start_soon(waiting.wait, call)
    assert {tuple(call.told) for call in calls} == {("closed",)}


@pytest.mark.anyio
async def test_a_loop_is_known_to_stall_when_it_has_stood_still_for_the_patience() -> None:
    other = Loop()
    waiting = Waiting(other)
    other.post(lambda: None)
    started = time.monotonic()
    assert not other.is_stalled()
    with anyio.fail_after(LONG):
        await waiting.wait(Call())
    assert time.monotonic() - started >= PATIENCE
    assert other.is_stalled()


@pytest.mark.anyio
async def test_a_call_that_can_do_nothing_yet_is_told_again_when_it_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Between two looks of a busy machine, both might come true.
    readings = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: next(readings) * PATIENCE / 8)
    for module in (watch_module, loops):
        monkeypatch.setattr(module, "time", clock)
    call = Call("still for long")
    with anyio.fail_after(LONG):
        await Waiting(Loop()).wait(call)
    assert call.told[0] == "still"
    assert call.told[-1] == "still for long"


@pytest.mark.anyio
async def test_a_loop_that_turns_settles_nothing() -> None:
    waiting = Waiting(Loop(turns=True))
    call = Call()
    with anyio.move_on_after(5 * PATIENCE) as scope:
        await waiting.wait(call)
    assert scope.cancelled_caught
    assert call.told == []
    assert waiting.watch._leader is None


@pytest.mark.anyio
async def test_a_leader_that_is_cancelled_leaves_the_lead_to_those_who_wait() -> None:
    other = Loop(turns=True)
    waiting = Waiting(other)
    leader, followers = Call(), [Call() for _ in range(5)]
    scope = anyio.CancelScope()
    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiting.impatient, leader, scope)
            while waiting.watch._leader is not leader:
                await anyio.lowlevel.checkpoint()
            for follower in followers:
                tasks.start_soon(waiting.wait, follower)
            while len(waiting.watch._calls) <= len(followers):
                await anyio.lowlevel.checkpoint()
            assert waiting.watch._leader is leader
            scope.cancel()
            other.turns = False
    assert leader.told == []
    assert [follower.told for follower in followers] == 5 * [["still"]]
    assert waiting.watch._leader is None


@pytest.mark.anyio
async def test_leaders_that_are_answered_one_after_another_leave_the_lead_to_the_last() -> None:
    other = Loop(turns=True)
    waiting = Waiting(other)
    calls = [Call() for _ in range(10)]
    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            for call in calls:
                tasks.start_soon(waiting.wait, call)
            for _ in range(9):
                while waiting.watch._leader is None or waiting.watch._leader.is_settled():
                    await anyio.lowlevel.checkpoint()
                leader: Any = waiting.watch._leader
                leader.answer()
            other.turns = False
    assert sorted(call.told for call in calls) == [*9 * [[]], ["still"]]


@pytest.mark.anyio
async def test_a_newcomer_does_not_wait_for_a_look_that_is_far_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch_module, "LIVENESS_INTERVAL", 3600.0)
    other = Loop(turns=True)
    waiting = Waiting(other)
    first, newcomer = Call(), Call()
    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiting.wait, first)
            while not waiting.watch._next_look:
                await anyio.lowlevel.checkpoint()
            waiting.watch._interval = 3600.0
            first.wake()  # the leader looks now, and next in an hour
            while waiting.watch._next_look < time.monotonic() + 1800.0:
                await anyio.lowlevel.checkpoint()
            other.turns = False
            await waiting.wait(newcomer)
    assert newcomer.told == ["still"]
    assert first.told == ["still"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_leader_whose_coroutine_is_closed_leaves_the_lead_to_those_who_wait() -> None:
    waiting = Waiting(Loop())
    leader, follower = Call(), Call()
    coroutine = waiting.wait(leader)
    coroutine.send(None)
    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiting.wait, follower)
            await anyio.lowlevel.checkpoint()
            coroutine.close()
    assert follower.told == ["still"]


@pytest.mark.parametrize("closed", [True, False])
def test_calls_that_are_dropped_with_their_loop_leave_no_watch(closed: bool) -> None:
    watches = Watches(Loop(turns=True), PATIENCE)
    ended: list[Call] = []

    async def wait(call: Call) -> None:
        try:
            await watches.of(mailbox_of(running_loop())).wait(call)
        finally:
            ended.append(call)

    async def begin() -> None:
        for _ in range(5):
            task = asyncio.ensure_future(wait(Call()))
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    assert len(watches._watches) == 1
    if closed:
        loop.close()
        del loop
        gc.collect()
    else:
        loop._scheduled.clear()  # type: ignore[attr-defined]  # the leader's timer keeps it
        gc.collect()
        loop.close()
    assert len(ended) == 5
    assert len(watches._watches) == 0


@pytest.mark.anyio
async def test_a_loop_s_calls_share_one_watch_that_goes_with_the_last_of_them() -> None:
    watches = Watches(Loop(), PATIENCE)
    here = mailbox_of(running_loop())
    first = watches.of(here)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            assert watches.of(here) is first
            tasks.start_soon(first.wait, Call())
    del first
    assert len(watches._watches) == 0


# Handed-over calls, watched.


async def _answer(scope: Scope) -> int:
    await anyio.lowlevel.checkpoint()
    return 4


def _nobody_hears(call: Handover[Any]) -> None:
    """Instead of the news that it has ended."""


@pytest.mark.anyio
@pytest.mark.parametrize("other", [Loop(), Loop(closed=True)], ids=["still", "closed"])
async def test_an_outcome_whose_news_do_not_come_is_found_by_a_look(other: Loop) -> None:
    here = mailbox_of(running_loop())
    call = Handover(_answer, (), here, other)
    assert call.claim()
    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call.run, LoneScope(Settings()), anyio.CancelScope(), _nobody_hears)
            assert await call.wait(Watches(other, PATIENCE).of(here), 0.0)
    assert call.outcome() == 4


@pytest.mark.anyio
@pytest.mark.parametrize(
    "decide",
    [lambda call: call.loop_stands_still(for_long=False), lambda call: call.loop_closed()],
    ids=["still", "closed"],
)
async def test_a_cancellation_that_comes_with_a_decision_waits_for_nothing(
    decide: Callable[[Handover[int]], None],
) -> None:
    other = Loop()
    here = mailbox_of(running_loop())
    call = Handover(_answer, (), here, other)
    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call.wait, Watches(other, 3600.0).of(here), 3600.0)
            await anyio.wait_all_tasks_blocked()
            decide(call)
            tasks.cancel_scope.cancel()
    assert not call.claim()
    assert other.wake_ups == 0  # it asks nobody to cancel what never began
