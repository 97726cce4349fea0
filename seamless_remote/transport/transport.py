"""All the connections of one event loop, by origin and by lane."""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING

from seamless_remote.errors import ConnectError

from .messages import Origin, Request, Response
from .pool import Pool, PoolStatistics
from .silence import SilenceWatch

if TYPE_CHECKING:
    from .secure import SecureClient


@dataclass(frozen=True, slots=True)
class TransportStatistics:
    """The pools of a transport at one moment, by (origin, lane); https origins are not counted."""

    pools: dict[tuple[Origin, str], PoolStatistics]
    retiring: int


class Transport:
    """Sends requests to any origin, over connections that it keeps. For the tasks of one loop.

    No redirects are followed, nothing is decoded, and http goes through no proxy. Times are in
    seconds (`connect_timeout` None: no limit); `max_connections` bounds each pool.
    """

    def __init__(
        self, *, connect_timeout: float | None, max_connections: int, idle_lifetime: float
    ) -> None:
        self._connect_timeout = connect_timeout
        self._max_connections = max_connections
        self._idle_lifetime = idle_lifetime
        self._watch = SilenceWatch()
        self._pools: dict[tuple[Origin, str], Pool] = {}
        self._secure: dict[tuple[Origin, str], SecureClient] = {}
        self._secure_retiring: list[SecureClient] = []
        self._retiring: list[Pool] = []
        self._closed = False

    def send(
        self,
        request: Request,
        origin: Origin,
        *,
        lane: str,
        read_timeout: float | None,
        bound: int | EllipsisType | None = ...,
    ) -> Awaitable[Response]:
        """Send `request` to `origin`, and return the answer when its head has come.

        Requests of one lane share a pool, of at most `bound` connections (None: no bound; by
        default the transport's): the bound of the first request stands. The caller must close the
        response (`async with`); reading it to the end does so. `read_timeout` bounds silence: the
        time, in seconds, in which no byte is received or, while sending, taken by the kernel. It
        does not run while the request waits for a connection.

        Raises ConnectError when the request was not sent at all, else ServiceTimeout,
        ProtocolError or another ExchangeError; ValueError for a malformed request. Cancelling
        closes the request's connection and frees its place.
        """
        pool = self._pools.get((origin, lane))
        if pool is None:
            if self._closed:
                raise ConnectError(f"the connections to {origin} are closed on this side")
            size = self._max_connections if isinstance(bound, EllipsisType) else bound
            if origin.scheme == "https":
                return self._send_securely(request, origin, lane, read_timeout, size)
            pool = self._pools[origin, lane] = Pool(
                origin,
                bound=size,
                connect_timeout=self._connect_timeout,
                idle_lifetime=self._idle_lifetime,
                watch=self._watch,
            )
        return pool.send(request, read_timeout)

    async def keep_timeouts(self) -> None:
        """Keep the read timeouts of all requests, in this one task, until cancelled.

        Optional, for a transport that lives long: where nobody runs it, each request keeps its
        own, and costs half as much CPU again.
        """
        await self._watch.run()

    def release(self, origins: Collection[Origin]) -> None:
        """Keep connections to `origins` only: others are closed, those in use when done with.

        Idle https connections go with the next https request, or with `aclose`. Does not block.
        """
        for key in [key for key in self._pools if key[0] not in origins]:
            pool = self._pools.pop(key)
            pool.retire()
            self._retiring.append(pool)
        for key in [key for key in self._secure if key[0] not in origins]:
            self._secure_retiring.append(self._secure.pop(key))
        self._prune()

    def expire(self) -> None:
        """Close the connections that have been idle for too long, or that servers have closed.

        To be called now and then. Does not block.
        """
        for pool in self._pools.values():
            pool.expire()
        self._prune()

    def statistics(self) -> TransportStatistics:
        """The counters as they stand."""
        self._prune()
        pools = {key: pool.statistics() for key, pool in self._pools.items()}
        return TransportStatistics(pools, len(self._retiring))

    async def aclose(self) -> None:
        """Close every connection at once, also those in use (see `Pool.aclose`).

        Requests after that raise ConnectError. May be called twice.
        """
        self._closed = True
        pools = [*self._pools.values(), *self._retiring]
        secure = [*self._secure.values(), *self._secure_retiring]
        self._pools = {}
        self._retiring = []
        self._secure = {}
        self._secure_retiring = []
        for pool in pools:
            await pool.aclose()
        for client in secure:
            await client.aclose()

    async def _send_securely(
        self,
        request: Request,
        origin: Origin,
        lane: str,
        read_timeout: float | None,
        bound: int | None,
    ) -> Response:
        from .secure import SecureClient

        client = self._secure.get((origin, lane))
        if client is None:
            client = self._secure[origin, lane] = SecureClient(
                origin,
                bound=bound,
                connect_timeout=self._connect_timeout,
                idle_lifetime=self._idle_lifetime,
            )
        for retired in [client for client in self._secure_retiring if client.is_unused]:
            self._secure_retiring.remove(retired)
            await retired.aclose()
        return await client.send(request, read_timeout)

    def _prune(self) -> None:
        self._retiring = [pool for pool in self._retiring if not pool.is_unused]
