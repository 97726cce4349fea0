"""The bound over all loops: first come first served, live whatever a loop does, no place lost."""

from __future__ import annotations

import gc
import itertools
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from loops import ASYNCIO_KINDS, DROPPED, KINDS, Dropped, LoopThread, run
from signals import LONG

from seamless_remote.nursery import bound as bound_module
from seamless_remote.nursery.bound import MAX_IDLE_SHARES, Bound, BoundSnapshot, Share
from seamless_remote.nursery.event_loops import running_loop

Start = Callable[..., Future[Any]]
Loops = Callable[[str], LoopThread]


@asynccontextmanager
async def place(bound: Bound) -> AsyncIterator[Share]:
    """A place, for the block."""
    loop = running_loop()
    share = bound.take_now(loop)
    if share is None:
        share = await bound.take(loop)
    try:
        yield share
    finally:
        bound.give_back(share)


async def hold(bound: Bound) -> None:
    """Hold a place until cancelled."""
    async with place(bound):
        await anyio.sleep_forever()


def state(bound: Bound) -> tuple[int, int]:
    """How many places are held, and how many wait."""
    snapshot = bound.snapshot()
    return snapshot.in_flight, snapshot.waiting


class Taker:
    """Takes places in one loop that turns in a thread, one after the other."""

    def __init__(self, bound: Bound, thread: LoopThread) -> None:
        self.bound = bound
        self.thread = thread

    def take(self) -> Future[Share]:
        """Begin to take a place; when this returns, it has been taken, or is waited for."""
        future = self.thread.start(self.bound.take, self.thread.loop)
        self.thread.settle()
        return future

    def take_now(self) -> Share | None:
        taken: Share | None = self.thread.run(self.bound.take_now, self.thread.loop)
        return taken


@contextmanager
def standing_still(thread: LoopThread) -> Iterator[None]:
    """The loop stands still for the block: its thread computes, or waits for something."""
    standing, go_on = threading.Event(), threading.Event()
    thread.start(lambda: (standing.set(), go_on.wait(2 * LONG)))
    try:
        assert standing.wait(LONG)
        yield
    finally:
        go_on.set()


# In one loop.


@pytest.mark.anyio
async def test_in_one_loop_the_bound_is_exact() -> None:
    bound = Bound(3)
    held: list[int] = []

    async def visit() -> None:
        async with place(bound):
            held.append(bound.snapshot().in_flight)
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(visit)
    assert len(held) == 50
    assert max(held) == 3
    assert state(bound) == (0, 0)
    assert bound.unused


@pytest.mark.anyio
async def test_who_came_first_is_served_first_and_no_newcomer_overtakes() -> None:
    bound = Bound(1)
    served: list[int] = []

    async def visit(number: int) -> None:
        async with place(bound):
            served.append(number)

    async with anyio.create_task_group() as tasks:
        share = await bound.take(running_loop())
        for number in range(50):
            tasks.start_soon(visit, number)
            await anyio.wait_all_tasks_blocked()
        assert state(bound) == (1, 50)
        assert not bound.unused
        bound.give_back(share)
        await visit(50)
    assert served == list(range(51))


@pytest.mark.anyio
async def test_waiters_that_are_cancelled_leave_the_queue_and_take_no_place() -> None:
    bound = Bound(2)
    async with place(bound), place(bound):
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(hold, bound)
            await anyio.wait_all_tasks_blocked()
            assert state(bound) == (2, 100)
            tasks.cancel_scope.cancel()
        assert state(bound) == (2, 0)
    assert state(bound) == (0, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_a_place_that_comes_together_with_a_cancellation_goes_to_the_next(
    cancelled_first: bool,
) -> None:
    bound = Bound(1)
    served = anyio.Event()
    scope = anyio.CancelScope()

    async def impatient() -> None:
        with scope:
            await hold(bound)

    async def next_one() -> None:
        async with place(bound):
            served.set()

    async with anyio.create_task_group() as tasks:
        share = await bound.take(running_loop())
        for each in (impatient, next_one):
            tasks.start_soon(each)
            await anyio.wait_all_tasks_blocked()
        if cancelled_first:
            scope.cancel()
            bound.give_back(share)
        else:
            bound.give_back(share)
            scope.cancel()
        with anyio.fail_after(LONG):
            await served.wait()
    assert scope.cancelled_caught
    assert state(bound) == (0, 0)


@pytest.mark.anyio
async def test_without_a_bound_nobody_waits() -> None:
    bound = Bound(0)
    async with place(bound), place(bound), place(bound):
        assert bound.snapshot() == BoundSnapshot("", 0, 3, 0)


@pytest.mark.anyio
async def test_more_places_wake_those_who_wait_and_fewer_take_none_away() -> None:
    bound = Bound(1, "the bound")
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(hold, bound)
        await anyio.wait_all_tasks_blocked()
        for places, expected in ((1, (1, 9)), (4, (4, 6)), (2, (4, 6)), (0, (10, 0)), (3, (10, 0))):
            bound.resize(places)
            await anyio.wait_all_tasks_blocked()
            assert bound.snapshot() == BoundSnapshot("the bound", places, *expected)
        assert bound.take_now(running_loop()) is None
        tasks.cancel_scope.cancel()
    assert state(bound) == (0, 0)


@pytest.mark.anyio
async def test_saturation_and_drain_are_logged_once_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bound = Bound(4, "the bound")

    async def visit() -> None:
        async with place(bound):
            await checkpoint()

    for _ in range(2):
        caplog.clear()
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(visit)
        assert [record.getMessage() for record in caplog.records] == [
            "the bound: 4 in flight, others wait",
            "the bound: drained, nobody waits any more",
        ]


# Over several loops.


@pytest.mark.parametrize("kinds", list(itertools.permutations(KINDS)))
def test_over_several_loops_too_who_came_first_is_served_first(
    loop_threads: Loops, kinds: tuple[str, ...]
) -> None:
    bound = Bound(4)
    takers = [Taker(bound, loop_threads(kind)) for kind in kinds]
    for taker in takers:
        assert taker.take_now() is not None  # each loop's one, held to the end
    share = takers[0].take().result(LONG)
    order = [1, 2, 0, 1, 0, 2, 2, 0, 1]
    waiting = [takers[number].take() for number in order]
    assert state(bound) == (4, 9)
    for each in waiting:
        bound.give_back(share)
        share = each.result(LONG)
        for taker in takers:
            taker.thread.settle()
        assert sum(each.done() for each in waiting) == waiting.index(each) + 1
    assert state(bound) == (4, 0)


@pytest.mark.parametrize("kinds", list(itertools.permutations(KINDS, 2)))
def test_each_loop_may_have_one_while_another_stands_still_with_all_places(
    loop_threads: Loops, kinds: tuple[str, str]
) -> None:
    bound = Bound(3)
    still, other = (Taker(bound, loop_threads(kind)) for kind in kinds)
    held = [still.take_now() for _ in range(3)]
    waiting = still.take()
    with standing_still(still.thread):
        first = other.take_now()
        assert first is not None
        assert other.take_now() is None
        queue = [other.take() for _ in range(20)]
        assert state(bound) == (4, 21)
        for each in queue:
            bound.give_back(first)
            first = each.result(LONG)
            assert state(bound)[0] == 4
        assert not waiting.done()
    for share in (*held, first):
        assert share is not None
        bound.give_back(share)
    bound.give_back(waiting.result(LONG))
    assert state(bound) == (0, 0)


class Turns:
    """Two places, over two loops: the first has both, and three more wait there; the second has one
    beyond the bound, which it gives back, with another one waiting, after one went on to the first.
    """

    def __init__(self, first: LoopThread, second: LoopThread) -> None:
        self.bound = Bound(2)
        self.first, self.second = Taker(self.bound, first), Taker(self.bound, second)
        self.held = [self.first.take_now(), self.first.take_now()]
        extra = self.second.take_now()
        self.waiting = [self.first.take() for _ in range(3)]
        self.last = self.second.take()
        self.give_back(self.first, self.held.pop())
        assert not self.waiting[0].done()
        self.give_back(self.first, self.held.pop())
        self.held.append(self.waiting[0].result(LONG))
        self.give_back(self.second, extra)

    def give_back(self, taker: Taker, share: Share | None) -> None:
        """Give a place back, in a task of its loop."""
        taker.thread.run(self.bound.give_back, share)
        taker.thread.settle()


@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, ASYNCIO_KINDS)))
def test_a_loop_that_has_had_its_one_waits_its_turn_while_places_go_from_hand_to_hand(
    loop_threads: Loops, monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, str]
) -> None:
    monkeypatch.setattr(bound_module, "TURN", 2 * LONG)
    it = Turns(*map(loop_threads, kinds))
    for each in it.waiting[1:]:
        it.held.append(each.result(LONG))
        assert not it.last.done()
        it.give_back(it.first, it.held.pop(0))
    it.bound.give_back(it.last.result(LONG))
    it.give_back(it.first, it.held.pop())
    assert state(it.bound) == (0, 0)


@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, ASYNCIO_KINDS)))
def test_it_gets_one_regardless_when_its_turn_is_long_in_coming(
    loop_threads: Loops, kinds: tuple[str, str]
) -> None:
    it = Turns(*map(loop_threads, kinds))
    with standing_still(it.first.thread):
        it.bound.give_back(it.last.result(LONG))
    assert not it.waiting[2].done()
    it.held.append(it.waiting[1].result(LONG))
    for share in it.held:
        it.give_back(it.first, share)
    it.bound.give_back(it.waiting[2].result(LONG))
    assert state(it.bound) == (0, 0)


def test_loops_in_many_threads_never_hold_more_than_the_bound_allows(
    loop_threads: Loops,
) -> None:
    bound = Bound(4)
    holding = Counter[Any]()
    lock = threading.Lock()
    peaks: list[int] = []

    async def visit(number: int) -> None:
        async with place(bound) as share:
            with lock:
                holding[share.key] += 1
                peaks.append(sum(holding.values()))
            try:
                for _ in range(number % 3):
                    await checkpoint()
            finally:
                with lock:
                    holding[share.key] -= 1

    async def visit_or_leave(number: int) -> None:
        with anyio.CancelScope() as scope:
            if number % 5 == 0:
                scope.cancel()
            elif number % 5 == 1:
                scope.deadline = anyio.current_time() + number / 1e5
            await visit(number)

    async def burst() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(500):
                tasks.start_soon(visit_or_leave, number)

    threads = [loop_threads(kind) for kind in (*KINDS, *KINDS)]
    for each in [thread.start(burst) for thread in threads]:
        each.result(LONG)
    assert len(peaks) >= len(threads) * 300
    assert max(peaks) <= 4 + len(threads) - 1
    assert state(bound) == (0, 0)
    assert bound.unused


# Loops that end, or stop, with places and waiters.


@DROPPED
def test_a_loop_that_is_dropped_takes_its_places_and_waiters_with_it(
    kind: str, closed: bool
) -> None:
    bound = Bound(2)
    dropped = Dropped(kind)
    dropped.begin(*4 * [lambda: hold(bound)])
    assert state(bound) == (2, 2)
    if closed:
        dropped.close()
    dropped.collect()
    assert state(bound) == (0, 0)
    assert bound.unused


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ASYNCIO_KINDS)
async def test_places_of_a_closed_loop_go_to_others_although_its_tasks_are_kept(kind: str) -> None:
    bound = Bound(3)
    dropped = Dropped(kind)
    await anyio.to_thread.run_sync(dropped.begin, *5 * [lambda: hold(bound)])
    async with place(bound), anyio.create_task_group() as tasks:
        tasks.start_soon(hold, bound)
        await anyio.wait_all_tasks_blocked()
        assert state(bound) == (4, 3)
        dropped.close()
        # The one who waited comes before the one who finds that loop closed.
        async with place(bound):
            assert state(bound) == (3, 0)
            assert bound.take_now(running_loop()) is None
            dropped.collect()
            assert state(bound) == (3, 0)
        tasks.cancel_scope.cancel()
    assert state(bound) == (0, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ASYNCIO_KINDS)
async def test_whoever_gives_back_finds_the_places_of_a_closed_loop_for_those_who_wait(
    kind: str,
) -> None:
    bound = Bound(3)
    dropped = Dropped(kind)
    await anyio.to_thread.run_sync(dropped.begin, *3 * [lambda: hold(bound)])
    here = running_loop()
    first = await bound.take(here)
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(hold, bound)
        await anyio.wait_all_tasks_blocked()
        assert state(bound) == (4, 5)
        dropped.close()
        bound.give_back(first)
        assert state(bound) == (3, 2)
        dropped.collect()
        tasks.cancel_scope.cancel()
    assert state(bound) == (0, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ASYNCIO_KINDS)
async def test_a_place_given_to_a_waiter_whose_loop_has_just_been_closed_is_not_lost(
    kind: str,
) -> None:
    bound = Bound(1)
    dropped = Dropped(kind)
    shares: list[Share] = []

    async def take() -> None:
        shares.append(await bound.take(dropped.loop))
        await anyio.sleep_forever()

    await anyio.to_thread.run_sync(dropped.begin, *4 * [take])
    assert state(bound) == (1, 3)
    dropped.close()
    bound.give_back(shares[0])
    assert state(bound) == (0, 0)
    async with place(bound):
        dropped.collect()
        assert state(bound) == (1, 0)
    assert state(bound) == (0, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ASYNCIO_KINDS)
async def test_waiters_of_a_loop_that_has_stopped_are_passed_over_until_it_turns_again(
    kind: str,
) -> None:
    bound = Bound(2)
    stopped = Dropped(kind)
    here = running_loop()
    held = [await bound.take(here), await bound.take(here)]
    await anyio.to_thread.run_sync(stopped.begin, *3 * [lambda: hold(bound)])
    assert state(bound) == (3, 2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold, bound)
        await anyio.wait_all_tasks_blocked()
        for share in held:
            bound.give_back(share)
        await anyio.wait_all_tasks_blocked()
        assert state(bound) == (2, 2)  # the one who came later has got its place
        tasks.cancel_scope.cancel()
    assert state(bound) == (1, 2)
    await anyio.to_thread.run_sync(stopped.begin)
    assert state(bound) == (2, 1)  # nobody has given anything back since
    await anyio.to_thread.run_sync(stopped.cancel)
    assert state(bound) == (0, 0)


@pytest.mark.anyio
async def test_a_new_loop_at_the_address_of_a_collected_one_starts_from_nothing() -> None:
    bound = Bound(2)

    class Loop:
        """What a bound sees of a loop whose holder forgot to give back."""

    here = running_loop()
    seen = set()
    for _ in range(100):
        loop = Loop()
        seen.add(id(loop))
        assert bound.take_now(loop) is not None
        del loop
    assert len(seen) < 100
    async with place(bound), place(bound):
        assert state(bound) == (2, 0)
        assert bound.take_now(here) is None


def test_of_loops_without_number_few_are_remembered_and_none_that_holds_or_waits(
    loop_threads: Loops,
) -> None:
    bound = Bound(3)
    taker = Taker(bound, loop_threads("asyncio"))
    held = [taker.take_now() for _ in range(3)]
    waiting = taker.take()

    async def visit() -> None:
        async with place(bound):
            await checkpoint()

    for number in range(3 * MAX_IDLE_SHARES):
        run(KINDS[number % 3], visit)
    assert len(bound._shares) <= MAX_IDLE_SHARES
    assert state(bound) == (3, 1)
    for share in held:
        assert share is not None
        bound.give_back(share)
    waiting.result(LONG)
    assert state(bound) == (1, 0)


# Collector, signal handlers.


class GivesBack:
    """Gives a place back when the collector finds it."""

    def __init__(self, bound: Bound, share: Share) -> None:
        self.bound, self.share = bound, share
        self.itself = self

    def __del__(self) -> None:
        self.bound.give_back(self.share)


def _within(
    monkeypatch: pytest.MonkeyPatch, bound: Bound, method: str, act: Callable[[], object]
) -> None:
    """Have `act` called once inside a method of the bound, while its lock is held."""
    original = getattr(bound, method)

    def patched(*args: Any) -> Any:
        monkeypatch.setattr(bound, method, original)
        act()
        return original(*args)

    monkeypatch.setattr(bound, method, patched)


@pytest.mark.parametrize("method", ["_take", "_new_share", "_take_back", "_hand_on", "_wake"])
def test_a_place_given_back_by_the_collector_while_the_lock_is_held_goes_to_the_next(
    monkeypatch: pytest.MonkeyPatch, loop_threads: Loops, threaded: Start, method: str
) -> None:
    bound = Bound(3)
    taker = Taker(bound, loop_threads("asyncio"))
    shares = [taker.take_now() for _ in range(3)]
    assert shares[1] is not None
    assert shares[2] is not None
    waiting = [taker.take() for _ in range(3)]
    GivesBack(bound, shares[1])
    _within(monkeypatch, bound, method, gc.collect)

    class Loop:
        pass

    def take_and_give_back() -> None:
        loop = Loop()
        share = bound.take_now(loop)
        assert share is not None
        bound.give_back(share)

    threaded(bound.give_back, shares[2]).result(LONG)
    threaded(take_and_give_back).result(LONG)
    for each in waiting[:2]:
        each.result(LONG)
    assert not waiting[2].done()
    assert state(bound) == (3, 1)


@pytest.mark.parametrize("method", ["_take", "_new_share", "_take_back", "_hand_on", "_wake"])
def test_a_signal_handler_may_take_a_place_while_its_thread_holds_the_lock(
    monkeypatch: pytest.MonkeyPatch, loop_threads: Loops, threaded: Start, method: str
) -> None:
    bound = Bound(1)
    taker = Taker(bound, loop_threads("asyncio"))
    share = taker.take_now()
    waiting = taker.take()

    class Loop:
        pass

    other, handlers = Loop(), Loop()

    def handler() -> None:
        taken = bound.take_now(handlers)
        assert taken is not None
        bound.give_back(taken)

    _within(monkeypatch, bound, method, handler)
    taken = threaded(bound.take_now, other).result(LONG)
    threaded(bound.give_back, taken).result(LONG)
    threaded(bound.give_back, share).result(LONG)
    waiting.result(LONG)
    assert state(bound) == (1, 0)
