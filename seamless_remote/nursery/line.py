"""The line of calls that have come, and are not to begin yet: the bound on calls that have begun.

A call that has begun holds a cancel scope, a dozen coroutines and, where it was handed over, maybe
a task; of the thousands that are made at once, most can do nothing yet but wait. In line, a call of
the nursery's own loop holds little more than its `Turn`, and a handed-over one itself alone.

A call in line is in one of these states:

- waiting;
- called: its turn has come, and it has a place. A handed-over call is claimed then, and begins. A
  call of the nursery's own loop is woken; one that is cancelled meanwhile gives its place up;
- gone: it was cancelled (one of the nursery's own loop), or taken back by its caller. Nothing tells
  of the latter: it is passed over when its turn comes, or dropped with others before that;
- returned, or refused: the nursery ends. It returns the handed-over calls; those of its own loop
  wait on for as long as their grace lasts, and are refused after it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable
from typing import Any

from .handover import Handover
from .waiter import wake_up

FIRST_SWEEP = 256
"""How many calls wait when those that are gone are looked for first."""


class Turn:
    """What a call of the nursery's own loop waits for in line."""

    __slots__ = ("_wake_up", "refused")

    def __init__(self, home: Any) -> None:
        self._wake_up = wake_up(home)
        self.refused = False

    def come(self) -> None:
        """Wake the call: it has a place."""
        self._wake_up.set()

    def cancel(self) -> None:
        """Wake the call: it is not to begin any more."""
        self.refused = True
        self._wake_up.set()

    def wait(self) -> Awaitable[None]:
        """Wait until it comes or is cancelled. Once."""
        return self._wake_up.wait()


class Line:
    """At most `places` calls have begun (0: no bound); the others wait, first come first served.

    Where a place is free, nobody waits: whoever leaves one has `next` called until it gives None.
    All of it is done in the nursery's loop (`home`), but for the count of those who wait.
    """

    def __init__(self, home: Any, places: int) -> None:
        self._home = home
        self._places = places
        self._taken = 0
        # The first in line and any other can be taken out without a search.
        self._waiting: OrderedDict[Turn | Handover[Any], None] = OrderedDict()
        self._sweep_at = FIRST_SWEEP

    def enter(self) -> bool:
        """Take a place, if there is one."""
        if self._places and self._taken >= self._places:
            return False
        self._taken += 1
        return True

    def join(self) -> Turn:
        """The turn of a call of this loop, at the end of the line."""
        turn = Turn(self._home)
        self._waiting[turn] = None
        return turn

    def give_up(self, turn: Turn) -> None:
        """Leave the line, or the place that has come by now."""
        if turn in self._waiting:
            del self._waiting[turn]
        else:
            self.leave()

    def append(self, call: Handover[Any]) -> None:
        """Put an unclaimed call at the end of the line."""
        if len(self._waiting) >= self._sweep_at:
            self._drop_taken_back()
        self._waiting[call] = None

    def leave(self) -> None:
        """Give a place up."""
        self._taken -= 1

    def next(self) -> Handover[Any] | None:
        """Give the free places out, until a handed-over call gets one: it is claimed, and to begin.

        None: there is no place, or nobody who waits for one.
        """
        while self._waiting and self._taken < self._places:
            first, _ = self._waiting.popitem(last=False)
            if isinstance(first, Turn):
                self._taken += 1
                first.come()
            elif first.claim():
                self._taken += 1
                return first
        return None

    def clear_handed_over(self) -> list[Handover[Any]]:
        """Take the handed-over calls out of the line, which has no more of them from now on."""
        found = [each for each in self._waiting if isinstance(each, Handover)]
        for call in found:
            del self._waiting[call]
        return found

    def waiting(self) -> tuple[int, int]:
        """How many calls wait: those of the nursery's own loop, and those handed over.

        From any thread.
        """
        calls = list(self._waiting)
        turns = sum(isinstance(each, Turn) for each in calls)
        return turns, sum(isinstance(each, Handover) and not each.is_claimed() for each in calls)

    def _drop_taken_back(self) -> None:
        # Callers that give up while nothing begins would fill the memory. At most half are gone.
        gone = [each for each in self._waiting if isinstance(each, Handover) and each.is_claimed()]
        for call in gone:
            del self._waiting[call]
        self._sweep_at = max(FIRST_SWEEP, 2 * len(self._waiting))
