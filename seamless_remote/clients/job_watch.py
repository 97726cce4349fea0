"""Looks now and then whether a jobserver still works on a job whose answer is awaited."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from ..errors import (
    AnswerError,
    ExchangeError,
    OwnLimitError,
    RefusedError,
    ServiceError,
    ServiceTimeout,
)

logger = logging.getLogger(__name__)

LONGEST_WATCH_INTERVAL = 30.0
SHORTEST_WATCH_INTERVAL = 0.25
"""Seconds between two looks at a job: a quarter of the read timeout, within these, while it runs;
longer each time when it is lost."""

PATIENCE_WITHOUT_TIMEOUT = 1200.0
"""Seconds to wait for a server that is away if no read timeout is set."""

LOST_AFTER = 10.0
"""Seconds for which the server has to say that a job does not run before it counts as lost."""


Doubt = Callable[[], Awaitable[float]]
"""For how many seconds there has been reason to doubt that a job runs, though its server says so.
It raises what is the matter when that is certain."""


async def no_doubt() -> float:
    """There is nothing to know but what the server says."""
    return 0.0


class JobWatch:
    """Follows one job at one server, which `server` and `job` name.

    `ask` asks the server for the job's status, once; `doubt` is asked where that is `running`.
    `limit` is the read timeout in seconds (None: none): for so long, the server may be silent and
    unreachable.
    """

    def __init__(
        self,
        server: str,
        job: str,
        ask: Callable[[], Awaitable[str]],
        doubt: Doubt,
        limit: float | None,
    ) -> None:
        self._server = server
        self._job = job
        self._ask = ask
        self._doubt = doubt
        self._limit = limit
        self._seen = self._running = time.monotonic()
        interval = (limit or PATIENCE_WITHOUT_TIMEOUT) / 4
        self._interval = min(LONGEST_WATCH_INTERVAL, max(SHORTEST_WATCH_INTERVAL, interval))
        if limit is not None:
            # The answer itself may take longer than its connection may be silent.
            self._interval = min(self._interval, limit / 2)
        self.pause = self._interval
        """Seconds until the next look."""

    async def look(self) -> None:
        """Ask for the job's status once.

        Raises a ServiceTimeout or ExchangeError if there is no use in waiting for the answer, and
        what `doubt` raises.
        """
        status = "running"
        try:
            status = await self._ask()
        except (RefusedError, AnswerError, OwnLimitError) as exc:
            logger.debug("%s", exc)
        except ServiceError as exc:
            self._take_silence(exc)
            return
        self._seen = now = time.monotonic()
        if status == "running":
            self._running = now
            self.pause = self._interval
            if await self._doubt():
                self.pause = min(self._interval, LOST_AFTER / 10)
            return
        self.pause = min(self._interval, LOST_AFTER / 10)
        if now - self._running > LOST_AFTER:
            raise ExchangeError(
                f"{self._server} has said for {now - self._running:.0f} s that job {self._job} is "
                f"{status}, and has not answered its submission"
            )

    def _take_silence(self, exc: ServiceError) -> None:
        now = time.monotonic()
        silent_for = now - self._seen
        logger.info("%s has not answered for %.0f s: %s", self._server, silent_for, exc)
        if self._limit is not None and silent_for > self._limit:
            raise ServiceTimeout(
                f"{self._server} was silent and unreachable for {silent_for:.0f} s while it had "
                f"job {self._job}"
            )
        # Nothing is known about the job: the time in which it does not run begins anew.
        self._running = now
        self.pause = self._interval
