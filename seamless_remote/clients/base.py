"""The base of all clients: one service, its health, and requests retried until they count."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from types import EllipsisType
from typing import Any, ClassVar, TypeVar

import seamless

from ..errors import (
    AnswerError,
    OwnLimitError,
    ProtocolError,
    RefusedError,
    ServiceError,
    ServiceTimeout,
)
from ..nursery import process
from ..nursery.calling import call_blocking
from ..nursery.calls import Call
from ..transport.messages import Request, Response
from . import retry_policy
from .answers import OK
from .connections import connections
from .counters import ClientSnapshot, Counters
from .endpoint import Address, Endpoint
from .frontends import is_path_lost
from .health import Health, HealthRecord
from .retrying import Attempt, Tries

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAIN_LANE = "main"
CONTROL_LANE = "control"
"""Short requests that must not wait behind long ones: pings, promises, questions."""

PING_LANE = "pings"
"""Through tunnels: requests that wait on a lost path may have all the other connections."""

SILENT_PINGS = 2
"""After so many pings in a row without an answer, the path of a tunnel may be lost."""

ANSWER_LIMIT = 64 * 1024 * 1024
"""The longest answer, in bytes, that is read into memory, buffers apart."""

QUOTED_TEXT = 1000
"""How many characters of a service's words an error message repeats."""


class Client:
    """A client of one service. It holds no connection: those are the process's.

    Public coroutines may be awaited from a task of any asyncio or trio loop; cancelling one cancels
    its request. What concerns reaching the service is raised as a ServiceError (a ConnectionError).
    """

    service: ClassVar[str]
    """What the service is called in messages."""

    has_folder: ClassVar[bool] = False
    """Whether what the service holds can also be read from its folder."""

    def __init__(self, address: Address, *, readonly: bool) -> None:
        self.readonly = readonly
        self.address = address
        self.health = HealthRecord(self.service)
        self.counters = Counters()
        # `seamless.caching.buffer_writer.flush()` sets this before each jobserver dispatch, not
        # only at shutdown; keepalive and later requests go on regardless.
        self._shutdown = False
        _clients.add(self)

    @property
    def url(self) -> str | None:
        """The service's URL; None for a launched service that has not been launched yet."""
        endpoint = self.address.current()
        return None if endpoint is None else endpoint.url

    @property
    def directory(self) -> str | None:
        """The folder of this machine that holds the same data, if there is one."""
        return None

    @property
    def has_server(self) -> bool:
        """Whether there is, or can be launched, a server behind this client."""
        return True

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return len(self.counters.calls)

    def after_fork_in_child(self) -> None:
        """Start from nothing: the parent's calls are not under way here, and its threads may have
        held the locks."""
        self.counters = Counters()
        self.health = HealthRecord(self.service)

    def describe(self) -> str:
        """The service and its URL, for messages."""
        return self.address.describe(self.service)

    def ensure_initialized_sync(self, *, skip_healthcheck: bool = False) -> None:
        """Bring the service up, from any thread, inside a running loop or not; the thread waits.

        Raises:
            ServiceError: it could not be launched, or (without `skip_healthcheck`) does not answer.
        """
        self.address.ensure()
        if not skip_healthcheck and self.health.state is not Health.UP:
            call_blocking("the healthcheck", self._check)

    async def keep_alive(self, call: Call) -> None:
        """Ping the service if its address is known; the outcome is its health, never an error."""
        endpoint = self.address.current()
        if endpoint is None:
            return
        for _ in range(SILENT_PINGS):
            try:
                await self.ping(call, endpoint)
                return
            except (ServiceError, RefusedError) as exc:
                service, url = self.service, endpoint.url
                logger.debug("%s at %s did not answer its ping: %s", service, url, exc)
                if isinstance(exc, ServiceError):
                    self.address.note_failure(endpoint, exc)
                if not (endpoint.is_tunneled and isinstance(exc, ServiceTimeout)):
                    return
        if await is_path_lost(call, endpoint, self.describe()):
            self.address.lose(endpoint)
            # What waits for answers looks for another way.
            connections.transport.cut(endpoint.origin)

    async def ping(self, call: Call, endpoint: Endpoint) -> None:
        """Ask the service for its health, once; it is noted, and a good answer closes the circuit.

        Raises ServiceError if it does not answer in time, RefusedError if it is not well.
        """
        request = Request("GET", f"{endpoint.path}/healthcheck")
        self.counters.request(0)
        started = time.perf_counter()
        try:
            response = await connections.transport.send(
                call,
                request,
                endpoint.origin,
                lane=PING_LANE if endpoint.is_tunneled else CONTROL_LANE,
                read_timeout=call.settings.healthcheck_timeout,
                bound=call.settings.max_connections,
            )
            body = await response.read(ANSWER_LIMIT)
        except OwnLimitError:
            raise
        except ServiceError as exc:
            self.health.failure(exc)
            raise
        if response.status >= 300:
            refusal = self._refused("the healthcheck", response.status, body)
            self.health.failure(refusal)
            raise refusal
        if body.strip() != OK:
            stranger = ProtocolError(
                f"it answered the healthcheck with {quote(body[:200])!r}, where 'OK' is due: "
                "something else than this service answers there"
            )
            self.health.failure(stranger)
            raise stranger
        self.health.ping(time.perf_counter() - started)
        if endpoint.circuit.probed(time.monotonic(), True, random.random):
            logger.warning("%s at %s answers again", self.service, endpoint.url)

    # For the tries of its calls (see `retrying.Tried`).

    def note_retry(self) -> None:
        """A request is made again."""
        self.counters.retry()

    def note_success(self, endpoint: Endpoint) -> None:
        """A request was answered, be it with a refusal."""
        endpoint.budget.earn()
        if endpoint.circuit.success():
            logger.warning("%s at %s answers again", self.service, endpoint.url)

    def note_failure(self, endpoint: Endpoint, failure: ServiceError) -> None:
        """A request failed in a way that may pass."""
        if not isinstance(failure, retry_policy.TransientRefusal):
            self.health.failure(failure)
        self.address.note_failure(endpoint, failure)
        # One that is given up needs no circuit: what is launched instead has its own.
        current = self.address.current() is endpoint
        if current and endpoint.circuit.failure(time.monotonic(), failure, random.random):
            logger.warning(
                "%s at %s: circuit opened after repeated failures (last: %s); "
                "its requests wait for a successful ping",
                self.service,
                endpoint.url,
                # Not the error itself: a log record that is kept would keep its frames.
                str(failure),
            )

    def _close_sessions(self) -> None:
        """Nothing to close: other callers go on using the process's connections."""

    def _close_sessions_for_thread(self, thread: threading.Thread) -> None:
        """Nothing to close: no thread has connections of its own."""

    def snapshot(self) -> ClientSnapshot:
        """The client as plain data."""
        counters = self.counters
        return ClientSnapshot(
            name=type(self).__name__,
            url=self.url,
            directory=self.directory,
            readonly=self.readonly,
            health=self.health.state.value,
            last_round_trip=self.health.last_round_trip,
            requests=counters.requests,
            retries=counters.retries,
            bytes_sent=counters.bytes_sent,
            bytes_received=counters.bytes_received,
            in_flight=self.in_flight,
        )

    # For the clients of the services.

    def require_usable(self, what: str) -> None:
        """RuntimeError after `seamless.close()`, and in a worker that may not use clients."""
        seamless.ensure_open(what, mark_required=False)
        if seamless.is_worker() and not process.settings().allow_in_worker:
            raise RuntimeError(
                f"{what}: remote clients are not used in Seamless worker processes; "
                "set SEAMLESS_ALLOW_REMOTE_CLIENTS_IN_WORKER=1 to allow it"
            )

    def _attempt(
        self,
        call: Call,
        what: str,
        attempt: Attempt[T],
        *args: Any,
        progress: Callable[[], int] | None = None,
    ) -> Awaitable[T]:
        """Run `attempt(call, endpoint, *args)` until it counts (see `Tries.run`)."""
        tries = Tries(self, call, what, attempt, args, progress)
        total = call.settings.total_timeout
        return tries.run() if total is None else tries.run_within(total)

    async def _exchange(
        self,
        call: Call,
        endpoint: Endpoint,
        request: Request,
        *,
        lane: str = MAIN_LANE,
        limit: int = ANSWER_LIMIT,
        read_timeout: float | EllipsisType | None = ...,
        bound: int | None = None,
        urgent: bool = False,
    ) -> tuple[int, bytes]:
        """Send a request and read its answer whole: status (below 400, or 4xx) and body.

        Raises TransientRefusal for a status that asks to try again, OverlongAnswerError for a body
        of more than `limit` bytes.
        """
        started = time.perf_counter()
        sent = received = 0
        try:
            response = await self._sent(
                call,
                endpoint,
                request,
                lane=lane,
                read_timeout=read_timeout,
                bound=bound,
                urgent=urgent,
            )
            sent = self._note_answer(request, response, started)
            body = await response.read(limit)
            received = len(body)
        finally:
            self.counters.request(sent, received)
        if response.status >= 400:
            self._raise_if_transient(response, body)
        return response.status, body

    @staticmethod
    def _raise_if_transient(response: Response, body: bytes) -> None:
        """TransientRefusal for an answer that asks to try again."""
        if retry_policy.is_transient_status(response.status):
            raise retry_policy.TransientRefusal(
                response.status,
                quote(body),
                retry_policy.retry_after_seconds(response.headers, time.time()),
            )

    async def _send(
        self,
        call: Call,
        endpoint: Endpoint,
        request: Request,
        *,
        lane: str = MAIN_LANE,
        read_timeout: float | EllipsisType | None = ...,
        bound: int | None = None,
        patience: float | None = None,
        urgent: bool = False,
    ) -> Response:
        """Send a request and await the head of its answer; the caller closes the response.

        The read timeout (seconds) and the bound on connections are the settings' by default. With
        `patience`, the response is pending if its head has not come in so many seconds. Unless it
        is `urgent`, a request is not sent while the service's circuit is open (a CircuitOpenError):
        it may have opened since the call was let pass.
        """
        started = time.perf_counter()
        sent = 0
        try:
            response = await self._sent(
                call,
                endpoint,
                request,
                lane=lane,
                read_timeout=read_timeout,
                bound=bound,
                patience=patience,
                urgent=urgent,
            )
            sent = self._note_answer(request, response, started)
        finally:
            self.counters.request(sent)
        return response

    def _sent(
        self,
        call: Call,
        endpoint: Endpoint,
        request: Request,
        *,
        lane: str,
        read_timeout: float | EllipsisType | None,
        bound: int | None = None,
        patience: float | None = None,
        urgent: bool,
    ) -> Awaitable[Response]:
        settings = call.settings
        if not urgent:
            endpoint.circuit.require_closed()
            request.before_sending = endpoint.circuit.require_closed
        return connections.transport.send(
            call,
            request,
            endpoint.origin,
            lane=lane,
            read_timeout=settings.read_timeout if read_timeout is ... else read_timeout,
            bound=settings.max_connections if bound is None else bound,
            patience=patience,
        )

    def _note_answer(self, request: Request, response: Response, started: float) -> int:
        """Note that the service answered; how many bytes of the request's body it was sent."""
        if response.status:  # it is pending otherwise
            self.health.success(time.perf_counter() - started)
        # With Expect: 100-continue, an early answer means that the body was not sent.
        sent = not request.expect_continue or response.status == 200
        return request.body_length if sent else 0

    def _refused(self, what: str, status: int, body: bytes) -> RefusedError:
        text = quote(body)
        return RefusedError(
            f"{self.describe()} refused {what} with {status}: {text}", status=status, text=text
        )

    def _require(self, expected: bytes, what: str, status: int, body: bytes) -> None:
        """AnswerError unless the answer's body is the one that means success."""
        if body.strip() != expected:
            due = repr(expected.decode()) if expected else "nothing"
            raise AnswerError(
                f"{self.describe()} answered {what} with {status} and {quote(body[:200])!r}, where "
                f"{due} is due: something else than this service answers there"
            )

    async def _check(self, call: Call) -> None:
        """A healthcheck that is retried like any request."""
        await self._attempt(call, "the healthcheck", self.ping)


def quote(body: bytes) -> str:
    """A service's words as they stand in an error message."""
    return shortened(body.decode("utf-8", "backslashreplace"))


def shortened(text: str) -> str:
    """A service's text as it stands in an error message."""
    text = text.strip()
    return text if len(text) <= QUOTED_TEXT else f"{text[:QUOTED_TEXT]}..."


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
