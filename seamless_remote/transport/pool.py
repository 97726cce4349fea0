"""A bounded set of connections to one origin, shared by all loops of the process."""

from __future__ import annotations

import logging
import socket
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from anyio.lowlevel import checkpoint_if_cancelled

from ..errors import ConnectError
from ..nursery.bound import Bound
from ..nursery.calls import Call
from ..nursery.deadline import TimeLimit
from ..settings import Settings
from .connection import ClosedBeforeAnswerError, Connection, State
from .dialing import dial
from .messages import Request, Response, Stage
from .own_limits import connect_error
from .proxy import open_tunnel
from .socket_io import SocketIO, Traffic
from .tls import handshake
from .urls import Origin, is_loopback, parse_url

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """A pool at one moment: connections in use and idle, requests that wait for one (`bound` is
    how many may be in use, 0: any number), and totals since its start, in bytes for the last two.
    """

    origin: str
    lane: str
    bound: int
    in_use: int
    idle: int
    waiting: int
    opened: int
    bytes_sent: int
    bytes_received: int


class Pool:
    """Connections to one origin, at most `bound` in use at once (0: no bound).

    Requests that find none free wait their turn, first come first served over all loops. The last
    one given back is used first. A connection belongs to the request that uses it, and to no loop
    while it is idle. `may_keep` says whether somebody looks after idle ones; if not, they are
    closed.
    """

    # No lock guards the idle connections: each step is one operation of a list, which is atomic
    # (without the GIL, too), and a destructor may take such a step at any moment.

    def __init__(self, origin: Origin, lane: str, bound: int, may_keep: Callable[[], bool]) -> None:
        self.origin = origin
        self.lane = lane
        self.places = bound
        self.bound = Bound(bound)
        self.used_at = time.monotonic()
        self._may_keep = may_keep
        self._idle: list[Connection] = []
        self._open_ones: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._lock = threading.RLock()
        """Held while connections are added to those, or listed."""
        self._retired = False
        self._opened = 0
        self._traffic = Traffic()

    async def send(
        self,
        call: Call,
        request: Request,
        read_timeout: float | None,
        patience: float | None = None,
    ) -> Response:
        """Send `request` when its turn comes, and return the answer (see `Connection.exchange`).

        A request that a reused connection lost before the answer began is sent once more on a new
        connection, if it is `safe` or if nothing of it was sent. Raises ConnectError if no
        connection comes about within the connect timeout.
        """
        if request.method != "GET" or not request.safe:
            # A GET that is sent in vain costs its connection. To check each time would cost as much
            # as sending it.
            await checkpoint_if_cancelled()
        self._retired = False
        call.waits_for = request
        share = self.bound.take_now(call.loop)
        if share is None:
            request.stage = Stage.QUEUED
            share = await self.bound.take(call.loop)
        try:
            if request.stage is Stage.QUEUED and request.before_sending is not None:
                request.before_sending()
            response = None
            connection = self._reusable(call.settings.idle_connection_lifetime)
            if connection is not None:
                try:
                    response = await connection.exchange(request, call.loop, read_timeout, patience)
                except (ConnectError, ClosedBeforeAnswerError) as exc:
                    # A ConnectError here says that nothing was sent.
                    if not (request.safe or isinstance(exc, ConnectError)):
                        raise
                    logger.debug("%s: %s; sent again on a new connection", self.origin, exc)
                    if request.before_sending is not None:
                        request.before_sending()
            if connection is None or response is None:  # without a connection, there is none either
                request.stage = Stage.CONNECTING
                connection = await self._open(call.settings)
                response = await connection.exchange(request, call.loop, read_timeout, patience)
        except BaseException:
            self.bound.give_back(share)
            raise
        connection.share = share
        if response.has_all:
            self._end(connection)
        return response

    def resize(self, places: int) -> None:
        """Change the bound; what is in use stays."""
        self.places = places
        self.bound.resize(places)

    def retire(self) -> None:
        """Close the idle connections, and those in use when they are done with.

        The next request to come is of somebody who wants connections kept again.
        """
        self._retired = True
        self.close_idle()

    def close_idle(self, older_than: float = 0.0) -> None:
        """Close the connections that have been idle for so many seconds."""
        oldest = time.monotonic() - older_than
        for connection in tuple(self._idle):
            if connection.idle_since > oldest:
                continue
            try:
                self._idle.remove(connection)
            except ValueError:
                continue  # somebody has borrowed it in between
            connection.close()
            logger.debug("%s: idle connection closed", self.origin)

    def cut(self) -> None:
        """End all connections, under whoever uses them."""
        self.close_idle()
        with self._lock:
            connections = list(self._open_ones)
        for connection in connections:
            connection.cut()

    def snapshot(self) -> PoolSnapshot:
        """The pool as plain data."""
        bound = self.bound.snapshot()
        return PoolSnapshot(
            origin=str(self.origin),
            lane=self.lane,
            bound=bound.bound,
            in_use=bound.in_flight,
            idle=len(self._idle),
            waiting=bound.waiting,
            opened=self._opened,
            bytes_sent=self._traffic.sent,
            bytes_received=self._traffic.received,
        )

    def _reusable(self, lifetime: float) -> Connection | None:
        """An idle connection that is neither too old nor closed by the server; None without one."""
        oldest = time.monotonic() - lifetime
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            # Always checked: what a server said unasked would be taken for the next answer.
            if connection.idle_since > oldest and not connection.is_stale():
                return connection
            connection.close()
            logger.debug("%s: idle connection was stale", self.origin)

    def _end(self, connection: Connection) -> None:
        """An exchange is over: keep its connection if it can serve again, and free its place."""
        # Before anything else: once it is in the list, the next borrower sets a share of its own.
        share, connection.share = connection.share, None
        assert share is not None
        if connection.state is State.IDLE:
            connection.idle_since = self.used_at = time.monotonic()
            self._idle.append(connection)
            # In this order: who stops keeping connections closes the idle ones after that.
            if self._retired or not self._may_keep():
                self.close_idle()
        # After the connection, so that the next in line finds it.
        self.bound.give_back(share)

    async def _open(self, settings: Settings) -> Connection:
        origin = self.origin
        with TimeLimit(settings.connect_timeout) as limit:
            try:
                sock = await _connected(origin, settings.proxy)
            except OSError as exc:
                raise connect_error(f"cannot connect to {origin}", exc) from exc
        if limit.expired:
            raise ConnectError(
                f"cannot connect to {origin}: no connection within {settings.connect_timeout:g} s"
            )
        self._opened += 1
        logger.debug("%s: connection opened", origin)
        connection = Connection(SocketIO(sock, self._traffic), origin, self._end)
        with self._lock:
            self._open_ones.add(connection)
        return connection


async def _connected(origin: Origin, proxy: str | None) -> socket.socket:
    """A socket that leads to an origin, through a proxy if one is named, with TLS for https."""
    if proxy is None or is_loopback(origin.host):
        sock = await dial(origin.host, origin.port)
    else:
        sock = await _dialed_by_proxy(origin, proxy)
    return await handshake(sock, origin.name) if origin.scheme == "https" else sock


async def _dialed_by_proxy(origin: Origin, proxy: str) -> socket.socket:
    try:
        by, _ = parse_url(proxy)
    except ValueError as exc:
        raise OSError(f"the proxy that the settings name cannot be used: {exc}") from exc
    if by.scheme != "http":
        raise OSError(f"only http:// proxies are supported, not {proxy}")
    try:
        sock = await dial(by.host, by.port)
    except OSError as exc:
        raise OSError(f"its proxy {by} cannot be reached: {exc.strerror or exc}") from exc
    await open_tunnel(sock, by.authority, origin.name, origin.port)
    return sock
