"""The one place of process-wide state: which nursery is current, and what belongs in it.

A host's nursery is current while it is open. Otherwise a hosted one is started when something needs
looking after: a call's connections, or the clients of an activation.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import TypeVar

from ..errors import NurseryOpenError
from ..settings import Settings, enable_debug_logging
from .bound import Bound
from .calls import Calls
from .event_loops import claim_backend, running_loop
from .hosted_thread import HostedThread
from .nursery import RemoteNursery, run_nursery
from .service import Resource, Service
from .shared_work import SharedWork

logger = logging.getLogger(__name__)

T = TypeVar("T")

WORKERS_PATIENCE = 2.0
"""Seconds after which `close()` does not wait for worker threads any more: one may be launching a
service, which takes longer if that does not start."""


class Process:
    """What this process holds. The lock guards every change, and is never held over a wait."""

    def __init__(self) -> None:
        # Reentrant, for the collector may run a destructor that comes here.
        self.lock = threading.RLock()
        self.settings: Settings | None = None
        self.nursery: RemoteNursery | None = None
        self.hosted: set[HostedThread] = set()
        """Those whose threads have not ended: of the current nursery, and of those that end."""
        self.services: dict[str, Service] = {}
        self.former_services: set[Service] = set()
        """Those that were replaced while a nursery was open, until one has seen them off."""
        self.resources: list[Resource] = []
        self.calls = Calls()
        self.limiter = Bound(Settings().database_max_inflight, "database limiter")
        self.jobs = Bound(0, "jobs")
        self.shared = SharedWork()
        self.workers: set[threading.Thread] = set()
        self.resting = False
        """Whether `close()` was called under a host's nursery: services start at the next call."""
        self.exiting = False
        self.parent: Process | None = None

    def services_for(self, nursery: RemoteNursery) -> Sequence[Service] | None:
        """See `nursery.Owner`."""
        with self.lock:
            if self.nursery is not nursery:
                return None
            return [] if self.resting else list(self.services.values())

    def replaced(self) -> Collection[Service]:
        """See `nursery.Owner`."""
        with self.lock:
            return set(self.former_services)

    def seen_off(self, services: Collection[Service]) -> None:
        """See `nursery.Owner`."""
        with self.lock:
            self.former_services.difference_update(services)


_process = Process()


def this_process() -> Process:
    """What the process holds; a forked child has its own."""
    return _process


def settings() -> Settings:
    """The settings in force: the current nursery's, or the environment's, read once."""
    nursery = _process.nursery
    if nursery is not None:
        return nursery.settings
    if _process.settings is None:
        _process.settings = Settings.from_environment()
        enable_debug_logging(_process.settings)
    return _process.settings


def current_nursery() -> RemoteNursery | None:
    """The remote nursery that is open in this process, a host's or the hosted one, or None."""
    return _process.nursery


@asynccontextmanager
async def open_nursery(settings: Settings | None = None) -> AsyncIterator[RemoteNursery]:
    """Open the process's remote nursery in the running loop (asyncio or trio).

    It takes the services over from a hosted nursery, without a pause, and touches no call. Leaving
    the block gives the calls of this loop a grace period, jobs apart, then cancels them (their
    callers get a NurseryClosedError). Those of other loops go on, on a hosted nursery. If there are
    none, all idle connections are closed. A cancellation of the block waits for that too.

    Args:
        settings: what is in force while it is open; the environment's by default.

    Raises:
        NurseryOpenError: a host's nursery is open already.
    """
    chosen = Settings.from_environment() if settings is None else settings
    enable_debug_logging(chosen)
    nursery = RemoteNursery(chosen, _process, hosted=False)
    claim_backend(running_loop())
    _make_current(nursery)
    try:
        async with run_nursery(nursery):
            try:
                yield nursery
            finally:
                _pass_on(nursery)
    finally:
        _pass_on(nursery)
        _let_go_unless_attended()


def attend() -> None:
    """Have a nursery look after what a call is about to use. Does not wait for it."""
    process = _process
    nursery = process.nursery
    if nursery is None or process.resting or not nursery.is_open:
        with process.lock:
            _attended(process)


def is_attended() -> bool:
    """Whether a nursery looks after idle connections."""
    process = _process
    return process.nursery is not None and not process.resting


def install(service: Service) -> None:
    """Put a service in place of the one of its name, from any thread. Does not wait for its start.

    It starts in the current nursery. If none is open, a hosted one is started, unless the service
    has nothing to run.
    """
    process = _process
    with process.lock:
        former = process.services.get(service.name)
        process.services[service.name] = service
        nursery = _open_nursery(process)
        if nursery is None and service.tasks():
            _start_hosted(process)
        # Without a nursery, no connections are kept.
        if former is not None and process.nursery is not None:
            process.former_services.add(former)
    if nursery is not None:
        nursery.rearrange()


def adopt(resource: Resource) -> None:
    """Have every nursery from now on look after a resource."""
    _process.resources.append(resource)


def start_worker(name: str, work: Callable[[], None]) -> None:
    """Run `work` on a thread of its own, a daemon that `close()` waits for.

    RuntimeError: the interpreter is ending, and starts no threads.
    """
    process = _process
    worker = threading.Thread(target=work, name=f"seamless-remote {name}", daemon=True)
    with process.lock:
        process.workers = set(filter(threading.Thread.is_alive, process.workers))
        worker.start()
        process.workers.add(worker)


def outcome_of_worker(name: str, work: Callable[[], T]) -> Future[T]:
    """Run `work` as `start_worker` does, or in this thread where no thread can be started."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as exc:
            future.set_exception(exc)

    try:
        start_worker(name, run)
    except RuntimeError:
        run()
    return future


def close() -> None:
    """Give up everything that the clients hold: calls, connections, pings, the thread.

    From any thread; safe to repeat, and with nothing open. `seamless.close()` calls this after it
    has marked Seamless closed. Jobs are cancelled at once, and canceled at their servers, which
    takes two seconds at most. The other calls under way, in whatever loops, get the grace period
    before they are cancelled. Their callers get a NurseryClosedError. The calling thread waits for
    that, but not for calls of a loop that it runs itself, or of one that has stopped: those end
    when that loop turns again.

    Clients stay registered, and their next call (Seamless can be reopened) opens what it needs
    again. A host's nursery stays the host's: its services stop until that next call.
    """
    process = _process
    grace = settings().grace_period
    started = time.monotonic()
    with process.lock:
        hosted = list(process.hosted)
        nursery = process.nursery
        if nursery is not None and nursery.hosted:
            process.nursery = nursery = None
        process.resting = nursery is not None
        workers = process.workers - {threading.current_thread()}
    for thread in hosted:
        thread.tell_to_stop()
    if nursery is not None:
        nursery.rearrange()
    process.calls.end_all(grace)
    for thread in hosted:
        thread.join()
    _let_go_unless_attended()
    if not process.exiting:
        for worker in workers:
            worker.join(max(0.0, started + WORKERS_PATIENCE - time.monotonic()))


def _make_current(nursery: RemoteNursery) -> None:
    """Make a host's nursery current; a hosted one that it replaces ends by itself."""
    process = _process
    with process.lock:
        former = _open_nursery(process)
        if former is not None and not former.hosted:
            raise NurseryOpenError(
                "a remote nursery is open in this process already; "
                "use seamless_remote.current_nursery(), or leave its block first"
            )
        process.nursery = nursery
        process.resting = False
        process.limiter.resize(nursery.settings.database_max_inflight)
        hosted = list(process.hosted)
    for thread in hosted:
        thread.tell_to_stop()


def _pass_on(nursery: RemoteNursery) -> None:
    """A host's nursery ends: the calls of other loops go on, on a hosted one."""
    process = _process
    # The collector may come here, with a host's loop that was dropped and replaced, in a thread
    # that is being started; whoever starts it holds the lock.
    if process.nursery is not nursery:
        return
    with process.lock:
        if process.nursery is not nursery:
            return
        process.nursery = None
        process.resting = False
        process.limiter.resize(settings().database_max_inflight)
        if any(call.loop is not nursery.home for call in process.calls.under_way()):
            _start_hosted(process)


def _attended(process: Process) -> None:
    """See to it that a nursery is open, and not at rest. The lock is held."""
    nursery = _open_nursery(process)
    if nursery is None:
        _start_hosted(process)
    elif process.resting:
        process.resting = False
        nursery.rearrange()


def _open_nursery(process: Process) -> RemoteNursery | None:
    """The current nursery, unless it has ended. The lock is held."""
    nursery = process.nursery
    if nursery is not None and not nursery.is_open:
        process.nursery = nursery = None
        process.resting = False
    return nursery


def _start_hosted(process: Process) -> None:
    """Start a hosted nursery with all services. The lock is held."""
    if process.exiting:
        return
    chosen = settings()
    nursery = RemoteNursery(chosen, process, hosted=True)
    thread = HostedThread(nursery, on_end=_hosted_ended)
    # Both before the start: the nursery asks at once whether it is the current one.
    process.nursery = nursery
    process.hosted.add(thread)
    process.limiter.resize(chosen.database_max_inflight)
    try:
        thread.start()
    except BaseException as exc:
        # Python 3.12 and later start no thread once the interpreter ends: a RuntimeError. When a
        # KeyboardInterrupt comes, the thread may have started, and ends.
        thread.tell_to_stop()
        process.nursery = None
        if not isinstance(exc, RuntimeError):
            raise
        logger.debug("no hosted remote nursery: %s", exc)
        process.hosted.discard(thread)


def _hosted_ended(thread: HostedThread) -> None:
    process = _process
    with process.lock:
        process.hosted.discard(thread)
        if process.nursery is thread.nursery:
            process.nursery = None
    _let_go_unless_attended()


def _let_go_unless_attended() -> None:
    process = _process
    if not is_attended():
        for resource in process.resources:
            resource.let_go()


def _at_exit() -> None:
    """Let the process end: no thread is started any more, and the hosted nursery is closed.

    If `seamless.close()` is still to come (its exit hook was registered before this one), that
    closes the nursery, after it has written its last buffers.
    """
    _process.exiting = True
    seamless = sys.modules.get("seamless")
    closes_later = getattr(seamless, "_require_close", False)
    if not closes_later or getattr(seamless, "_closed", False):
        close()


def _after_fork_in_child() -> None:
    """Start from nothing: the parent's threads, loops and locks do not exist here."""
    global _process
    parent, _process = _process, Process()
    # The clients that are in effect stay so; their services start with the first nursery.
    _process.services = parent.services
    _process.resources = parent.resources
    # Kept alive: collecting a loop closes it, and would take the parent's own wake-up out of the
    # selector that the two processes share.
    _process.parent = parent


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork_in_child)
