"""Background tasks that are started again when they fail, and given up when they fail too often."""

from __future__ import annotations

import enum
import logging
from collections import deque
from collections.abc import Awaitable, Callable

import anyio

from .snapshot import TaskSnapshot

logger = logging.getLogger(__name__)

FAILURES_UNTIL_GIVEN_UP = 5
WINDOW = 60.0
"""Seconds within which that many failures end a task for good."""
FIRST_PAUSE = 0.1
"""Seconds between the first failure and the restart; the pause doubles with each recent failure."""


class TaskState(str, enum.Enum):
    RUNNING = "running"
    PAUSING = "pausing"
    ENDED = "ended"
    FAILED = "failed"


class SupervisedTask:
    """One background task: a coroutine function that is run until it returns or is cancelled.

    When it raises, the error is logged with its traceback and it is run again after a pause that
    doubles with each failure of the last minute. After five failures within a minute it is given
    up: `on_given_up` is called (it must not raise) and the task stays out. Its failure never
    reaches the task group.
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

    def stop(self) -> None:
        """Cancel it. Must be called in its event loop."""
        self._scope.cancel()

    async def _run_once(self) -> bool:
        """True when the task is over: it returned, or it is given up."""
        try:
            await self._work()
        except Exception as exc:
            self.last_error = f"{type(exc).__name__}: {exc}"
            self._failed_at.append(anyio.current_time())
            if not self._fails_too_often():
                logger.exception("background task %r failed; it is started again", self.name)
                return False
            logger.exception("background task %r fails too often; it is given up", self.name)
            self.state = TaskState.FAILED
            if self._on_given_up is not None:
                self._on_given_up(self.last_error)
        return True

    def _fails_too_often(self) -> bool:
        return self._recent_failures() == FAILURES_UNTIL_GIVEN_UP

    def _pause(self) -> float:
        return FIRST_PAUSE * 2.0 ** (self._recent_failures() - 1)

    def _recent_failures(self) -> int:
        last = self._failed_at[-1]
        return sum(last - failed_at <= WINDOW for failed_at in self._failed_at)

    def snapshot(self) -> TaskSnapshot:
        """The task as plain data."""
        return TaskSnapshot(
            name=self.name,
            state=self.state.value,
            restarts=self.restarts,
            last_error=self.last_error,
        )
