"""A bound on what runs at once, first come first served."""

from __future__ import annotations

import logging
from collections import OrderedDict
from types import TracebackType

from .snapshot import LimiterSnapshot
from .waiter import WakeUp, wake_up

logger = logging.getLogger(__name__)


class Limiter:
    """At most `bound` holders at once (0: no bound); the others wait in the order of their arrival.

    `async with limiter:` holds a slot. Cancelling a waiter gives its place up and loses no slot. It
    belongs to one event loop. That it is full, and that it has drained (nobody waits, and half of
    the slots are free), is logged once each.
    """

    def __init__(self, name: str, bound: int) -> None:
        self.name = name
        self.bound = bound
        self._in_flight = 0
        # The first in line and any other can be taken out without a search.
        self._waiting: OrderedDict[WakeUp, None] = OrderedDict()
        self._saturated = False

    async def __aenter__(self) -> None:
        """Take a slot, or wait until whoever releases one hands it over."""
        if not self.bound or self._in_flight < self.bound:
            self._in_flight += 1
            return
        if not self._saturated:
            self._saturated = True
            logger.info("%s: %d requests in flight, the others wait", self.name, self.bound)
        turn = wake_up()
        self._waiting[turn] = None
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self._release()  # the slot came, and the cancellation with it
            else:
                del self._waiting[turn]
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._release()

    def _release(self) -> None:
        if self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            turn.set()
            return
        self._in_flight -= 1
        if self._saturated and self._in_flight <= self.bound // 2:
            self._saturated = False
            logger.info("%s: drained, no request waits any more", self.name)

    def snapshot(self) -> LimiterSnapshot:
        """The limiter as plain data."""
        return LimiterSnapshot(
            name=self.name,
            bound=self.bound,
            in_flight=self._in_flight,
            waiting=len(self._waiting),
        )
