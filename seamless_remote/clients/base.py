"""The base of all clients: one service, its health, and requests retried until they count."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from types import EllipsisType
from typing import Any, ClassVar, TypeVar

import anyio
import seamless

from .endpoint import Address, Endpoint
from .retrying import Attempt, Attempts
from ..errors import (
    ClientRestartRequiredError,
    ConnectError,
    NurseryClosedError,
    RefusedError,
    ServiceError,
)
from ..nursery import process
from .health import Health, HealthRecord
from ..nursery.process import call_blocking
from ..nursery.scope import Scope
from ..nursery.snapshot import ClientSnapshot
from ..transport import abandon_after_fork, retry
from ..transport.messages import Request, Response
from ..transport.transport import Transport

__all__ = ["Client", "ClientRestartRequiredError", "close_all_clients"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

CONTROL_LANE = "control"
"""Short requests that must not wait behind long ones: pings, promises, questions."""

ANSWER_LIMIT = 64 * 1024 * 1024
"""The longest answer, in bytes, that is read into memory where it is not a buffer."""

QUOTED_TEXT = 1000
"""How many characters of a service's words an error message repeats."""

UPKEEP_INTERVAL = 10.0
"""Seconds between two looks at idle connections."""


class Client:
    """A client of one service. It holds no socket: those belong to the scope in which a call runs.

    Public coroutines may be awaited from a task of any asyncio or trio loop; cancelling one cancels
    its request. What concerns reaching the service is raised as a ServiceError (a ConnectionError).
    """

    service: ClassVar[str]
    """What the service is called in messages."""

    has_folder: ClassVar[bool] = False
    """Whether what the service holds can be read from its folder as well."""

    def __init__(self, address: Address, *, readonly: bool) -> None:
        self.readonly = readonly
        self.address = address
        self.health = HealthRecord(self.service)
        # `seamless.caching.buffer_writer.flush()` sets this before each jobserver dispatch, not
        # only at shutdown; keepalive and later requests go on regardless.
        self._shutdown = False
        self._requests = 0
        self._retries = 0
        self._in_flight = 0
        self._bytes_sent = 0
        self._bytes_received = 0

    @property
    def url(self) -> str | None:
        """The service's URL; None for a launched service that has not been launched yet."""
        endpoint = self.address.current()
        return None if endpoint is None else endpoint.url

    @property
    def directory(self) -> str | None:
        """The folder of this machine that holds the same data, where there is one."""
        return None

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return self._in_flight

    def ensure_initialized_sync(self, *, skip_healthcheck: bool = False) -> None:
        """Bring the service up, from any thread, inside a running loop or not; the thread waits.

        Raises:
            ServiceError: it could not be launched, or (without `skip_healthcheck`) does not answer.
        """
        self.address.ensure()
        if not skip_healthcheck and self.health.state is not Health.UP:
            call_blocking(self._check)

    async def keep_alive(self, scope: Scope) -> None:
        """Ping the service if its address is known; the outcome is its health, never an error."""
        endpoint = self.address.current()
        if endpoint is None:
            return
        try:
            await self.ping(scope, endpoint)
        except ConnectError:
            if not scope.closed:
                self.address.lost(endpoint)
        except (ServiceError, RefusedError) as exc:
            logger.debug("%s at %s did not answer its ping: %s", self.service, endpoint.url, exc)

    async def ping(self, scope: Scope, endpoint: Endpoint) -> None:
        """Ask the service for its health, once; it is noted, and a good answer ends a circuit's
        wait.

        Raises ServiceError where it does not answer in time, RefusedError where it is not well.
        """
        request = Request("GET", f"{endpoint.path}/healthcheck")
        timeout = scope.settings.healthcheck_timeout
        self._requests += 1
        started = time.perf_counter()
        try:
            response = await scope.resource(make_transport).send(
                request, endpoint.origin, lane=CONTROL_LANE, read_timeout=timeout
            )
            body = await response.read(ANSWER_LIMIT)
        except NurseryClosedError:
            raise
        except ServiceError as exc:
            self.health.failure(exc)
            raise
        if response.status >= 300:
            refusal = self._refused("the healthcheck", response.status, body)
            self.health.failure(refusal)
            raise refusal
        self.health.success(time.perf_counter() - started)
        if endpoint.circuit.probed(time.monotonic(), True, random.random):
            logger.warning("%s at %s answers again", self.service, endpoint.url)

    # For the tries of its calls.

    def note_retry(self) -> None:
        """A request is made again."""
        self._retries += 1

    def note_success(self, endpoint: Endpoint) -> None:
        """A request was answered, be it with a refusal."""
        endpoint.budget.earn()
        if endpoint.circuit.success():
            logger.warning("%s at %s answers again", self.service, endpoint.url)

    def note_failure(self, endpoint: Endpoint, failure: ServiceError) -> None:
        """A request failed in a way that may pass."""
        if not isinstance(failure, retry.TransientRefusal):
            self.health.failure(failure)
        if isinstance(failure, ConnectError):
            self.address.lost(endpoint)
        # One that is given up needs no circuit: what is launched instead has its own.
        current = self.address.current() is endpoint
        if current and endpoint.circuit.failure(time.monotonic(), failure, random.random):
            logger.warning(
                "%s at %s fails again and again, lately: %s; its requests wait for a good ping",
                self.service,
                endpoint.url,
                failure,
            )

    def _close_sessions(self) -> None:
        """Nothing to close: connections belong to the nursery, which other callers go on using."""

    def _close_sessions_for_thread(self, thread: threading.Thread) -> None:
        """Nothing to close: no thread but the nursery's has connections."""

    def snapshot(self) -> ClientSnapshot:
        """The client as plain data."""
        return ClientSnapshot(
            name=type(self).__name__,
            url=self.url,
            directory=self.directory,
            readonly=self.readonly,
            health=self.health.state.value,
            last_round_trip=self.health.last_round_trip,
            requests=self._requests,
            retries=self._retries,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            in_flight=self._in_flight,
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

    async def _exchange(
        self,
        scope: Scope,
        endpoint: Endpoint,
        request: Request,
        *,
        lane: str = "main",
        limit: int = ANSWER_LIMIT,
        urgent: bool = False,
    ) -> tuple[int, bytes]:
        """Send a request and read its answer whole: status (below 400, or 4xx) and body.

        Raises TransientRefusal for a status that asks to try again, ProtocolError for a body of
        more than `limit` bytes.
        """
        response = await self._send(scope, endpoint, request, lane=lane, urgent=urgent)
        body = await response.read(limit)
        self._bytes_received += len(body)
        self._raise_if_transient(response, body)
        return response.status, body

    @staticmethod
    def _raise_if_transient(response: Response, body: bytes) -> None:
        """TransientRefusal for an answer that asks to try again."""
        if retry.is_transient_status(response.status):
            raise retry.TransientRefusal(
                response.status,
                quote(body),
                retry.retry_after_seconds(response.headers, time.time()),
            )

    async def _send(
        self,
        scope: Scope,
        endpoint: Endpoint,
        request: Request,
        *,
        lane: str = "main",
        read_timeout: float | EllipsisType | None = ...,
        bound: int | EllipsisType | None = ...,
        urgent: bool = False,
    ) -> Response:
        """Send a request and await the head of its answer; the caller closes the response.

        The read timeout (seconds) and the bound on connections are the settings' by default. Unless
        it is `urgent`, a request is not sent while the service's circuit is open (a
        CircuitOpenError): it may have opened since the call was let pass.
        """
        if not urgent:
            endpoint.circuit.require_closed()
            request.before_turn = endpoint.circuit.require_closed
        if isinstance(read_timeout, EllipsisType):
            read_timeout = scope.settings.read_timeout
        transport = scope.resource(make_transport)
        self._requests += 1
        started = time.perf_counter()
        response = await transport.send(
            request,
            endpoint.origin,
            lane=lane,
            read_timeout=read_timeout,
            bound=bound,
        )
        self.health.success(time.perf_counter() - started)
        # A body that waits for the server's go stays here where the answer comes instead of it.
        if not request.expect_continue or response.status == 200:
            self._bytes_sent += request.body_length
        return response

    async def _attempt(self, scope: Scope, what: str, attempt: Attempt[T], *args: Any) -> T:
        """Run `attempt`, with `args`, until it counts (see `Attempts.run`)."""
        attempts = Attempts(self, scope, what, attempt, args)
        total = scope.settings.total_timeout
        self._in_flight += 1
        try:
            return await (attempts.run() if total is None else attempts.run_within(total))
        finally:
            self._in_flight -= 1

    def _refused(self, what: str, status: int, body: bytes) -> RefusedError:
        text = quote(body)
        return RefusedError(
            f"{self.service} at {self.url} refused {what} with {status}: {text}",
            status=status,
            text=text,
        )

    async def _check(self, scope: Scope) -> None:
        """A healthcheck that is retried like any request."""

        async def attempt(scope: Scope, endpoint: Endpoint) -> None:
            await self.ping(scope, endpoint)

        await self._attempt(scope, "the healthcheck", attempt)


class ScopedTransport(Transport):
    """The connections of one scope."""

    async def upkeep(self) -> None:
        """Keep the read timeouts, and close connections that are idle for too long."""
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(self.keep_timeouts)
            while True:
                await anyio.sleep(UPKEEP_INTERVAL)
                self.expire()


def make_transport(scope: Scope) -> ScopedTransport:
    """The resource of a scope that holds its connections."""
    settings = scope.settings
    return ScopedTransport(
        connect_timeout=settings.connect_timeout,
        max_connections=settings.max_connections,
        idle_lifetime=settings.idle_connection_lifetime,
    )


def quote(body: bytes) -> str:
    """A service's words as they stand in an error message."""
    text = body.decode("utf-8", "backslashreplace").strip()
    return text if len(text) <= QUOTED_TEXT else f"{text[:QUOTED_TEXT]}..."


def close_all_clients() -> None:
    """Give up everything that the clients hold, from any thread: connections, pings, the thread.

    Requests in flight get a grace period. `seamless.close()` calls this when it has marked Seamless
    closed. It may be called twice, or with nothing open; clients stay registered, and their next
    call (Seamless can be reopened) opens what it needs again. In a host's nursery the clients come
    to rest, and the nursery stays the host's.
    """
    process.close()


os.register_at_fork(after_in_child=abandon_after_fork)
