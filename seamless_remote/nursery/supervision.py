"""Background tasks that are started again when they fail, and given up when they fail too often."""

from __future__ import annotations

import asyncio
import enum
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

logger = logging.getLogger(__name__)

FAILURES_UNTIL_GIVEN_UP = 5
WINDOW = 60.0
"""Seconds within which that many failures end a task for good."""
FIRST_PAUSE = 0.1
"""Seconds between the first failure and the restart; the pause doubles with each recent failure."""


@dataclass(frozen=True, slots=True)
class TaskSnapshot:
    """A supervised background task: `running`, `pausing` before a restart, `ended` or `failed`."""

    name: str
    state: str
    restarts: int
    last_error: str | None


class TaskState(str, enum.Enum):
    RUNNING = "running"
    PAUSING = "pausing"
    ENDED = "ended"
    FAILED = "failed"


class SupervisedTask:
    """One background task: a coroutine function that is run until it returns or is cancelled.

    When it raises, the error is logged with its traceback and it is run again after a pause that
    doubles with each failure of the last minute. After five failures within a minute it is given
    up: `on_given_up` is called and the task stays out. Its failure never reaches the task group,
    even when it fails while it is being cancelled.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        *,
        on_given_up: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self.restarts = 0
        self.state = TaskState.RUNNING
        self.last_error: str | None = None
        self._work = work
        self._on_given_up = on_given_up
        self._scope = anyio.CancelScope()
        self._failed_at: deque[float] = deque(maxlen=FAILURES_UNTIL_GIVEN_UP)

    async def run(self) -> None:
        """Run it until it ends, is stopped or given up. Cancelling this cancels it."""
        with self._scope:
            while not await self._run_once():
                self.state = TaskState.PAUSING
                await anyio.sleep(self._pause())
                self.restarts += 1
                self.state = TaskState.RUNNING
        if self.state is not TaskState.FAILED:
            self.state = TaskState.ENDED

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or was told to."""
        return self.state is TaskState.ENDED or self._scope.cancel_called

    def stop(self) -> None:
        """Cancel it. Call it in the task's event loop."""
        self._scope.cancel()

    async def _run_once(self) -> bool:
        """True when the task is over: it returned, or it is given up."""
        try:
            await self._work()
        except Exception as exc:
            return self._take_failure(exc)
        except asyncio.CancelledError as exc:
            if _is_asked_to_end():
                raise
            return self._take_failure(exc)
        except BaseExceptionGroup as group:
            # A task group that fails while it is cancelled raises both: the failure is dealt with
            # here, and the cancellation goes on alone.
            failures, rest = group.split(Exception)
            if failures is not None:
                self._take_failure(failures)
            if rest is not None:
                raise rest from None
        return True

    def _take_failure(self, failure: BaseException) -> bool:
        """Log a failure; True when it is one too many."""
        self.last_error = f"{type(failure).__name__}: {failure}"
        self._failed_at.append(anyio.current_time())
        if self._recent_failures() < FAILURES_UNTIL_GIVEN_UP:
            logger.error(
                "background task %r failed; it is started again", self.name, exc_info=failure
            )
            return False
        logger.error(
            "background task %r fails too often; it is given up", self.name, exc_info=failure
        )
        self.state = TaskState.FAILED
        if self._on_given_up is not None:
            try:
                self._on_given_up(self.last_error)
            except Exception:
                logger.exception("giving up background task %r failed", self.name)
        return True

    def _pause(self) -> float:
        return FIRST_PAUSE * 2.0 ** (self._recent_failures() - 1)

    def _recent_failures(self) -> int:
        last = self._failed_at[-1]
        return sum(last - failed_at <= WINDOW for failed_at in self._failed_at)

    def snapshot(self) -> TaskSnapshot:
        """The task as plain data."""
        return TaskSnapshot(self.name, self.state.value, self.restarts, self.last_error)


def _is_asked_to_end() -> bool:
    """Whether this asyncio task is being cancelled, and has not just met a cancelled future.

    Python 3.10 cannot tell; there, it is taken to be cancelled.
    """
    task = asyncio.current_task()
    return task is None or not hasattr(task, "cancelling") or task.cancelling() > 0
