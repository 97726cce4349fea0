"""Ctrl-C and its kin: an orderly end, and a hard one where the orderly one takes too long."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import FrameType

from .statuses import Status

GRACE_SECONDS = 2.0
"""How long the orderly end may take. A recomputation's code, for one, cannot be stopped."""

_STATUSES = {
    signal.SIGHUP: Status.HANGUP,
    signal.SIGINT: Status.INTERRUPTED,
    signal.SIGTERM: Status.TERMINATED,
}


class Interrupted(BaseException):
    """A signal has asked the tool to end; `status` is what it ends with."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.meaning)
        self.status = status


class Interruption:
    """Turns the first signal into an orderly end of the work, in the main thread.

    Inside `cancelling(...)` it cancels what runs in the event loop; elsewhere it raises Interrupted
    right where the main thread is. After `GRACE_SECONDS`, or at a second signal, the process ends
    on the spot: `clean_up` is called, on a thread of its own, and nothing else.
    """

    def __init__(self, clean_up: Callable[[], None]) -> None:
        self._clean_up = clean_up
        self._cancel: Callable[[], object] | None = None
        self._status: Status | None = None
        # A signal handler may put into this queue whatever the main thread is doing at the time.
        self._signals: SimpleQueue[Status] = SimpleQueue()

    def install(self) -> None:
        """Handle the signals from now on, except those that the process is to ignore (`nohup`)."""
        threading.Thread(target=self._watch, name="hard end", daemon=True).start()
        for number in _STATUSES:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    @contextmanager
    def cancelling(self, cancel: Callable[[], object]) -> Iterator[None]:
        """Call `cancel` at a signal, instead of raising."""
        self._cancel = cancel
        try:
            yield
        finally:
            self._cancel = None

    def check(self) -> None:
        """Interrupted: there was a signal."""
        if self._status is not None:
            raise Interrupted(self._status)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first = self._status is None
        status = _STATUSES[signal.Signals(number)]
        self._status = self._status or status
        self._signals.put(status)
        if not first:
            return
        if self._cancel is None:
            raise Interrupted(status)
        self._cancel()

    def _watch(self) -> None:
        status = self._signals.get()
        try:
            self._signals.get(timeout=GRACE_SECONDS)
        except Empty:
            pass
        finally:
            self._clean_up()
            os._exit(status)
