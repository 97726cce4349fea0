"""A bound on what is in flight at once, first come first served, over all loops of the process.

Two rules keep it live whatever a loop does:

- a waiter whose loop has ended, or does not run now, is passed over;
- each loop may always have one in flight, even when the bound is reached. A loop that stands still
  with its places (it computes) cannot stop another one, and a synchronous call inside a host's loop
  cannot deadlock. While places go from hand to hand, a loop that has had its one waits its turn for
  the next, but not for long: eight threads that each keep one in flight spend more on taking
  Python's lock from each other than on their requests.

So the bound is exact with one loop, and bound + loops - 1 at most.

A place is in one of these states:

- free;
- held by a loop: `take_now` or `take` has returned it;
- granted: it counts as held, and the wake-up of its waiter is on its way. A waiter that is
  cancelled at that moment gives the place back;
- written off: its loop has ended. Giving it back changes nothing.
"""

from __future__ import annotations

import logging
import math
import threading
import weakref
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from .event_loops import LoopEndedError, call_later, has_ended, is_running, post
from .waiter import Waiter, waiter_in

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BoundSnapshot:
    """A bound: its number of places (0: no bound), how many are in flight, and how many wait."""

    name: str
    bound: int
    in_flight: int
    waiting: int


class Ticket(weakref.ref[Waiter]):
    """One who waits, referenced weakly; in line by `number`.

    `granted`: it has been given a place, and has not given it back.
    """

    __slots__ = ("granted", "number")
    granted: bool
    number: int

    def __new__(cls, waiter: Waiter, number: int) -> Ticket:
        ticket = super().__new__(cls, waiter)
        ticket.number = number
        ticket.granted = False
        return ticket


TURN = 0.0025
"""Seconds, for each other loop, that a loop with none in flight waits its turn before it gets one
regardless. So all loops together get one beyond the bound in so many seconds."""

MAX_IDLE_SHARES = 16
"""Loops that a bound remembers at most beside those that hold or want places."""


class Share:
    """One loop's part of a bound: how many places it holds, and who waits there.

    Loop and waiters are referenced weakly: a loop that is dropped with its tasks must be collected,
    and the cleanup of those tasks then leaves the queue.
    """

    __slots__ = ("handed_on", "held", "key", "loop", "takes_turns", "waiting", "watched",
                 "written_off")  # fmt: skip

    def __init__(self, loop: Any) -> None:
        self.key = id(loop)
        self.loop = weakref.ref(loop)
        self.held = 0
        self.waiting: OrderedDict[int, Ticket] = OrderedDict()
        self.watched = False
        """Whether the loop, which has stopped, will tell when it turns again."""
        self.written_off = False
        self.handed_on = 0
        """How many places had gone from hand to hand when it last got one."""
        self.takes_turns = False
        """Whether it has none, and waits for its turn, or until that has lasted too long."""

    def first_number(self) -> int:
        """The number of the one who has waited longest."""
        return next(iter(self.waiting))


class Bound:
    """At most `places` holders at once (0: no bound). From any thread and loop.

    `take_now`, or else `await take`, gives the loop's share, which goes to `give_back` when the
    holder is done. A named bound logs, once each, that requests wait and that none does any more.
    """

    def __init__(self, places: int, name: str = "") -> None:
        self.name = name
        self._places: float = places or math.inf
        self._taken = 0
        self._waiting = 0
        self._handed_on = 0
        self._shares: dict[int, Share] = {}
        self._numbers = count()
        self._saturated = False
        # Reentrant, for a signal handler may make a synchronous call while its thread is in here.
        self._lock: Any = threading.RLock()
        # Places given back, the tickets of cancelled waiters, and (None, None) for a new look at
        # who may go on. A destructor may append one, run by the collector in the very thread that
        # holds the lock. So whoever appends never waits for the lock; its holder looks here when it
        # has unlocked.
        self._returned: deque[tuple[Share | None, Ticket | None]] = deque()
        # Those to wake. One stays here until it was woken: a KeyboardInterrupt that comes in
        # between delays a wake-up in another loop, and does not lose it.
        self._granted: deque[tuple[Share, Ticket, Waiter]] = deque()

    def take_now(self, loop: Any) -> Share | None:
        """A place for a task of `loop`, or None if it has to wait."""
        with self._lock:
            share = self._take(loop)
        if self._returned:
            self._settle()
        return share

    async def take(self, loop: Any) -> Share:
        """A place for this task of `loop`, in its turn.

        Cancelling it leaves the queue, or gives back the place that has come by then.
        """
        waiter = waiter_in(loop)
        ticket = None
        with self._lock:
            share = self._take(loop)
            if share is None:
                share = self._shares[id(loop)]
                ticket = Ticket(waiter, next(self._numbers))
                share.waiting[ticket.number] = ticket
                self._waiting += 1
        if ticket is None:
            if self._returned:
                self._settle()
            return share
        try:
            if self._returned:
                self._settle()
            if not self._saturated:
                self._saturated = True
                if self.name:
                    logger.info("%s: %g in flight, others wait", self.name, self._places)
            await waiter.pending()
        except BaseException:
            self._return(share, ticket)
            raise
        finally:
            waiter.dismiss()
        return share

    def give_back(self, share: Share) -> None:
        """Give a place back, from any thread; the first in line gets it."""
        self._returned.append((share, None))
        self._settle()

    def resize(self, places: int) -> None:
        """Change the number of places (0: no bound); what is in flight stays."""
        self._places = places or math.inf
        self._return(None, None)

    @property
    def places(self) -> int:
        """How many may be in flight (0: no bound)."""
        return 0 if self._places == math.inf else int(self._places)

    @property
    def in_flight(self) -> int:
        """How many are in flight."""
        return self._taken

    @property
    def unused(self) -> bool:
        """Whether nobody holds a place or waits for one."""
        return not (self._taken or self._waiting)

    def snapshot(self) -> BoundSnapshot:
        """The bound as plain data."""
        return BoundSnapshot(self.name, self.places, self._taken, self._waiting)

    def _return(self, share: Share | None, ticket: Ticket | None) -> None:
        self._returned.append((share, ticket))
        self._settle()

    def _settle(self) -> None:
        """See to what was returned, unless another thread, or a frame below this, is about to."""
        if self._lock._is_owned():
            return
        try:
            self._settle_returned()
        finally:
            # A KeyboardInterrupt may come at any point, also between `acquire` and what follows.
            if self._lock._is_owned():
                self._lock.release()

    # In a frame of its own: at the end of a loop's turn, a KeyboardInterrupt may pass a `try` or
    # `with` of the same frame by (python/cpython#130279).
    def _settle_returned(self) -> None:
        # Look again after unlocking: somebody may have appended while the lock was held.
        while self._returned and self._lock.acquire(blocking=False):
            while self._returned:
                self._take_back()
                if self._waiting:
                    self._hand_on()
                    for share in list(self._shares.values()):
                        if share.waiting and not share.held:
                            self._see_to(share)
                if self._granted:
                    self._wake()
            self._lock.release()
            if self._saturated and not self._waiting and self._taken <= self._places / 2:
                self._saturated = False
                if self.name:
                    logger.info("%s: drained, nobody waits any more", self.name)

    def _end_turn(self, share: Share) -> None:
        with self._lock:
            share.takes_turns = False
            if not share.held:
                self._grant_first(share)
        self._return(None, None)

    # The lock is held in all that follows. A KeyboardInterrupt comes after a call, or at the end of
    # a loop's turn. So what has to be done at once is done without a call in between.

    def _take(self, loop: Any) -> Share | None:
        share = self._shares.get(id(loop))
        if share is None or share.loop() is not loop:
            share = self._new_share(loop, share)
        full = (share.held or share.waiting) and self._taken >= self._places
        if full and (len(self._shares) == 1 or not self._has_freed()):
            return None
        share.held += 1
        share.handed_on = self._handed_on
        self._taken += 1
        return share

    def _new_share(self, loop: Any, former: Share | None) -> Share:
        if former is not None:  # of a collected loop, whose id this one has now
            self._write_off(former)
        if len(self._shares) >= MAX_IDLE_SHARES:
            self._forget_idle()
        share = self._shares[id(loop)] = Share(loop)
        return share

    def _forget_idle(self) -> None:
        for share in list(self._shares.values()):
            if not (share.held or share.waiting):
                del self._shares[share.key]

    def _has_freed(self) -> bool:
        """Whether the ends of other loops have freed a place that nobody has waited for."""
        self._write_off_ended()
        return not self._waiting and self._taken < self._places

    def _take_back(self) -> None:
        """Take note of the first that was returned."""
        share, ticket = self._returned[0]
        del self._returned[0]
        if share is None or share.written_off:
            return
        if ticket is not None:
            if not ticket.granted:  # it waits, or its waiter was found dead
                if ticket.number in share.waiting:
                    del share.waiting[ticket.number]
                    self._waiting -= 1
                return
            ticket.granted = False
        share.held -= 1
        self._taken -= 1

    def _hand_on(self) -> None:
        """Give the free places to those who have waited longest."""
        if self._taken >= self._places:
            self._write_off_ended()
        while self._waiting and self._taken < self._places:
            first = None
            for share in list(self._shares.values()):
                if not share.waiting or not is_running(share.loop()):
                    continue
                if first is None or share.first_number() < first.first_number():
                    first = share
            if first is None:
                for share in list(self._shares.values()):
                    if share.waiting:
                        self._watch(share)
                return
            self._handed_on += 1
            self._grant_first(first)

    def _see_to(self, share: Share) -> None:
        """Have a loop that has none in flight, and wants one, get one: now, or when its turn comes.

        Now, if no place has gone from hand to hand since it got its last: then none may ever.
        """
        if share.takes_turns:
            return
        moving = self._handed_on != share.handed_on
        others = sum(bool(each.held or each.waiting) for each in list(self._shares.values())) - 1
        if moving and call_later(share.loop(), others * TURN, partial(self._end_turn, share)):
            share.takes_turns = True
        else:
            self._grant_first(share)

    def _grant_first(self, share: Share) -> None:
        """Give the first waiter of a loop a place, if anybody waits there."""
        while share.waiting:
            ticket = share.waiting[share.first_number()]
            waiter = ticket()
            if waiter is not None:
                self._granted.append((share, ticket, waiter))
                ticket.granted = True
                share.handed_on = self._handed_on
                share.held += 1
                self._taken += 1
            del share.waiting[ticket.number]
            self._waiting -= 1
            if waiter is not None:
                return

    def _wake(self) -> None:
        while self._granted:
            share, ticket, waiter = self._granted[0]
            if ticket.granted and not waiter.wake():  # its loop has ended
                self._returned.append((share, ticket))
            self._granted.popleft()

    def _watch(self, share: Share) -> None:
        """Have a loop that has stopped, with waiters, tell when it turns again: places are free."""
        loop = share.loop()
        if has_ended(loop):
            self._write_off(share)
        elif not share.watched:
            share.watched = True
            with suppress(LoopEndedError):
                post(loop, partial(self._turns_again, share))

    def _turns_again(self, share: Share) -> None:
        share.watched = False
        self._return(None, None)

    def _write_off_ended(self) -> None:
        if len(self._shares) == 1:  # of the loop that runs this
            return
        for share in list(self._shares.values()):
            if has_ended(share.loop()):
                self._write_off(share)

    def _write_off(self, share: Share) -> None:
        waiting = len(share.waiting)
        share.written_off = True
        self._taken -= share.held
        self._waiting -= waiting
        del self._shares[share.key]
        share.waiting = OrderedDict()
        self._returned.append((None, None))
