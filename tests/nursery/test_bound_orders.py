"""The bound in any order of events, over loops that are played: one step after the other."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seamless_remote.nursery import bound as bound_module
from seamless_remote.nursery.bound import Bound, Share
from seamless_remote.nursery.event_loops import LoopEndedError

T = TypeVar("T")


class Loop:
    """What a bound sees of a loop, and the tasks of the loop that have to do with the bound."""

    def __init__(self) -> None:
        self.is_running = True
        self.is_closed = False
        self.posted: list[Callable[[], object]] = []
        self.timers: list[Callable[[], object]] = []
        self.shares: list[Share] = []
        self.tasks: list[Task] = []
        self.holder: Holder | None = None

    def turn(self) -> None:
        """Run what was posted."""
        posted, self.posted = self.posted, []
        for action in posted:
            action()

    def let_time_pass(self) -> None:
        """Run what was to come later."""
        timers, self.timers = self.timers, []
        for action in timers:
            action()


class Holder:
    """What holds the places of a loop in its tasks, when the collector finds them."""

    def __init__(self, bound: Bound, loop: Loop) -> None:
        self.bound = bound
        self.loop = loop

    def __del__(self) -> None:
        while self.loop.shares:
            self.bound.give_back(self.loop.shares.pop())


class Waiter:
    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.woken = False

    def wake(self) -> bool:
        self.woken = True
        return not self.loop.is_closed

    def pending(self) -> Waiter:
        return self

    def dismiss(self) -> None:
        """Nothing holds it."""

    def __await__(self) -> Generator[Waiter, None, None]:
        yield self


class Task:
    """A task that has begun to take a place."""

    def __init__(self, bound: Bound, loop: Loop) -> None:
        self.waiter: Waiter | None = None
        self.share: Share | None = None
        self._coroutine = bound.take(loop)
        self._step(lambda: self._coroutine.send(None))

    def _step(self, step: Callable[[], Waiter]) -> None:
        try:
            self.waiter = step()
        except StopIteration as stop:
            self.share = stop.value

    @property
    def is_woken(self) -> bool:
        return self.waiter is not None and self.waiter.woken

    def go_on(self) -> None:
        self._step(lambda: self._coroutine.send(None))
        assert self.share is not None

    def cancel(self) -> None:
        with pytest.raises(KeyError):
            self._coroutine.throw(KeyError("cancelled"))


def post(loop: Loop, action: Callable[[], object]) -> None:
    if loop.is_closed:
        raise LoopEndedError
    loop.posted.append(action)


def call_later(loop: Loop | None, _: float, action: Callable[[], object]) -> bool:
    """Called by tasks of the loop: who gives back is one, where the loop runs.

    Where the loop is garbage (None), the collector ends its tasks, and they run in no loop.
    """
    if loop is None or not loop.is_running:
        return False
    loop.timers.append(action)
    return True


class Orders:
    """Loops come, stop, turn again, and end; their tasks take places, wait, leave, give back.

    Of each event the two numbers say where: which loop, and which of its tasks or places.
    """

    def __init__(self, places: int, loops: int) -> None:
        self.bound = Bound(places)
        self.most = places
        """The most places there ever were."""
        self.loops = [Loop() for _ in range(loops)]
        self.closed: list[Loop] = []

    def begin(self, which: int, _: int) -> None:
        if len(self.loops) < 3:
            self.loops.append(Loop())

    def take(self, which: int, _: int) -> None:
        loop = self._running(which)
        if loop is None:
            return
        had_none = not self._held(loop)
        others_wait = any(
            not task.is_woken for each in self.loops if each.is_running for task in each.tasks
        )
        own_wait = any(not task.is_woken for task in loop.tasks)
        task = Task(self.bound, loop)
        if task.share is None:
            loop.tasks.append(task)
            assert own_wait or not had_none
        else:
            loop.shares.append(task.share)
            assert had_none or not others_wait

    def take_now(self, which: int, _: int) -> None:
        loop = self._running(which)
        if loop is not None:
            has_one_or_wants_one = loop.shares or loop.tasks
            share = self.bound.take_now(loop)
            if share is not None:
                loop.shares.append(share)
            else:
                assert has_one_or_wants_one

    def give_back(self, which: int, number: int) -> None:
        """From any thread: the loop need not run."""
        holding = [loop for loop in (*self.loops, *self.closed) if loop.shares]
        if holding:
            shares = _choose(holding, which).shares
            self.bound.give_back(shares.pop(number % len(shares)))

    def cancel(self, which: int, number: int) -> None:
        """One that waits, or one that was given a place and has not gone on yet."""
        waiting = [loop for loop in self.loops if loop.tasks]
        if waiting:
            tasks = _choose(waiting, which).tasks
            tasks.pop(number % len(tasks)).cancel()

    def turn(self, which: int, _: int) -> None:
        loop = self._running(which)
        if loop is not None:
            self._let_woken_go_on(loop)

    def let_time_pass(self, which: int, _: int) -> None:
        loop = self._running(which)
        if loop is not None:
            loop.let_time_pass()

    def stop(self, which: int, _: int) -> None:
        if self.loops:
            _choose(self.loops, which).is_running = False

    def turn_again(self, which: int, _: int) -> None:
        if self.loops:
            loop = _choose(self.loops, which)
            loop.is_running = True
            loop.turn()

    def resize(self, places: int, _: int) -> None:
        self.bound.resize(places)
        self.most = max(self.most, places or 10**6)

    def close(self, which: int, _: int) -> None:
        """The tasks of the loop never go on, but somebody keeps them."""
        if self.loops:
            loop = _choose(self.loops, which)
            self.loops.remove(loop)
            loop.is_closed, loop.is_running = True, False
            self.closed.append(loop)

    def drop(self, which: int, _: int) -> None:
        """The loop is garbage, closed or not."""
        loops = self.closed or self.loops
        if loops:
            loop = loops.pop(which % len(loops))
            loop.holder = Holder(self.bound, loop)
            del loop
            gc.collect()

    def _running(self, which: int) -> Loop | None:
        running = [loop for loop in self.loops if loop.is_running]
        return _choose(running, which) if running else None

    def _held(self, loop: Loop) -> int:
        return len(loop.shares) + sum(task.is_woken for task in loop.tasks)

    def _let_woken_go_on(self, loop: Loop) -> None:
        loop.turn()
        for task in [task for task in loop.tasks if task.is_woken]:
            loop.tasks.remove(task)
            task.go_on()
            assert task.share is not None
            loop.shares.append(task.share)

    def check(self) -> None:
        """What has to be true after each event."""
        bound = self.bound
        shares = list(bound._shares.values())
        assert bound._taken == sum(share.held for share in shares)
        assert bound._waiting == sum(len(share.waiting) for share in shares)
        assert not bound._returned
        assert not bound._granted
        held = [self._held(loop) for loop in self.loops]
        for loop, number in zip(self.loops, held, strict=True):
            assert number == sum(share.held for share in shares if share.loop() is loop)
            waiting = sum(not task.is_woken for task in loop.tasks)
            assert number or not waiting or loop.timers
            assert bound._taken >= bound._places or not (waiting and loop.is_running)
        assert sum(held) <= self.most + max(0, sum(map(bool, held)) - 1)

    def finish(self) -> None:
        """Let all go on to their ends: nobody is forgotten, and no place is lost."""
        for loop in self.loops:
            loop.is_running = True
            loop.turn()
            loop.let_time_pass()
        while any(loop.shares or loop.tasks for loop in self.loops):
            before = [(len(loop.tasks), len(loop.shares)) for loop in self.loops]
            for loop in self.loops:
                while loop.shares:
                    self.bound.give_back(loop.shares.pop())
                self._let_woken_go_on(loop)
                loop.let_time_pass()
            assert before != [(len(loop.tasks), len(loop.shares)) for loop in self.loops]
        # The next one who finds no place free sees which loops were closed with theirs.
        self.bound.resize(1)
        loop = Loop()
        share = self.bound.take_now(loop)
        assert share is not None
        assert self.bound.take_now(loop) is None
        self.bound.give_back(share)
        assert self.bound.unused


def _choose(things: list[T], which: int) -> T:
    return things[which % len(things)]


# The more often it is here, the more often it comes.
EVENTS = (
    *(6 * [Orders.take]),
    *(3 * [Orders.give_back, Orders.turn]),
    *(2 * [Orders.take_now, Orders.cancel, Orders.stop, Orders.turn_again]),
    *(2 * [Orders.let_time_pass]),
    *(Orders.begin, Orders.close, Orders.drop, Orders.resize),
)
NUMBERS = st.integers(0, 3)


@given(
    places=st.integers(1, 3),
    loops=st.integers(1, 3),
    events=st.lists(st.tuples(st.sampled_from(EVENTS), NUMBERS, NUMBERS), min_size=20, max_size=60),
)
@settings(deadline=None, max_examples=600, suppress_health_check=list(HealthCheck))
def test_in_any_order_of_events_no_place_is_lost_and_nobody_is_forgotten(
    places: int, loops: int, events: list[tuple[Callable[[Orders, int, int], None], int, int]]
) -> None:
    gc.freeze()  # for the collections below
    with pytest.MonkeyPatch.context() as patch:
        for name, played in (
            ("waiter_in", Waiter),
            ("post", post),
            ("call_later", call_later),
            ("has_ended", lambda loop: loop is None or loop.is_closed),
            ("is_running", lambda loop: loop is not None and loop.is_running),
        ):
            patch.setattr(bound_module, name, played)
        orders = Orders(places, loops)
        for event, which, number in events:
            event(orders, which, number)
            orders.check()
        orders.finish()
