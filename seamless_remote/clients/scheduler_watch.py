"""The watch over a launched Dask scheduler: pings it, and has it launched again when it is gone."""

from __future__ import annotations

import json
import logging
import math
import time

import anyio

from ..errors import ConnectError, ServiceError
from ..nursery.calls import Call
from ..nursery.waiter import wait_for, waiter_in
from ..transport.messages import Request
from ..transport.urls import parse_url
from .base import ANSWER_LIMIT, CONTROL_LANE
from .connections import connections
from .dask_connection import SchedulerConnection
from .daskserver import DaskserverLaunchedHandle
from .worker_wait import Load, WorkerWait

logger = logging.getLogger(__name__)

BUSY_INTERVAL = 5.0
"""Seconds between two looks at the scheduler while jobs of this process are there."""

SETTLED = 60.0
"""Seconds after which a connection counts as one that lasts."""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds before a renewal after one that failed, or that did not last; doubled each time."""


async def watch(handle: DaskserverLaunchedHandle, call: Call) -> None:
    """Watch over a scheduler until cancelled. The renewals themselves run in worker threads."""
    watching = _Watch(handle)
    while True:
        # Made before the look, so that no change is missed.
        changed = handle.wakes = waiter_in(call.loop)
        pause = await watching.step(call)
        with anyio.move_on_after(pause):
            await changed.wait()


class _Watch:
    """What the watch remembers from one step to the next."""

    def __init__(self, handle: DaskserverLaunchedHandle) -> None:
        self.handle = handle
        self._wait = WorkerWait(handle.name)
        self._failures = 0
        self._renew_at = 0.0
        self._looked_at = -math.inf

    async def step(self, call: Call) -> float:
        """Do what is due; how many seconds until the next step, unless something happens."""
        handle = self.handle
        connection = handle.connection
        if connection is not None:
            self._took_up(connection)
            keepalive = call.settings.keepalive_interval
            busy = connection.pending() or self._wait.said is not None
            interval = min(BUSY_INTERVAL, keepalive) if busy else keepalive
            pause = self._looked_at + interval - time.monotonic()
            if pause > 0:
                return pause
            self._looked_at = time.monotonic()
            await self._look(call, connection)
            return 0.0
        if not handle.needs_renewal:
            return math.inf
        pause = self._renew_at - time.monotonic()
        if pause > 0:
            return pause
        self._failures += 1
        self._renew_at = time.monotonic() + min(
            LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 10)
        )
        try:
            await wait_for(handle.renew())
        except Exception as exc:
            # The launch's own errors, and any that Dask has for a scheduler that does not work. A
            # call meets the same error; the watch tries again.
            if handle.needs_renewal:  # the stage may have been left meanwhile
                logger.warning("could not bring %s back: %s", handle.health.name, exc)
        return 0.0

    def _took_up(self, connection: SchedulerConnection) -> None:
        if time.monotonic() - connection.opened_at > SETTLED:
            self._failures = 0
            self._renew_at = 0.0

    async def _look(self, call: Call, connection: SchedulerConnection) -> None:
        """Ping the scheduler, and find out whether the work of this process waits for workers."""
        handle = self.handle
        if connection.http is None:
            return
        jobs = connection.pending()
        started = time.perf_counter()
        try:
            load = await _ask(call, connection.http)
        except ConnectError as exc:
            # Nobody listens at the dashboard's port. The scheduler's own port decides; nothing
            # happens to a connection whose scheduler still listens there.
            logger.info("the dashboard of %s: %s", handle.health.name, exc)
            await wait_for(handle.renew())
        except ServiceError as exc:
            # No answer in time: its loop is busy, or it is stopped. That is known, and no more.
            handle.health.failure(exc)
        else:
            handle.health.success(time.perf_counter() - started)
            if load is not None:
                handle.workers = load.workers
                await self._wait.note(connection.launched, jobs, load)
                handle.waits_for = self._wait.said


async def _ask(call: Call, url: str) -> Load | None:
    """Ask the scheduler for its load over HTTP, which the loop that does all its work answers.

    None if it does not tell. ServiceError: it does not answer within the healthcheck timeout.
    """
    origin, path = parse_url(url)
    response = await connections.transport.send(
        call,
        Request("GET", f"{path}/json/counts.json"),
        origin,
        lane=CONTROL_LANE,
        read_timeout=call.settings.healthcheck_timeout,
        bound=call.settings.max_connections,
    )
    body = await response.read(ANSWER_LIMIT)
    if response.status != 200:
        return None
    try:
        counts = json.loads(body)
        return Load(int(counts["workers"]), int(counts["unrunnable"]))
    except (ValueError, KeyError, TypeError):
        logger.debug("the scheduler at %s does not tell its load: %r", url, body[:200])
        return None
