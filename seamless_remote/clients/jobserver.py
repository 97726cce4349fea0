"""The client of a jobserver: it submits a job once, waits however long it takes, or cancels it.

Requests and answers were read off seamless-jobserver 0.3.0. A submission is a GET that is held open
until the job ends; the job goes on when that connection breaks, and its result can then no longer
be fetched. The states of a submission, and what follows from each event:

- not sent: no connection came about. The caller may send it elsewhere.
- running: the answer is awaited without any timeout. Now and then, the server is asked for the
  job's status on another connection.
  - an answer: 200 is the result, 500 the user's error, whatever the text; the job is over.
  - the server stays silent and unreachable for the read timeout: the submission is lost.
  - the server says for `LOST_AFTER` seconds that the job does not run: it has lost it, or its
    answer got lost. The submission is lost.
  - the connection breaks: the submission is lost.
- lost: as long as the server says that the job is running, it is waited for. After that, and once
  the server is back, the job is submitted again, which runs the user's code again: once at most.
- canceled: the caller was cancelled; the server is told, and then the cancellation goes on.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import anyio
from seamless import Checksum

from ..checksums import is_checksum
from ..errors import (
    AnswerError,
    ConnectError,
    ExchangeError,
    LaunchError,
    RefusedError,
    ServiceError,
    ServiceTimeout,
    TransformationCanceledError,
    TransformationError,
)
from ..launching.placement import Placement
from ..nursery.calls import Call
from ..nursery.deadline import TimeLimit
from ..transport.messages import Request
from .answers import json_of
from .base import ANSWER_LIMIT, CONTROL_LANE, Client, quote
from .endpoint import Endpoint, KnownAddress, LaunchedAddress

logger = logging.getLogger(__name__)

JOBS_LANE = "jobs"

CANCEL_TIMEOUT = 4.0
"""Seconds that a cancelled caller waits at most for its cancel request; below the grace period."""

LONGEST_WATCH_INTERVAL = 30.0
SHORTEST_WATCH_INTERVAL = 0.25
"""Seconds between two looks at a job: a quarter of the read timeout, within these, while it runs;
longer each time when it is lost."""

PATIENCE_WITHOUT_TIMEOUT = 1200.0
"""Seconds to wait for a server that is away if no read timeout is set."""

STATUS_TIMEOUT = 30.0
"""Seconds for a job's status, if no healthcheck timeout is set: its watch must not hang."""

LAUNCH_PAUSE = 1.0
"""Seconds between two launches of a server that was there before."""

LOST_AFTER = 10.0
"""Seconds for which the server has to say that a job does not run before it counts as lost."""

GATEWAY_STATUSES = (502, 503, 504)
"""Answers of something between here and the jobserver: they say nothing about the job."""

CANCELED_TEXT = "Transformation was canceled"

# The connection of a job is its own: one that a server has just given up would lose it.
_HEADERS = (("Content-Type", "application/json"), ("Connection", "close"))


@dataclass(frozen=True, slots=True)
class Job:
    """A transformation as it is submitted: its checksum, and the JSON body of the request."""

    checksum: str
    body: bytes


class JobserverClient(Client):
    """A jobserver at a known URL."""

    service = "jobserver"

    def __init__(self, *, url: str) -> None:
        """ValueError for a malformed `url`."""
        super().__init__(KnownAddress(url), readonly=False)

    async def run(self, call: Call, job: Job) -> Any:
        """Run a job and give its result, as `read_answer` does.

        Cancelling it sends the server a cancel request, for some seconds at most, and goes on.

        Raises:
            ConnectError: it was never sent.
            TransformationError: the user's code failed, with the server's text.
            TransformationCanceledError: it was canceled at the server.
            RefusedError: the server refuses it, for example in another record mode.
            ServiceError: the job was lost twice, or the server stays away: its fate is unknown.
        """
        # Not in the `except` line, which is also run when the loop is dropped.
        cancelled = anyio.get_cancelled_exc_class()
        calls = self.counters.calls
        calls.add(id(call))
        try:
            return await self._run(call, job)
        except cancelled:
            with anyio.move_on_after(CANCEL_TIMEOUT, shield=True):
                await self._cancel_quietly(call, job)
            raise
        finally:
            calls.discard(id(call))

    async def _run(self, call: Call, job: Job) -> Any:
        endpoint = await self.address.acquire()
        try:
            return await self._submit(call, endpoint, job)
        except ConnectError:
            self.address.lost(endpoint)
            raise
        except ExchangeError as exc:
            lost = exc
        logger.warning("%s lost the connection of job %s: %s", endpoint.url, job.checksum, lost)
        endpoint = await self._until_over(call, endpoint, job, lost)
        logger.warning(
            "job %s is submitted to %s again: the user's code runs again",
            job.checksum,
            endpoint.url,
        )
        self.counters.retry()
        try:
            return await self._submit(call, endpoint, job)
        except ServiceError as exc:
            raise self._fate_unknown(job, exc) from exc

    async def _submit(self, call: Call, endpoint: Endpoint, job: Job) -> Any:
        """Submit a job and await its answer, as long as the server is seen to work on it.

        No task of its own looks after that: a task group of anyio keeps a loop that is dropped,
        with its tasks, from ever being collected.
        """
        request = Request(
            "GET", f"{endpoint.path}/run-transformation", headers=_HEADERS, body=job.body
        )
        watch = _Watch(self, call, endpoint, job)
        async with await self._send(
            call, endpoint, request, lane=JOBS_LANE, bound=0, urgent=True, patience=watch.pause
        ) as response:
            while response.is_pending:
                await watch.look()
                call.waits_for = request
                await response.arrive(watch.pause)
            body = await response.read(ANSWER_LIMIT)
        self.counters.receive(len(body))
        if response.status in GATEWAY_STATUSES:
            raise ExchangeError(f"a gateway answered {response.status}: {quote(body)}")
        return self.read_answer(job, response.status, body)

    async def _until_over(
        self, call: Call, endpoint: Endpoint, job: Job, lost: ServiceError
    ) -> Endpoint:
        """Wait until the server is there and the lost job does not run there any more."""
        patience = call.settings.read_timeout or PATIENCE_WITHOUT_TIMEOUT
        interval = SHORTEST_WATCH_INTERVAL
        seen = time.monotonic()
        while True:
            try:
                status = await self.get_status_once(call, endpoint, job.checksum)
            except ServiceError as exc:
                if isinstance(exc, ConnectError):
                    self.address.lost(endpoint)
                if time.monotonic() - seen > patience:
                    raise self._fate_unknown(job, lost) from exc
            else:
                seen = time.monotonic()
                if status == "canceled":
                    raise TransformationCanceledError(CANCELED_TEXT)
                if status == "failed":
                    raise TransformationError(
                        f"transformation {job.checksum} failed at {endpoint.url}; "
                        "its error message was lost with the connection"
                    )
                if status != "running":
                    return endpoint
            call.waits_for = "the end of a job whose connection was lost"
            await anyio.sleep(interval)
            interval = min(LONGEST_WATCH_INTERVAL, 2 * interval)
            endpoint = await self._acquire(job, lost, patience - (time.monotonic() - seen))

    async def _acquire(self, job: Job, lost: ServiceError, patience: float) -> Endpoint:
        """The server, launched again if need be, as often as that fits into `patience` seconds."""
        deadline = time.monotonic() + patience
        while True:
            try:
                return await self.address.acquire()
            except LaunchError as exc:
                if time.monotonic() >= deadline:
                    raise self._fate_unknown(job, lost) from exc
                logger.info("%s", exc)
            await anyio.sleep(min(LAUNCH_PAUSE, max(0.0, deadline - time.monotonic())))

    def read_answer(self, job: Job, status: int, body: bytes) -> Any:
        """What the answer to a submission means: a dict with the result, or an older server's text.

        The dict has `result_checksum` (a Checksum) or `remote_job_written`, and `record_runtime`,
        `probe_context`, `compilation_context`, `job_validation` (None if not sent). An older
        server's bare checksum comes out as a Checksum, its remote-job text as that text.
        """
        text = body.decode("utf-8", "backslashreplace")
        if status == 200 and text == CANCELED_TEXT:
            raise TransformationCanceledError(CANCELED_TEXT)
        if status == 409 and "cancel" in text.lower():
            raise TransformationCanceledError(CANCELED_TEXT)
        if status >= 500:
            raise TransformationError(text)
        if status != 200:
            raise self._refused(f"job {job.checksum}", status, body)
        if is_checksum(text):
            return Checksum(text)
        if _is_remote_job(text):
            return text
        answer = json_of(body, dict) or {}
        result = answer.get("result_checksum")
        if is_checksum(result):
            return {
                "result_checksum": Checksum(result),
                **{key: answer.get(key) for key in _RECORD_KEYS},
            }
        if _is_remote_job(answer.get("remote_job_written")):
            return {
                "remote_job_written": answer["remote_job_written"],
                "record_runtime": answer.get("record_runtime"),
            }
        raise AnswerError(
            f"{self.describe()} answered job {job.checksum} with {quote(body)!r}, "
            "which is neither a result nor an error"
        )

    async def cancel(self, call: Call, checksum: str) -> bool:
        """Ask the server to cancel a job; True if it had it. ServiceError: it is away."""
        in_doubt = False

        async def attempt(call: Call, endpoint: Endpoint) -> bool:
            nonlocal in_doubt
            try:
                canceled, status = await self._cancel_once(call, endpoint, checksum)
            except ExchangeError:
                in_doubt = True
                raise
            # To a repeated question the server says that it has not canceled the job: this time.
            return canceled or (in_doubt and status == "canceled")

        return await self._attempt(call, f"canceling job {checksum}", attempt)

    async def get_status(self, call: Call, checksum: str) -> str:
        """A job's status: `running`, `canceled`, `failed`, `done` or `not-running`."""
        what = f"the status of job {checksum}"
        return await self._attempt(call, what, self.get_status_once, checksum)

    async def get_status_once(self, call: Call, endpoint: Endpoint, checksum: str) -> str:
        """The same, in one request, within the healthcheck timeout."""
        timeout = call.settings.healthcheck_timeout or STATUS_TIMEOUT
        request = Request("GET", f"{endpoint.path}/transformation-status/{checksum}", safe=True)
        with TimeLimit(2 * timeout):  # a server that trickles is no better than a silent one
            status, body = await self._exchange(
                call, endpoint, request, lane=CONTROL_LANE, read_timeout=timeout, urgent=True
            )
            if status != 200:
                raise self._refused(f"the status of job {checksum}", status, body)
            found = (json_of(body, dict) or {}).get("status")
            if not isinstance(found, str):
                raise AnswerError(
                    f"{self.describe()} gave the status of {checksum} as {quote(body)!r}"
                )
            return found
        raise ServiceTimeout(f"{self.describe()} did not tell the status of {checksum} in time")

    async def _cancel_once(
        self, call: Call, endpoint: Endpoint, checksum: str
    ) -> tuple[bool, object]:
        """Whether this request has canceled a job, and the job's status."""
        request = Request("POST", f"{endpoint.path}/cancel-transformation/{checksum}")
        status, body = await self._exchange(call, endpoint, request, lane=CONTROL_LANE, urgent=True)
        if status != 200:
            raise self._refused(f"to cancel job {checksum}", status, body)
        answer = json_of(body, dict) or {}
        return answer.get("canceled") is True, answer.get("status")

    async def _cancel_quietly(self, call: Call, job: Job) -> None:
        """Tell the server that nobody waits for this job any more; log it if that fails."""
        endpoint = self.address.current()
        if endpoint is None:
            return
        try:
            await self._cancel_once(call, endpoint, job.checksum)
        except (ServiceError, RefusedError) as exc:
            logger.warning("job %s could not be canceled: %s", job.checksum, exc)

    def _fate_unknown(self, job: Job, last: ServiceError) -> ServiceError:
        return ServiceError(
            f"{self.describe()}: the fate of job {job.checksum} is unknown: its "
            f"submission was lost ({last}). It may still be running there; once the server is "
            "back, submit it again"
        )


class JobserverLaunchedClient(JobserverClient):
    """A jobserver that is launched on demand, after the hashserver and database that it uses."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        Client.__init__(
            self, LaunchedAddress(placement.launch("jobserver", substage=True)), readonly=False
        )


class _Watch:
    """Looks now and then whether the server still works on a job whose answer is awaited."""

    def __init__(self, client: JobserverClient, call: Call, endpoint: Endpoint, job: Job) -> None:
        self._client = client
        self._call = call
        self._endpoint = endpoint
        self._job = job
        self._limit = limit = call.settings.read_timeout
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

        Raises a ServiceTimeout or ExchangeError if there is no use in waiting for the answer.
        """
        endpoint, checksum = self._endpoint, self._job.checksum
        status = "running"
        try:
            status = await self._client.get_status_once(self._call, endpoint, checksum)
        except (RefusedError, AnswerError) as exc:
            logger.debug("%s", exc)
        except ServiceError as exc:
            self._take_silence(exc)
            return
        self._seen = now = time.monotonic()
        if status == "running":
            self._running = now
            self.pause = self._interval
            return
        self.pause = min(self._interval, LOST_AFTER / 10)
        if now - self._running > LOST_AFTER:
            raise ExchangeError(
                f"{self._client.describe()} has said for {now - self._running:.0f} s that job "
                f"{checksum} is {status}, and has not answered its submission"
            )

    def _take_silence(self, exc: ServiceError) -> None:
        now = time.monotonic()
        silent_for = now - self._seen
        logger.info("%s has not answered for %.0f s: %s", self._endpoint.url, silent_for, exc)
        if self._limit is not None and silent_for > self._limit:
            raise ServiceTimeout(
                f"{self._client.describe()} was silent and unreachable for {silent_for:.0f} s "
                f"while it had job {self._job.checksum}"
            )
        # Nothing is known about the job: the time in which it does not run begins anew.
        self._running = now
        self.pause = self._interval


_RECORD_KEYS = ("record_runtime", "probe_context", "compilation_context", "job_validation")


def _is_remote_job(text: object) -> bool:
    if not isinstance(text, str):
        return False
    from seamless_transformer.remote_job import parse_remote_job_written

    return parse_remote_job_written(text) is not None
