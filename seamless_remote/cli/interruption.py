"""Signals that end the tool: an orderly end first, and a hard exit if that takes too long."""

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
"""How long the orderly end may take. The code of a recomputation, for one, cannot be stopped."""

_STATUSES = {
    signal.SIGHUP: Status.HANGUP,
    signal.SIGINT: Status.INTERRUPTED,
    signal.SIGTERM: Status.TERMINATED,
}


class Interrupted(BaseException):
    """A signal has ended the tool; `status` is the exit status."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.meaning)
        self.status = status


class Interruption:
    """Handles SIGINT, SIGTERM and SIGHUP.

    The first signal cancels the work if the main thread is inside `cancelling(...)`, and raises
    Interrupted in the main thread otherwise. After `GRACE_SECONDS`, or at a second signal, the
    process calls `clean_up` from another thread and exits without running anything else.
    """

    def __init__(self, clean_up: Callable[[], None]) -> None:
        self._clean_up = clean_up
        self._cancel: Callable[[], object] | None = None
        self._status: Status | None = None
        # Unlike `Queue.put`, `SimpleQueue.put` is reentrant, so a signal handler may call it.
        self._signals: SimpleQueue[Status] = SimpleQueue()

    def install(self) -> None:
        """Install the handlers. A signal that the process ignores (`nohup`) stays ignored."""
        threading.Thread(target=self._watch, name="hard exit", daemon=True).start()
        for number in _STATUSES:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    @contextmanager
    def cancelling(self, cancel: Callable[[], object]) -> Iterator[None]:
        """Within this context, the first signal calls `cancel` instead of raising."""
        self._cancel = cancel
        try:
            yield
        finally:
            self._cancel = None

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this context, the first signal only takes effect at the end."""
        with self.cancelling(lambda: None):
            yield
        self.check()

    def check(self) -> None:
        """Raise Interrupted if a signal has arrived."""
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
        """Exit hard after the first signal: at the second one, or when the grace period is over.

        Runs in a thread of its own because the main thread may be stuck in a recomputation.
        """
        status = self._signals.get()
        try:
            self._signals.get(timeout=GRACE_SECONDS)
        except Empty:
            pass
        finally:
            # Beside this thread: on a file system that is away, it may not come back.
            clean_up = threading.Thread(target=self._clean_up, name="clean-up", daemon=True)
            try:
                clean_up.start()
                clean_up.join(GRACE_SECONDS)
            finally:
                os._exit(status)
