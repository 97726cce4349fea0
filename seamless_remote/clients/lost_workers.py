"""Finds out that a jobserver on this machine has lost worker processes, which it does not notice.

A worker process that is ended by its job (`os._exit`), or killed (for want of memory), leaves that
job `running` for ever, and a server that has lost one may answer no job any more. What can be seen
from outside is that fewer worker processes live than the server was launched with. Where nobody
else has a job running there, that is enough to know.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable

from ..buffers.worker_threads import offload
from ..launching.jobserver_host import JobserverHost

LOOK_INTERVAL = 1.0
"""Seconds between two looks at the processes of a server, at least."""

MOST_ASKED = 200
"""Jobs that a server is asked about, at most, to learn what runs there."""


class Workers:
    """The worker processes of one jobserver, for all its jobs, in whatever loops."""

    def __init__(self, host: JobserverHost) -> None:
        self.host = host
        self.told = False
        """Whether the user was told that some are missing."""
        self._looked_at = -math.inf
        self._missing_since: float | None = None

    def missing_for(self) -> float:
        """For how many seconds some have been missing; 0.0 if all live. Reads a few files."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_INTERVAL:
            self._looked_at = now
            if not self.host.missing_workers():
                self._missing_since, self.told = None, False
            elif self._missing_since is None:
                self._missing_since = now
        since = self._missing_since
        # Just noticed counts as well.
        return 0.0 if since is None else max(now - since, 1e-9)

    async def others_run(self, job: str, status_of: Callable[[str], Awaitable[str]]) -> bool:
        """Whether jobs other than `job` run at the server, whoever has submitted them."""
        unfinished = await offload(self.host.unfinished)
        others = [each for each in unfinished if each != job]
        if len(others) > MOST_ASKED:
            return True
        for each in others:
            if await status_of(each) == "running":
                return True
        return False
