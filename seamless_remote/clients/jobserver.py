"""The client of a jobserver: a job is submitted once, waited for however long it takes, or
canceled.

Requests and answers were read off seamless-jobserver 0.3.0. A submission is a GET that is held open
until the job ends; the job goes on when that connection breaks, and its result can then no longer
be fetched. The states of a submission, and what follows from each event:

- not sent: no connection came about. The caller may send it elsewhere.
- running: the answer is awaited without any timeout, while the server is asked for the job's status
  on another connection, now and then.
  - an answer: 200 is the result, 500 the user's error, whatever the text; the job is over.
  - the server stays silent and unreachable for the read timeout: the submission is lost.
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

from .endpoint import Endpoint, KnownAddress, LaunchedAddress
from ..checksums import is_checksum
from .base import ANSWER_LIMIT, CONTROL_LANE, Client, quote
from ..errors import (
    AnswerError,
    ConnectError,
    ExchangeError,
    RefusedError,
    ServiceError,
    ServiceTimeout,
    TransformationCanceledError,
    TransformationError,
)
from .answers import json_of
from ..nursery.scope import Scope
from ..launching.placement import Placement
from ..transport.messages import Request

logger = logging.getLogger(__name__)

JOBS_LANE = "jobs"

CANCEL_TIMEOUT = 4.0
"""Seconds that a cancelled caller waits at most for its cancel request; below the grace period."""

LONGEST_WATCH_INTERVAL = 30.0
SHORTEST_WATCH_INTERVAL = 0.25
"""Seconds between two looks at a job: a quarter of the read timeout, within these, while it runs;
longer each time when it is lost."""

PATIENCE_WITHOUT_TIMEOUT = 1200.0
"""Seconds that a server that is away is waited for where no read timeout is set."""

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

    async def run(self, scope: Scope, job: Job) -> Any:
        """Run a job and give its result, as `read_answer` does.

        Cancelling it sends the server a cancel request, for some seconds at most, and goes on.

        Raises:
            ConnectError: it was never sent.
            TransformationError: the user's code failed, with the server's text.
            TransformationCanceledError: it was canceled at the server.
            RefusedError: the server refuses it, for example in another record mode.
            ServiceError: the job was lost twice, or the server stays away: its fate is unknown.
        """
        self._in_flight += 1
        try:
            return await self._run(scope, job)
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(CANCEL_TIMEOUT, shield=True):
                await self._cancel_quietly(scope, job)
            raise
        finally:
            self._in_flight -= 1

    async def _run(self, scope: Scope, job: Job) -> Any:
        endpoint = await self.address.acquire()
        try:
            return await self._submit(scope, endpoint, job)
        except ConnectError:
            self.address.lost(endpoint)
            raise
        except ExchangeError as exc:
            lost = exc
        logger.warning("%s lost the connection of job %s: %s", endpoint.url, job.checksum, lost)
        endpoint = await self._until_over(scope, endpoint, job, lost)
        logger.warning(
            "job %s is submitted to %s again: the user's code runs again",
            job.checksum,
            endpoint.url,
        )
        self._retries += 1
        try:
            return await self._submit(scope, endpoint, job)
        except ServiceError as exc:
            raise self._fate_unknown(job, exc) from exc

    async def _submit(self, scope: Scope, endpoint: Endpoint, job: Job) -> Any:
        """Submit a job and await its answer, while the server is seen to be alive."""
        failure: ServiceError | None = None
        answer: Any = None
        silence = _Silence()
        async with anyio.create_task_group() as watch:
            watch.start_soon(self._watch, scope, endpoint, job, silence, watch.cancel_scope)
            try:
                answer = await self._request_job(scope, endpoint, job)
            except ServiceError as exc:
                failure = exc
            watch.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if silence.length is not None:
            raise ServiceTimeout(
                f"{self.service} at {endpoint.url} was silent and unreachable for "
                f"{silence.length:.0f} s while it had job {job.checksum}"
            )
        status, body = answer
        return self.read_answer(job, status, body)

    async def _request_job(self, scope: Scope, endpoint: Endpoint, job: Job) -> tuple[int, bytes]:
        request = Request(
            "GET", f"{endpoint.path}/run-transformation", headers=_HEADERS, body=job.body
        )
        response = await self._send(
            scope, endpoint, request, lane=JOBS_LANE, read_timeout=None, bound=None, urgent=True
        )
        body = await response.read(ANSWER_LIMIT)
        self._bytes_received += len(body)
        if response.status in GATEWAY_STATUSES:
            raise ExchangeError(f"a gateway answered {response.status}: {quote(body)}")
        return response.status, body

    async def _watch(
        self,
        scope: Scope,
        endpoint: Endpoint,
        job: Job,
        silence: _Silence,
        submission: anyio.CancelScope,
    ) -> None:
        """End the submission when the server has been silent and unreachable for too long."""
        limit = scope.settings.read_timeout
        if limit is None:
            return
        interval = min(LONGEST_WATCH_INTERVAL, max(SHORTEST_WATCH_INTERVAL, limit / 4))
        seen = time.monotonic()
        while True:
            await anyio.sleep(interval)
            try:
                await self._status_once(scope, endpoint, job.checksum)
                seen = time.monotonic()
            except RefusedError:
                seen = time.monotonic()
            except ServiceError as exc:
                silent_for = time.monotonic() - seen
                logger.info("%s does not answer for %.0f s: %s", endpoint.url, silent_for, exc)
                if silent_for > limit:
                    silence.length = silent_for
                    submission.cancel()

    async def _until_over(
        self, scope: Scope, endpoint: Endpoint, job: Job, lost: ServiceError
    ) -> Endpoint:
        """Wait until the server is there and the lost job does not run there any more."""
        patience = scope.settings.read_timeout or PATIENCE_WITHOUT_TIMEOUT
        interval = SHORTEST_WATCH_INTERVAL
        seen = time.monotonic()
        while True:
            try:
                status = await self._status_once(scope, endpoint, job.checksum)
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
            await anyio.sleep(interval)
            interval = min(LONGEST_WATCH_INTERVAL, 2 * interval)
            endpoint = await self.address.acquire()

    def read_answer(self, job: Job, status: int, body: bytes) -> Any:
        """What the answer to a submission means: a dict with the result, or an older server's text.

        The dict has `result_checksum` (a Checksum) or `remote_job_written`, and `record_runtime`,
        `probe_context`, `compilation_context`, `job_validation` (None where not sent). An older
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
            f"{self.service} at {self.url} answered job {job.checksum} with {quote(body)!r}, "
            "which is neither a result nor an error"
        )

    async def cancel(self, scope: Scope, checksum: str) -> bool:
        """Ask the server to cancel a job; True where it had it. ServiceError: it is away."""

        async def attempt(scope: Scope, endpoint: Endpoint) -> bool:
            return await self._cancel_once(scope, endpoint, checksum)

        return await self._attempt(scope, f"canceling job {checksum}", attempt)

    async def status(self, scope: Scope, checksum: str) -> str:
        """A job's status: `running`, `canceled`, `failed`, `done` or `not-running`."""

        async def attempt(scope: Scope, endpoint: Endpoint) -> str:
            return await self._status_once(scope, endpoint, checksum)

        return await self._attempt(scope, f"the status of job {checksum}", attempt)

    async def _cancel_once(self, scope: Scope, endpoint: Endpoint, checksum: str) -> bool:
        request = Request("POST", f"{endpoint.path}/cancel-transformation/{checksum}", safe=True)
        status, body = await self._exchange(
            scope, endpoint, request, lane=CONTROL_LANE, urgent=True
        )
        if status != 200:
            raise self._refused(f"to cancel job {checksum}", status, body)
        return (json_of(body, dict) or {}).get("canceled") is True

    async def _cancel_quietly(self, scope: Scope, job: Job) -> None:
        """Tell the server that nobody waits for this job any more; log it where that fails."""
        endpoint = self.address.current()
        if endpoint is None:
            return
        try:
            await self._cancel_once(scope, endpoint, job.checksum)
        except (ServiceError, RefusedError) as exc:
            logger.warning("job %s could not be canceled: %s", job.checksum, exc)

    async def _status_once(self, scope: Scope, endpoint: Endpoint, checksum: str) -> str:
        request = Request("GET", f"{endpoint.path}/transformation-status/{checksum}", safe=True)
        response = await self._send(
            scope,
            endpoint,
            request,
            lane=CONTROL_LANE,
            read_timeout=scope.settings.healthcheck_timeout,
            urgent=True,
        )
        body = await response.read(ANSWER_LIMIT)
        self._raise_if_transient(response, body)
        if response.status != 200:
            raise self._refused(f"the status of job {checksum}", response.status, body)
        status = (json_of(body, dict) or {}).get("status")
        if not isinstance(status, str):
            raise AnswerError(
                f"{self.service} at {endpoint.url} gave the status of {checksum} as {quote(body)!r}"
            )
        return status

    def _fate_unknown(self, job: Job, last: ServiceError) -> ServiceError:
        return ServiceError(
            f"{self.service} at {self.url}: the fate of job {job.checksum} is unknown: its "
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


@dataclass(slots=True)
class _Silence:
    """How long the server had been silent when its submission was given up, in seconds."""

    length: float | None = None


_RECORD_KEYS = ("record_runtime", "probe_context", "compilation_context", "job_validation")


def _is_remote_job(text: object) -> bool:
    if not isinstance(text, str):
        return False
    from seamless_transformer.remote_job import parse_remote_job_written

    return parse_remote_job_written(text) is not None
