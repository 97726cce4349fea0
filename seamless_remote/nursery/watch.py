"""Watching one loop for the calls of another one that wait for it.

The calls that wait in one loop for the nursery's share one watch, so that a call which waits costs
neither a timer nor a task. The watch is kept by one of those calls, the *leader*: while it waits,
the nursery's loop is looked at now and then; the others sleep until their outcome comes, or until a
look decides something about them. A call is in one of these roles:

- leader: there is one while any call waits, and its next look is near enough for the newest call;
- follower: it waits for its news, and for nothing else;
- deposed leader: a newcomer found the next look too far away, and took the lead. When its next look
  is due it finds out, and is a follower;
- gone: answered, taken back, repeated or cancelled. A leader that goes hands the lead on to the
  newest follower, which is likely to stay longest, and wakes it.

A leader may be dropped with its loop, or be garbage: then the followers are, too, and nobody is
woken. Where its coroutine alone is closed, the loop goes on and the lead is handed on.

Everything here is done in the callers' loop. It needs no lock and leaves nothing behind: no task,
no timer, and, when the last call has gone, no watch. A forked child has none of the parent's loops,
and none of its calls and watches.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from functools import partial
from weakref import WeakValueDictionary

from .event_loops import LoopClosedError, Mailbox
from .waiter import WakeUp, wake_up

logger = logging.getLogger(__name__)

SHORTEST_INTERVAL = 0.001
LIVENESS_INTERVAL = 5.0
"""Seconds between two looks at the nursery's loop, at least, and at most, during a long call."""

STANDSTILL = 3
"""For how many times the patience a loop must stand still before a call that it has is repeated."""


def _nothing() -> None:
    """Posted to a loop to see whether it turns."""


class Watched(ABC):
    """A call that waits in one loop for another one."""

    __slots__ = ("_wake_up",)

    def __init__(self) -> None:
        self._wake_up: WakeUp | None = None

    @abstractmethod
    def is_settled(self) -> bool:
        """Whether it need not wait any longer."""

    @abstractmethod
    def loop_closed(self) -> None:
        """The other loop has ended for good."""

    @abstractmethod
    def loop_stands_still(self, *, for_long: bool) -> None:
        """The other loop has not turned for the patience, or (`for_long`) for several times that.

        Called at every look while that is so.
        """

    def next_wake_up(self) -> WakeUp:
        """What the caller's task waits for next."""
        self._wake_up = wake_up()
        return self._wake_up

    def wake(self) -> None:
        """Have the caller's task look at what has become of it."""
        if self._wake_up is not None:
            self._wake_up.set()


class Watch:
    """The calls of one loop (`home`) that wait for another one (`other`)."""

    def __init__(self, home: Mailbox, other: Mailbox, patience: float) -> None:
        self._home = home
        self._other = other
        self._patience = patience
        # Twice half of the patience: were the whole process held up, the loop would look stalled to
        # everybody at once, before it had its chance to turn.
        self._shortest = max(patience / 2, SHORTEST_INTERVAL)
        self._interval = self._shortest
        self._next_look = 0.0
        self._seen: float | None = None
        self._calls: dict[Watched, None] = {}
        self._leader: Watched | None = None

    async def wait(self, call: Watched) -> None:
        """Wait until the call is settled. Cancelling this is safe, and settles nothing."""
        self._calls[call] = None
        try:
            if self._leader is None or self._next_look > time.monotonic() + self._shortest:
                self._interval = self._shortest
                self._leader = call
            while not call.is_settled():
                news = call.next_wake_up()
                if self._leader is call:
                    self._next_look = time.monotonic() + self._interval
                    await news.wait_looking(self._interval, partial(self._lead, call))
                else:
                    await news.wait()
        finally:
            del self._calls[call]
            if self._leader is call:
                self._hand_on()

    def _lead(self, call: Watched) -> float | None:
        """Look on behalf of `call`; the seconds until its next look, None if it has none."""
        if self._leader is call and not call.is_settled():
            self._look()
        if call.is_settled():
            call.wake()  # also where the news of it got lost
        elif self._leader is call:
            self._next_look = time.monotonic() + self._interval
            return self._interval
        return None

    def _hand_on(self) -> None:
        self._leader = None
        self._interval = self._shortest
        if self._calls and not self._home.is_closed():
            self._leader = next(reversed(self._calls))
            self._leader.wake()

    def _look(self) -> None:
        """See whether the other loop turns, and settle what that decides."""
        if self._other.is_closed():
            for call in self._calls:
                call.loop_closed()
            return
        since = self._other.waiting_since()
        stands_still_for = 0.0
        if since is None:
            self._send_probe()
        elif since == self._seen:
            stands_still_for = time.monotonic() - since
        self._seen = since
        for_long = stands_still_for >= STANDSTILL * self._patience
        if since is not None and stands_still_for >= self._patience:
            self._other.give_up(since)
            for call in self._calls:
                call.loop_stands_still(for_long=for_long)
        if since is None or for_long:
            self._interval = min(2 * self._interval, LIVENESS_INTERVAL)
        else:
            self._interval = self._shortest

    def _send_probe(self) -> None:
        """A wake-up that the next look sees waiting if the loop has not come to it."""
        try:
            self._other.post(_nothing)
        except LoopClosedError:
            logger.debug("the nursery's loop was closed under a call")


class Watches:
    """All watches of one loop (`other`), one for each loop in which calls wait for it."""

    def __init__(self, other: Mailbox, patience: float) -> None:
        self._other = other
        self._patience = patience
        # Weak: the waits of its calls keep a watch alive, and it must not keep the calls of a loop
        # alive that was dropped. A loop touches its own entry alone.
        self._watches: WeakValueDictionary[Mailbox, Watch] = WeakValueDictionary()

    def of(self, home: Mailbox) -> Watch:
        """The watch for the calls of the running loop, whose mailbox this is."""
        watch = self._watches.get(home)
        if watch is None:
            watch = self._watches[home] = Watch(home, self._other, self._patience)
        return watch
