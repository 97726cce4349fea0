"""A bounded set of connections to one origin, and the queue for them."""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from dataclasses import dataclass

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from seamless_remote.errors import ConnectError

from .connection import ClosedBeforeAnswer, Connection, State
from .dialing import dial
from .messages import Origin, Request, Response
from .silence import SilenceWatch
from .socket_io import Traffic, Wire

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A pool at one moment: connections by use, requests in the queue, totals since its start."""

    open: int
    idle: int
    in_use: int
    waiting: int
    opened: int
    bytes_sent: int
    bytes_received: int


class Pool:
    """Connections to one http origin, at most `bound` in use at once (None: no bound).

    Requests that find no connection free wait their turn, first come first served; a cancelled one
    leaves the queue, or hands its turn on. Idle connections are reused last in, first out, and
    closed after `idle_lifetime` seconds. `watch` keeps the read timeouts while it runs.
    For the tasks of one event loop.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        bound: int | None,
        connect_timeout: float | None,
        idle_lifetime: float,
        watch: SilenceWatch | None = None,
    ) -> None:
        if bound is not None and bound < 1:
            raise ValueError(f"a pool needs room for at least one connection, not {bound}")
        self.origin = origin
        self._connect_timeout = connect_timeout
        self._idle_lifetime = idle_lifetime
        self._watch = watch or SilenceWatch()
        self._free: float = math.inf if bound is None else bound
        self._queue: OrderedDict[anyio.Event, None] = OrderedDict()
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []
        self._dials: set[anyio.CancelScope] = set()
        self._requests = 0
        self._opened = 0
        self._traffic = Traffic()
        self._retired = False
        self._closed = False

    @property
    def is_unused(self) -> bool:
        """Whether no request holds, or waits for, a connection."""
        return not self._requests

    def statistics(self) -> PoolStatistics:
        """The counters as they stand."""
        idle = len(self._idle)
        return PoolStatistics(
            open=len(self._connections),
            idle=idle,
            in_use=len(self._connections) - idle,
            waiting=len(self._queue),
            opened=self._opened,
            bytes_sent=self._traffic.sent,
            bytes_received=self._traffic.received,
        )

    async def send(self, request: Request, read_timeout: float | None) -> Response:
        """Send `request` when its turn comes, and return the answer (see `Connection.exchange`).

        A request that a reused connection lost before the answer began is sent once more on a new
        connection, if it is `safe` or if nothing of it was sent. Raises ConnectError when no
        connection comes about within the connect timeout, and when the pool is closed.
        """
        if request.method != "GET" or not request.safe:
            # A question that is sent in vain costs its connection; to look each time, as much as to
            # send one.
            await checkpoint_if_cancelled()
        if self._closed:
            raise self._closed_error()
        self._requests += 1
        try:
            if self._free > 0:
                self._free -= 1
            else:
                await self._wait_for_turn(request)
        except BaseException:
            self._requests -= 1
            raise
        connection = None
        response = None
        try:
            connection = self._reusable()
            if connection is not None:
                try:
                    response = await connection.exchange(request, read_timeout)
                except (ConnectError, ClosedBeforeAnswer) as exc:
                    # A ConnectError here says that nothing was sent.
                    if not (request.safe or isinstance(exc, ConnectError)):
                        raise
                    self._connections.discard(connection)
                    logger.debug("%s: %s; sent again on a new connection", self.origin, exc)
            if connection is None or response is None:
                connection = await self._open()
                response = await connection.exchange(request, read_timeout)
        except BaseException as exc:
            if connection is not None:
                self._connections.discard(connection)
                logger.debug("%s: connection given up: %r", self.origin, exc)
            self._end_turn()
            raise
        if connection.state is not State.BODY:
            self._end(connection)
        return response

    def retire(self) -> None:
        """Close the idle connections, and those in use when they are done with."""
        self._retired = True
        self._close_idle(self._idle)

    def expire(self) -> None:
        """Close the idle connections that are too old, or that the server has closed."""
        oldest = time.monotonic() - self._idle_lifetime
        self._close_idle([c for c in self._idle if c.idle_since <= oldest or c.is_stale()])

    async def aclose(self) -> None:
        """Close every connection at once. Requests in the queue get a ConnectError, requests under
        way an ExchangeError. Does not block."""
        self._closed = True
        self.retire()
        for scope in self._dials:
            scope.cancel()
        for connection in list(self._connections):
            connection.abort()
        while self._queue:
            self._queue.popitem(last=False)[0].set()

    async def _wait_for_turn(self, request: Request) -> None:
        turn = anyio.Event()
        self._queue[turn] = None
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self._pass_turn()
            else:
                del self._queue[turn]
            raise
        if self._closed:
            raise self._closed_error()
        if request.before_turn is not None:
            try:
                request.before_turn()
            except BaseException:
                self._pass_turn()
                raise

    def _pass_turn(self) -> None:
        """Give a slot to the first in the queue. It is never free in between: nobody jumps in."""
        if self._queue:
            self._queue.popitem(last=False)[0].set()
        else:
            self._free += 1

    def _end_turn(self) -> None:
        self._requests -= 1
        self._pass_turn()

    def _end(self, connection: Connection) -> None:
        """An exchange is over: keep its connection if it can serve again."""
        if connection.state is State.IDLE and not self._retired:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()
            self._connections.discard(connection)
            logger.debug("%s: connection closed, %d left", self.origin, len(self._connections))
        self._end_turn()

    def _reusable(self) -> Connection | None:
        oldest = time.monotonic() - self._idle_lifetime
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since > oldest and not connection.is_stale():
                return connection
            connection.close()
            self._connections.discard(connection)
            logger.debug("%s: idle connection was stale", self.origin)
        return None

    def _close_idle(self, connections: list[Connection]) -> None:
        for connection in list(connections):
            self._idle.remove(connection)
            self._connections.discard(connection)
            connection.close()
            logger.debug("%s: idle connection closed", self.origin)

    async def _open(self) -> Connection:
        origin = self.origin
        timeout = self._connect_timeout
        deadline = math.inf if timeout is None else anyio.current_time() + timeout
        sock = None
        scope = anyio.CancelScope(deadline=deadline)
        self._dials.add(scope)
        try:
            with scope:
                sock = await dial(origin.host, origin.port)
        except OSError as exc:
            text = exc.strerror or str(exc)
            raise ConnectError(f"cannot connect to {origin}: {text}") from exc
        finally:
            self._dials.discard(scope)
        if self._closed:
            if sock is not None:
                sock.close()
            raise self._closed_error()
        if sock is None:
            raise ConnectError(f"cannot connect to {origin}: no connection within {timeout:g} s")
        connection = Connection(Wire(sock, self._traffic, self._watch), origin, self._end)
        self._connections.add(connection)
        self._opened += 1
        logger.debug("%s: connection opened, %d now", origin, len(self._connections))
        return connection

    def _closed_error(self) -> ConnectError:
        return ConnectError(f"the connections to {self.origin} are closed on this side")
