"""Work that several callers of one loop ask for at once, done once for all of them.

A piece of work has no task of its own: one of its callers drives it, the others wait. Its states:

- driven: the driver runs it in its own task. When it comes to an end, all get its outcome.
- handed on: the driver was cancelled, and has woken the caller that waits longest, which drives on
  from where the work stands. A caller that is cancelled at that moment hands it on again.
- over: its outcome is there, and the next caller begins new work.
- given up: the driver was cancelled, and nobody else waits.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from types import TracebackType
from typing import Any, Generic, TypeVar

from .calls import Call
from .waiter import Waiter, waiter_in

T = TypeVar("T")

Work = Callable[[Call], Awaitable[T]]
"""Runs a piece of work to its end, or on to its end if an earlier run was cancelled."""


class _Piece(Generic[T]):
    __slots__ = ("__weakref__", "driver", "error", "run", "traceback", "value", "waiting")

    def __init__(self, run: Work[T]) -> None:
        self.run = run
        # Weak, so that the tasks of a dropped loop can be collected.
        self.waiting: OrderedDict[int, weakref.ref[Waiter]] = OrderedDict()
        self.driver: weakref.ref[Waiter] | None = None
        """The caller to which the work was handed on."""
        self.value: T | None = None
        self.error: Exception | None = None
        self.traceback: TracebackType | None = None

    def is_handed_on_to(self, waiter: Waiter) -> bool:
        return self.driver is not None and self.driver() is waiter

    def hand_on(self) -> bool:
        """Have the one who waits longest drive; False if nobody waits."""
        while self.waiting:
            _, self.driver = self.waiting.popitem(last=False)
            waiter = self.driver()
            if waiter is not None and waiter.wake():
                return True
        return False

    def wake_all(self) -> None:
        """It is over: wake all who wait."""
        while self.waiting:
            waiter = self.waiting.popitem(last=False)[1]()
            if waiter is not None:
                waiter.wake()

    def outcome(self) -> T:
        if self.error is not None:
            # Each caller adds its own frames, to a traceback of its own.
            raise self.error.with_traceback(self.traceback)
        value: T = self.value  # type: ignore[assignment]
        return value


class SharedWork:
    """Pieces of work by loop and key: who asks for one that is under way gets its outcome.

    An error reaches all who wait. Cancelling a caller leaves the others theirs.
    """

    def __init__(self) -> None:
        # By the loop's id and the key. A piece lives as long as a caller that has part in it; here
        # it is referenced weakly, for it may refer to its loop.
        self._pieces: weakref.WeakValueDictionary[tuple[int, Hashable], _Piece[Any]] = (
            weakref.WeakValueDictionary()
        )

    async def join(
        self, call: Call, key: Hashable, make: Callable[[], Work[T]], waits_for: str
    ) -> T:
        """The outcome of the work under `key` in the loop of `call`; `make` makes it if need be."""
        here = (id(call.loop), key)
        piece: _Piece[T] | None = self._pieces.get(here)
        if piece is None:
            piece = self._pieces[here] = _Piece(make())
            return await self._drive(call, here, piece)
        waiter = waiter_in(call.loop)
        piece.waiting[id(waiter)] = weakref.ref(waiter)
        call.waits_for = waits_for
        try:
            await waiter.wait()
        except BaseException:
            if piece.is_handed_on_to(waiter):
                self._leave(here, piece)
            else:
                piece.waiting.pop(id(waiter), None)
            raise
        if piece.is_handed_on_to(waiter):
            return await self._drive(call, here, piece)
        return piece.outcome()

    async def _drive(self, call: Call, here: tuple[int, Hashable], piece: _Piece[T]) -> T:
        piece.driver = None
        try:
            piece.value = await piece.run(call)
        except Exception as exc:
            piece.error, piece.traceback = exc, exc.__traceback__
        except BaseException:
            self._leave(here, piece)
            raise
        self._pieces.pop(here, None)
        piece.wake_all()
        return piece.outcome()

    def _leave(self, here: tuple[int, Hashable], piece: _Piece[Any]) -> None:
        if not piece.hand_on():
            self._pieces.pop(here, None)
