"""Calls into other loops, collected during one turn of this loop and posted together.

Without it every answer would wake its caller's thread on its own, and the two threads would hand
Python's lock to and fro, at several times the cost of the call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .event_loops import LoopClosedError, Mailbox
from .waiter import WakeUp, wake_up

logger = logging.getLogger(__name__)


class Outbox:
    """What goes out of one loop (`here`), for whose tasks alone it is."""

    def __init__(self, here: Any) -> None:
        self._here = here
        self._calls: dict[Mailbox, list[Callable[[], object]]] = {}
        self._filled: WakeUp | None = None
        self._open = False

    def send(self, home: Mailbox, call: Callable[[], object], *, last: bool = False) -> None:
        """Post a call at the end of this turn; at once, with all the others, where it is the last
        for now, or `run` does not run (any more)."""
        calls = self._calls.get(home)
        if calls is None:
            self._calls[home] = [call]
        else:
            calls.append(call)
        if last or not self._open:
            self._post()
        elif self._filled is not None:
            self._filled.set()

    async def run(self) -> None:
        """Post what is sent, turn by turn, until cancelled; then what is left."""
        self._open = True
        try:
            while True:
                self._filled = wake_up(self._here)
                await self._filled.wait()
                self._post()
        finally:
            self._open = False
            self._post()

    def _post(self) -> None:
        calls, self._calls = self._calls, {}
        for home, its_calls in calls.items():
            try:
                home.post(*its_calls)
            except LoopClosedError:
                logger.debug("the caller's event loop ended before the outcome of its call arrived")
