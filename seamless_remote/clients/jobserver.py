"""The client of a jobserver: it submits a job once, waits however long it takes, or cancels it.

Requests and answers were read off seamless-jobserver 0.3.0. A submission is a GET that is held open
until the job ends; the job goes on when that connection breaks, and its result can then no longer
be fetched. The states of a submission, and what follows from each event:

- not sent: no connection came about. The caller may send it elsewhere, or later.
- running: the answer is awaited without any timeout. Now and then, the server is asked for the
  job's status on another connection (see `job_watch`).
  - an answer: 200 is the result, 500 the user's error, whatever the text; the job is over.
  - the server stays silent and unreachable for the read timeout: the submission is lost.
  - the server says for some seconds that the job does not run: it has lost it, or its answer got
    lost. The submission is lost.
  - the connection breaks: the submission is lost.
- lost: as long as the server says that the job is running, it is waited for. After that, its result
  is looked for, in the databases and in the server's own log. If it is nowhere, and once the server
  is back, the job is submitted again, which runs the user's code again: once at most.
- canceled: the caller was cancelled; the server is told, and then the cancellation goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from seamless import Checksum

from ..errors import (
    AnswerError,
    ConnectError,
    ExchangeError,
    LaunchError,
    OwnLimitError,
    RefusedError,
    RemoteError,
    ServiceError,
    ServiceTimeout,
    TransformationCanceledError,
    TransformationError,
)
from ..nursery.calls import Call
from ..nursery.deadline import TimeLimit
from ..transport.messages import Request, Stage
from .answers import json_of
from .base import CONTROL_LANE, Client, quote
from .endpoint import Endpoint, KnownAddress
from .job_answers import CANCELED_TEXT, read_answer, result_of
from .job_watch import (
    LONGEST_WATCH_INTERVAL,
    PATIENCE_WITHOUT_TIMEOUT,
    SHORTEST_WATCH_INTERVAL,
    Doubt,
    JobWatch,
    no_doubt,
)

logger = logging.getLogger(__name__)

_UNSENT = (Stage.NEW, Stage.QUEUED, Stage.CONNECTING)

JOBS_LANE = "jobs"

CANCEL_LANE = "cancellations"

MOST_CANCELLATIONS = 100
"""Cancel requests at once to one server: what a listening socket holds while the server stalls."""

CANCEL_TIMEOUT = 1.5
"""Seconds that a cancelled caller waits at most for the answer to its cancel request. A server that
stalls finds the request when it goes on."""

STATUS_TIMEOUT = 30.0
"""Seconds for a job's status, if no healthcheck timeout is set: its watch must not hang."""

LAUNCH_PAUSE = 1.0
"""Seconds between two launches of a server that was there before."""

# The connection of a job is its own: one that a server has just given up would lose it.
_HEADERS = (("Content-Type", "application/json"), ("Connection", "close"))


class NoRoomError(ConnectError):
    """The server is well, and takes no more connections for now. The job was not sent."""


class Job:
    """A transformation as it is submitted: its checksum, and the JSON body of the request.

    `recover` looks for the result of a job whose answer was lost; it is given the result that the
    server's own log names, if there is one there.
    """

    __slots__ = ("body", "checksum", "recover", "sent")

    def __init__(
        self,
        checksum: str,
        body: bytes,
        recover: Callable[[Checksum | None], Awaitable[Checksum | None]],
    ) -> None:
        self.checksum = checksum
        self.body = body
        self.recover = recover
        self.sent = False
        """Whether a server may have it."""


class JobserverClient(Client):
    """A jobserver at a known URL."""

    service = "jobserver"

    def __init__(self, *, url: str) -> None:
        """ValueError for a malformed `url`."""
        super().__init__(KnownAddress(url), readonly=False)

    # What more there is to know of a server on this machine.

    async def _logged_result(self, endpoint: Endpoint, job: Job) -> Checksum | None:
        """The result of a job that ended well, as the server's own log has it."""
        return None

    def _doubt(self, call: Call, endpoint: Endpoint, job: Job) -> Doubt:
        """What doubts a server that calls a job running, from now on (see `JobWatch`)."""
        return no_doubt

    async def run(self, call: Call, job: Job) -> Any:
        """Run a job and give its result, as `read_answer` does.

        Cancelling it sends the server a cancel request (see `CANCEL_TIMEOUT`), and goes on.

        Raises:
            ConnectError: it was not sent. NoRoomError: the server is well all the same.
                OwnLimitError: this process lacks what that takes.
            TransformationError: the user's code failed, with the server's text.
            TransformationCanceledError: it was canceled at the server.
            RefusedError: the server refuses it, for example in another record mode.
            AnswerError: it has run, and its answer is no result.
            ServiceError: the job was lost twice, or the server stays away: its fate is unknown.
        """
        # Not in the `except` line, which is also run when the loop is dropped.
        cancelled = anyio.get_cancelled_exc_class()
        calls = self.counters.calls
        calls.add(id(call))
        try:
            return await self._run(call, job)
        except cancelled:
            if job.sent:
                with anyio.move_on_after(CANCEL_TIMEOUT, shield=True):
                    await self._cancel_quietly(call, job)
            raise
        finally:
            calls.discard(id(call))

    async def _run(self, call: Call, job: Job) -> Any:
        endpoint = await self.address.acquire()
        try:
            return await self._submit(call, endpoint, job)
        except OwnLimitError:
            raise
        except ConnectError as exc:
            await self._take_unsent(call, endpoint, exc)
            raise
        except ExchangeError as exc:
            lost = exc
        logger.warning("%s lost the connection of job %s: %s", endpoint.url, job.checksum, lost)
        # At once, too: a server that is launched again begins its log anew.
        found = await self._recovered(call, endpoint, job)
        if found is None:
            endpoint = await self._until_over(call, endpoint, job, lost)
            found = await self._recovered(call, endpoint, job)
        if found is not None:
            return result_of(found)
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

        def ask() -> Awaitable[str]:
            return self.get_status_once(call, endpoint, job.checksum)

        doubt = self._doubt(call, endpoint, job)
        name, timeout = self.describe(), call.settings.read_timeout
        watch = JobWatch(name, job.checksum, ask, doubt, timeout)
        try:
            response = await self._send(
                call, endpoint, request, lane=JOBS_LANE, bound=0, urgent=True, patience=watch.pause
            )
        finally:
            job.sent = job.sent or request.stage not in _UNSENT
        async with response:
            while response.is_pending:
                await watch.look()
                call.waits_for = request
                await response.arrive(watch.pause)
            self.counters.receive(response.content_length or 0)
            return await read_answer(response, f"job {job.checksum}", name)

    async def _take_unsent(self, call: Call, endpoint: Endpoint, exc: ConnectError) -> None:
        """Find out what a connection that did not come about means. NoRoomError: no harm.

        A server with as many connections as it can take lets further ones wait until they time out.
        Over one that is open already, it answers.
        """
        try:
            await self.ping(call, endpoint)
        except (ServiceError, RefusedError):
            self.address.note_failure(endpoint, exc)
        else:
            raise NoRoomError(
                f"{self.describe()} takes no more connections for now: {exc}"
            ) from exc

    async def _recovered(self, call: Call, endpoint: Endpoint, job: Job) -> Checksum | None:
        """The result of a lost job, if it can be found; None: it cannot."""
        call.waits_for = "a look for the result of a job whose answer was lost"
        found = await job.recover(await self._logged_result(endpoint, job))
        if found is not None:
            logger.warning(
                "the answer to job %s was lost; its result, %s, was found", job.checksum, found
            )
        return found

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
                self.address.note_failure(endpoint, exc)
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
        status, body = await self._exchange(
            call, endpoint, request, lane=CANCEL_LANE, bound=MOST_CANCELLATIONS, urgent=True
        )
        if status != 200:
            raise self._refused(f"to cancel job {checksum}", status, body)
        answer = json_of(body, dict) or {}
        canceled = answer.get("canceled")
        if not isinstance(canceled, bool):
            raise AnswerError(
                f"{self.describe()} was asked to cancel job {checksum}, and answered "
                f"{quote(body[:200])!r}: something else than this service answers there"
            )
        return canceled, answer.get("status")

    async def _cancel_quietly(self, call: Call, job: Job) -> None:
        """Tell the server that nobody waits for this job any more; log it if that fails."""
        endpoint = self.address.current()
        if endpoint is None:
            return
        try:
            await self._cancel_once(call, endpoint, job.checksum)
        except RemoteError as exc:
            logger.warning("job %s could not be canceled: %s", job.checksum, exc)

    def _fate_unknown(self, job: Job, last: ServiceError) -> ServiceError:
        return ServiceError(
            f"{self.describe()}: the fate of job {job.checksum} is unknown: its "
            f"submission was lost ({last}). It may still be running there; once the server is "
            "back, submit it again"
        )
