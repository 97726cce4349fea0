"""A deadline for a block of code: its task is cancelled there when it comes, and set free of that.

anyio's cancel scopes do the same, but a loop that is closed during one, with its tasks, is never
collected: anyio's table of tasks refers to each key in its value.
"""

from __future__ import annotations

import asyncio
import math
import sys
import weakref
from types import TracebackType
from typing import Any, Protocol

from .event_loops import running_loop


class Deadline(Protocol):
    """A block in one task, which is cancelled when the deadline has passed.

    The cancellation ends with the block; `passed` then says that it happened. A cancellation by
    anybody else passes through.
    """

    passed: bool

    def enter(self) -> None:
        """Begin the block, in its task."""

    def set(self, seconds: float) -> None:
        """Put the deadline so many seconds from now, unless it comes sooner; in the task's loop."""

    def exit(self, exc_type: type[BaseException] | None, exc: BaseException | None) -> bool:
        """End the block; whether the error that ends it is the deadline's own."""


class _AsyncioDeadline:
    """Cancels a task as `asyncio.timeout` does (which Python 3.10 does not have)."""

    __slots__ = ("_cancellations", "_due", "_loop", "_task", "_timer", "passed")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self.passed = False

    def enter(self) -> None:
        task = asyncio.current_task(self._loop)
        assert task is not None
        # Weakly: once its loop is closed, only this may refer to the task, from within its own
        # coroutines. The collector could then close the inner ones before the outer ones.
        self._task = weakref.ref(task)
        if sys.version_info >= (3, 11):
            self._cancellations = task.cancelling()

    def set(self, seconds: float) -> None:
        due = self._loop.time() + seconds
        if due >= self._due or self.passed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_at(due, self._cancel)

    def exit(self, exc_type: type[BaseException] | None, exc: BaseException | None) -> bool:
        if self._timer is not None:
            self._timer.cancel()
        if not self.passed:
            return False
        task = self._task()
        if task is None:
            return False
        if sys.version_info >= (3, 11):
            left = task.uncancel()
            # Somebody else has asked for a cancellation too: that one goes on.
            if left > self._cancellations:
                return False
        return exc_type is asyncio.CancelledError

    def _cancel(self) -> None:
        self.passed = True
        task = self._task()
        if task is not None:
            task.cancel()


class _TrioDeadline:
    __slots__ = ("_scope", "passed")

    def __init__(self) -> None:
        # trio runs, so it has been imported: this saves the look-up that `import` makes.
        self._scope = sys.modules["trio"].CancelScope()
        self.passed = False

    def enter(self) -> None:
        self._scope.__enter__()

    def set(self, seconds: float) -> None:
        due = sys.modules["trio"].current_time() + seconds
        self._scope.deadline = min(self._scope.deadline, due)

    def exit(self, exc_type: type[BaseException] | None, exc: BaseException | None) -> bool:
        traceback = None if exc is None else exc.__traceback__
        self._scope.__exit__(exc_type, exc, traceback)
        # Not what `__exit__` returned: that is true without any error, too.
        self.passed = self._scope.cancelled_caught
        return bool(self.passed)


def deadline_in(loop: Any) -> Deadline:
    """A deadline, not set yet, for a task of `loop`, which runs this code."""
    if isinstance(loop, asyncio.AbstractEventLoop):
        return _AsyncioDeadline(loop)
    return _TrioDeadline()


class TimeLimit:
    """Cancels its block after `seconds` (None: never); `expired` says afterwards that it did."""

    __slots__ = ("_deadline", "_seconds", "expired")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._deadline = deadline_in(running_loop())
        self.expired = False

    def __enter__(self) -> TimeLimit:
        self._deadline.enter()
        if self._seconds is not None:
            self._deadline.set(self._seconds)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self.expired = self._deadline.exit(exc_type, exc)
        return self.expired
