"""The handle of a launched Dask scheduler: launched, connected to, and launched again if it dies.

Its states: not active; active and connected; active with the connection lost or not yet made; and
a renewal under way, which all who need the connection wait for. A renewal runs in a worker thread,
for it launches, and speaks to Dask, whose interface is synchronous.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import weakref
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import LaunchError, ServiceError
from ..launching.launch import Launch
from ..launching.placement import Placement
from ..nursery.process import attend, start_worker
from ..nursery.waiter import Waiter
from .dask_connection import SchedulerConnection
from .dask_gateway import Gateway
from .health import HealthRecord
from .scheduler_probe import Evidence

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""How many schedulers may be found dead in a row before a renewal fails."""


@dataclass(frozen=True, slots=True)
class DaskserverSnapshot:
    """A Dask scheduler: where it is, how it is, and how its jobs are.

    `restarts` counts how often it was launched again. `workers` and `waits_for` are
    as of the last look: None if it has not been asked, and why its jobs wait for workers.
    """

    name: str
    address: str | None
    dashboard: str | None
    health: str
    restarts: int
    jobs: int
    workers: int | None
    waits_for: str | None
    last_error: str | None


class DaskserverLaunchedHandle:
    """A launched Dask scheduler and the connection to it. Any thread may use it."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self.name = str(placement)
        self.health = HealthRecord(f"the daskserver of {placement}")
        self.restarts = 0
        self.workers: int | None = None
        self.waits_for: str | None = None
        self.wakes: Waiter | None = None
        """Woken when there is something to do for the task that watches the scheduler."""
        self._launch = placement.launch("daskserver", substage=True)
        self._lock = threading.Lock()
        self._active = False
        self._in_use = False
        self._connection: SchedulerConnection | None = None
        self._opening: SchedulerConnection | None = None
        self._renewal: Future[SchedulerConnection] | None = None
        self._last_error: str | None = None
        self._has_connected = False
        self._gateway = Gateway(self.acquire, lambda: self._connection)
        _handles.add(self)

    @property
    def scheduler_address(self) -> str | None:
        """The scheduler's `tcp://` address; None if it is not known."""
        connection = self._connection
        return None if connection is None else connection.address

    @property
    def connection(self) -> SchedulerConnection | None:
        """The connection, unless it has ended."""
        connection = self._connection
        return None if connection is None or connection.has_ended else connection

    @property
    def needs_renewal(self) -> bool:
        """Whether it is active and in use, but not connected."""
        return self._active and self._in_use and self.connection is None

    def ensure_initialized(self) -> None:
        """Launch the scheduler if need be, connect to it, and hand the client to seamless-dask.

        The calling thread waits.

        Raises:
            LaunchError: it could not be launched, or not without a conda environment.
            ServiceError: it does not answer in time; the message names its log.
        """
        self._active = True
        self.acquire()
        from seamless_dask.transformer_client import set_seamless_dask_client

        set_seamless_dask_client(self._gateway)

    def acquire(self) -> SchedulerConnection:
        """The open connection, made anew if need be; the calling thread waits for that.

        Raises as `ensure_initialized` does; ServiceError if the stage was left.
        """
        self._in_use = True
        connection = self.connection or self.renew().result()
        attend()
        return connection

    def renew(self) -> Future[SchedulerConnection]:
        """Have a connection made, unless there is one to a scheduler that listens. Does not block.

        All who ask meanwhile get the same future. ServiceError if it is not active.
        """
        with self._lock:
            if not self._active:
                raise ServiceError(self._left())
            renewal = self._renewal
            if renewal is not None:
                return renewal
            renewal = self._renewal = Future()
        try:
            start_worker(f"connection to {self._launch.name}", partial(self._run, renewal))
        except RuntimeError:
            # No thread can be started while the interpreter exits.
            self._run(renewal)
        return renewal

    def close(self) -> None:
        """Disconnect, and take the client back from seamless-dask. Safe to call twice.

        Takes a few seconds at most: a launch under way goes on, and nobody connects to it.
        """
        with self._lock:
            self._active = self._in_use = False
            renewal, self._renewal = self._renewal, None
            connection, self._connection = self._connection, None
            opening, self._opening = self._opening, None
            self.workers = self.waits_for = None
        if renewal is not None:
            with suppress(InvalidStateError):
                renewal.set_exception(ServiceError(self._left()))
        self._take_back()
        for each in (connection, opening):
            if each is not None:
                each.close(self._left())

    def snapshot(self) -> DaskserverSnapshot:
        """The scheduler as plain data."""
        connection = self._connection
        return DaskserverSnapshot(
            name=type(self).__name__,
            address=None if connection is None else connection.address,
            dashboard=None if connection is None else connection.dashboard,
            health=self.health.state.value,
            restarts=self.restarts,
            jobs=0 if connection is None else connection.pending(),
            workers=self.workers,
            waits_for=self.waits_for,
            last_error=self._last_error,
        )

    def after_fork_in_child(self) -> None:
        """The connection is the parent's. The next use makes one to the same scheduler."""
        self._lock = threading.Lock()
        self._launch.after_fork_in_child()
        self.health = HealthRecord(self.health.name)
        self.wakes = None
        self._renewal = None
        self._in_use = False
        for each in (self._connection, self._opening):
            if each is not None:
                each.abandon()
                _abandoned.append(each)
        self._connection = self._opening = None

    def _left(self) -> str:
        return (
            f"the stage of {self._launch.name} was left, or Seamless closed, on this side; Dask "
            "cancels the jobs that no client waits for"
        )

    def _run(self, renewal: Future[SchedulerConnection]) -> None:
        """Carry a renewal out, and tell those who wait for it."""
        try:
            connection = self._renewed(renewal)
        except BaseException as exc:
            # Clear it before waking those who wait: their next attempt begins another one.
            with self._lock:
                kept = self._renewal is renewal
                if kept:
                    self._renewal = self._opening = None
                    self._last_error = str(exc)
            if kept:
                self.health.mark_down(_first_line(exc))
            with suppress(InvalidStateError):
                renewal.set_exception(exc)
            if not isinstance(exc, Exception):
                raise
            return
        with self._lock:
            # It may have been closed meanwhile, or even activated again.
            kept = self._renewal is renewal
            if kept:
                self._connection, self._renewal, self._opening = connection, None, None
                self._last_error = None
        if not kept:
            connection.close(self._left())
            return
        renewal.set_result(connection)
        self._wake()

    def _renewed(self, renewal: Future[SchedulerConnection]) -> SchedulerConnection:
        former = self._connection
        if former is not None:
            evidence, words = former.diagnose()
            if evidence is not Evidence.GONE and not former.has_ended:
                return former
            # It was lost before Dask has noticed, if it ended itself in good order.
            former.lose(evidence, words)
            self.health.mark_down(words)
            former.close(self._left())
            if evidence is Evidence.SILENT:
                raise former.unanswered(evidence, words)
            if evidence is Evidence.GONE:
                self._launch.drop(former.launched)
        _require_conda_or_local(self._launch)
        connection = self._connected_to_a_living_one(renewal)
        if former is not None and connection.launched is not former.launched:
            self.restarts += 1
        return connection

    def _connected_to_a_living_one(
        self, renewal: Future[SchedulerConnection]
    ) -> SchedulerConnection:
        """Connect; again if the scheduler that was known has died, or a new one has meanwhile."""
        for _ in range(ATTEMPTS - 1):
            try:
                return self._connected(renewal)
            except ServiceError as exc:
                if self._launch.current() is not None or isinstance(exc, LaunchError):
                    raise
                logger.warning("%s", _first_line(exc))
        return self._connected(renewal)

    def _connected(self, renewal: Future[SchedulerConnection]) -> SchedulerConnection:
        """Connect to the scheduler, launching it if need be. One that is gone is forgotten."""
        self._require_wanted(renewal)
        launched = self._launch.ensure()
        connection = SchedulerConnection(self.name, launched, self._wake)
        self._require_wanted(renewal, connection)
        try:
            self._open(connection)
        except BaseException:
            connection.close(self._left())
            if connection.diagnose()[0] is Evidence.GONE:
                self._launch.drop(launched)
            raise
        return connection

    def _require_wanted(
        self, renewal: Future[SchedulerConnection], opening: SchedulerConnection | None = None
    ) -> None:
        """ServiceError if the stage was left; `opening` is closed if it is left from now on."""
        with self._lock:
            if self._renewal is not renewal:
                raise ServiceError(self._left())
            self._opening = opening

    def _open(self, connection: SchedulerConnection) -> None:
        from seamless_config import collect_remote_clients

        parameters = connection.launched.launch_dict["file_parameters"]
        # The first time, seamless-dask shows that it waits for workers; not amid a user's program.
        interactive = bool(parameters.get("interactive")) and not self._has_connected
        started = time.perf_counter()
        connection.open(collect_remote_clients(self.placement.cluster), interactive=interactive)
        self._has_connected = True
        self.health.success(time.perf_counter() - started)
        logger.info(
            "connected to the Dask scheduler at %s; its dashboard is at %s",
            connection.address,
            connection.dashboard,
        )

    def _wake(self) -> None:
        waiter = self.wakes
        if waiter is not None and not waiter.woken:
            waiter.wake()

    def _take_back(self) -> None:
        module = sys.modules.get("seamless_dask.transformer_client")
        if module is not None and module.get_seamless_dask_client() is self._gateway:
            module.set_seamless_dask_client(None)


def _first_line(failure: BaseException) -> str:
    """What an error says, without the lines of a log at its end."""
    return (str(failure).splitlines() or [repr(failure)])[0]


def _require_conda_or_local(launch: Launch) -> None:
    launch_dict = launch.configure()
    if not launch_dict.get("conda") and launch_dict.get("hostname") is not None:
        raise LaunchError(
            f"{launch.name} runs on {launch_dict['hostname']}, where it needs a conda environment: "
            "give the cluster's queue a 'conda' entry (only a local cluster can do without)"
        )


_handles: weakref.WeakSet[DaskserverLaunchedHandle] = weakref.WeakSet()
_abandoned: list[Any] = []
"""The parent's connections. Kept alive: collecting a loop closes it, and would take the parent's
own wake-up out of the selector that the two processes share."""


def _after_fork_in_child() -> None:
    for handle in list(_handles):
        handle.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
