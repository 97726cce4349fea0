"""All the connections of the process, by origin and by lane."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Collection

from ..nursery.calls import Call
from .messages import Request, Response
from .pool import Pool, PoolSnapshot
from .urls import Origin

FORGET_AFTER = 600.0
"""Seconds after which a pool that nobody uses is forgotten: services come and go at new ports."""


class Transport:
    """Sends requests to any origin, for tasks of any loop, over connections that it keeps.

    It follows no redirects and decodes nothing. `may_keep` says whether somebody calls `expire` now
    and then; if not, no connection is kept.
    """

    def __init__(self, may_keep: Callable[[], bool]) -> None:
        self._may_keep = may_keep
        self._pools: dict[tuple[Origin, str], Pool] = {}
        # Held while pools are added and forgotten; a look-up needs none.
        self._lock = threading.RLock()

    def send(
        self,
        call: Call,
        request: Request,
        origin: Origin,
        *,
        lane: str,
        read_timeout: float | None,
        bound: int,
        patience: float | None = None,
    ) -> Awaitable[Response]:
        """Send `request` to `origin`, and return the answer when its head has come.

        Requests of one lane share a pool, with at most `bound` connections in use (0: any number);
        the last one's bound counts.
        The caller must close the response (`async with`); reading it to the end does so.
        `read_timeout` bounds silence: the time, in seconds, in which no byte is received or, while
        sending, taken by the kernel. It does not run while the request waits for a connection.
        With `patience`, the response is pending if its head has not come in so many seconds.

        Raises ConnectError if the request was not sent at all, else ServiceTimeout, ProtocolError
        or another ExchangeError; ValueError for a malformed request. Cancelling closes the
        request's connection and frees its place.
        """
        pool = self._pools.get((origin, lane)) or self._add_pool(origin, lane, bound)
        if pool.places != bound:
            pool.resize(bound)
        return pool.send(call, request, read_timeout, patience)

    def release(self, origins: Collection[Origin]) -> None:
        """Keep connections to `origins` only: close others, those in use when they are done with.

        Later requests to other origins are served as ever. Does not block.
        """
        for pool in self._all():
            if pool.origin not in origins:
                pool.retire()

    def cut(self, origin: Origin) -> None:
        """End all connections to an origin, at once, under whoever uses them: its path is lost.

        What waits for an answer sees a broken connection. Does not block.
        """
        for pool in self._all():
            if pool.origin == origin:
                pool.cut()

    def expire(self, lifetime: float) -> None:
        """Close the connections that have been idle for so many seconds.

        To be called now and then. Does not block.
        """
        forget_before = time.monotonic() - max(FORGET_AFTER, lifetime)
        for pool in self._all():
            pool.close_idle(lifetime)
            if pool.bound.unused and pool.used_at < forget_before:
                with self._lock:
                    self._pools.pop((pool.origin, pool.lane), None)

    def close_idle(self) -> None:
        """Close all idle connections. Does not block."""
        for pool in self._all():
            pool.close_idle()

    def snapshot(self) -> tuple[PoolSnapshot, ...]:
        """The pools as plain data."""
        return tuple(pool.snapshot() for pool in self._all())

    def _add_pool(self, origin: Origin, lane: str, bound: int) -> Pool:
        with self._lock:
            pool = self._pools.get((origin, lane))
            if pool is None:
                pool = self._pools[origin, lane] = Pool(origin, lane, bound, self._may_keep)
            return pool

    def _all(self) -> list[Pool]:
        with self._lock:
            return list(self._pools.values())
