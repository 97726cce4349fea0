"""The client of a jobserver that is launched on demand.

More can be known of it than it says (see `jobserver_host`): the result of a job whose answer was
lost and, on this machine, that a job's worker process has died.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from functools import partial

from seamless import Checksum

from ..errors import AnswerError, ConnectError, RefusedError, ServiceError, TransformationError
from ..launching.jobserver_host import JobserverHost, logged_result
from ..launching.placement import Placement
from ..nursery.calls import Call
from ..nursery.process import outcome_of_worker
from ..nursery.waiter import wait_for
from . import job_watch
from .base import Client
from .endpoint import Endpoint, LaunchedAddress
from .job_watch import Doubt
from .jobserver import Job, JobserverClient
from .lost_workers import Workers

logger = logging.getLogger(__name__)


class JobserverLaunchedClient(JobserverClient):
    """A jobserver that is launched on demand, after the hashserver and database that it uses."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        launch = placement.launch("jobserver", substage=True)
        Client.__init__(self, LaunchedAddress(launch), readonly=False)
        self._known: tuple[Endpoint, Workers | None] | None = None

    async def _logged_result(self, endpoint: Endpoint, job: Job) -> Checksum | None:
        launched = endpoint.launched
        if launched is None:
            return None
        look = partial(logged_result, launched, job.checksum)
        found = await wait_for(outcome_of_worker(f"look for job {job.checksum}", look))
        return None if found is None else Checksum(found)

    def _doubt(self, call: Call, endpoint: Endpoint, job: Job) -> Doubt:
        workers = self._workers_at(endpoint)
        if workers is None:
            return job_watch.no_doubt
        were_all_there = not workers.missing_for()

        async def doubt() -> float:
            missing_for = workers.missing_for()
            if missing_for > job_watch.LOST_AFTER:
                # Others may run in the processes that are left, and so may this one if some were
                # missing before it came.
                if not were_all_there or await self._others_run(call, endpoint, workers, job):
                    self._warn_of(workers)
                else:
                    self._replace(endpoint, workers)
                    raise self._killed(workers, job)
            return missing_for

        return doubt

    def _workers_at(self, endpoint: Endpoint) -> Workers | None:
        known = self._known
        if known is None or known[0] is not endpoint:
            host = None if endpoint.launched is None else JobserverHost.of(endpoint.launched)
            known = self._known = endpoint, None if host is None else Workers(host)
        return known[1]

    async def _others_run(self, call: Call, endpoint: Endpoint, workers: Workers, job: Job) -> bool:
        """Whether anybody's jobs run at the server but `job`. True where it does not tell."""

        def status_of(other: str) -> Awaitable[str]:
            return self.get_status_once(call, endpoint, other)

        try:
            return await workers.others_run(job.checksum, status_of)
        except (ServiceError, RefusedError, AnswerError) as exc:
            logger.debug("%s", exc)
            return True

    def _replace(self, endpoint: Endpoint, workers: Workers) -> None:
        workers.host.end()
        self.address.note_failure(endpoint, ConnectError("it was ended"))

    def _warn_of(self, workers: Workers) -> None:
        if not workers.told:
            workers.told = True
            logger.warning(
                "%s; jobs may never end there. When those that run have ended, `kill %d` has the "
                "next job launch it again",
                self._loss(workers),
                workers.host.pid,
            )

    def _loss(self, workers: Workers) -> str:
        host = workers.host
        return (
            f"{self.describe()} has lost {host.missing_workers()} of its {host.workers} worker "
            f"processes, and does not replace them (its log: {host.log})"
        )

    def _killed(self, workers: Workers, job: Job) -> TransformationError:
        return TransformationError(
            f"job {job.checksum} was running at {self.describe()}, and no other job was, when a "
            "worker process died there: the job has ended it (as os._exit does), or the system has "
            "killed it (for want of memory, perhaps). The server has not noticed; it is ended, and "
            f"the next job launches it again. Its log: {workers.host.log}"
        )
