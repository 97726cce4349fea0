"""The one place of process-wide state: which nursery is current, and which services belong in it.

A host's nursery is current while it is open. Otherwise a hosted one is started when it is first
needed: by a call, or by a service that has clients to keep alive.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.to_thread

from ..errors import NurseryOpenError
from ..settings import Settings, enable_debug_logging
from .hosted_thread import HostedNursery
from .event_loops import LoopClosedError, forget_loops
from .nursery import NurseryState, RemoteNursery, run_nursery
from .service import Service

logger = logging.getLogger(__name__)


class _Process:
    """What this process holds. The lock guards every change; a plain read needs none.

    The lock is held while a hosted nursery starts, never while one ends.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.settings: Settings | None = None
        self.nursery: RemoteNursery | None = None
        self.hosted: set[HostedNursery] = set()
        """Those whose threads have not ended: the current one, and those that are ending."""
        self.services: dict[str, Service] = {}
        self.workers: set[threading.Thread] = set()
        self.resting = False
        self.exiting = False
        self.parent: _Process | None = None


_process = _Process()


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

    It takes over from a hosted nursery: calls go to this one from now on, the hosted one drains and
    ends, and the activated clients go on here. Leaving the block gives requests in flight a grace
    period, then cancels them (their callers get a NurseryClosedError) and closes every socket. A
    cancellation of the block waits for that too.

    Args:
        settings: what is in force while it is open; the environment's by default.

    Raises:
        NurseryOpenError: a host's nursery is open already.
    """
    chosen = Settings.from_environment() if settings is None else settings
    enable_debug_logging(chosen)
    async with run_nursery(chosen, hosted=False) as nursery:
        replaced = _make_current(nursery)
        try:
            with anyio.CancelScope(shield=True):
                for hosted in replaced:
                    await anyio.to_thread.run_sync(hosted.stop)
            _arrange_services(nursery)
            yield nursery
        finally:
            forget(nursery)


def install(service: Service) -> None:
    """Put a service in place of the one of its name, from any thread. Does not wait for its start.

    It starts in the current nursery; where none is open, a hosted one is started, unless the
    service has nothing to run.
    """
    with _process.lock:
        _process.services[service.name] = service
        nursery = _open_nursery()
        if nursery is None:
            if not service.idle():
                _start_hosted()
            return
    try:
        nursery.post(partial(_arrange_services, nursery))
    except LoopClosedError:
        forget(nursery)
        install(service)


def start_worker(name: str, work: Callable[[], None]) -> None:
    """Run `work` on a thread of its own, a daemon that `close()` waits for.

    RuntimeError: the interpreter ends, and no thread can be started any more.
    """
    worker = threading.Thread(target=work, name=f"seamless-remote {name}", daemon=True)
    with _process.lock:
        _process.workers = {each for each in _process.workers if each.is_alive()}
        worker.start()
        _process.workers.add(worker)


def close() -> None:
    """End the hosted nursery, or let a host's come to rest. From any thread; safe to repeat.

    It returns when the hosted nursery has ended, whoever closed it; called in that nursery's own
    thread, it only begins the end. In a host's nursery the services stop and idle connections are
    closed; the next call starts them again, as it starts a hosted nursery again.
    """
    with _process.lock:
        hosted = list(_process.hosted)
        nursery = _process.nursery
        if nursery is not None and nursery.hosted:
            _process.nursery = nursery = None
        if nursery is not None:
            _process.resting = True
        workers = _process.workers - {threading.current_thread()}
    for each in hosted:
        each.stop()
    if nursery is not None:
        try:
            nursery.post(partial(_arrange_services, nursery))
        except LoopClosedError:
            forget(nursery)
    if not _process.exiting:
        deadline = time.monotonic() + settings().grace_period
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))


def nursery_for_call() -> RemoteNursery | None:
    """The nursery that a call goes to, started if there is none; None while the process exits."""
    nursery = _process.nursery
    if nursery is None or nursery.state is not NurseryState.OPEN:
        with _process.lock:
            nursery = _open_nursery() or _start_hosted()
    if _process.resting and nursery is not None:
        _wake(nursery)
    return nursery


def forget(nursery: RemoteNursery) -> None:
    """Let no more calls go to a nursery that has ended, or is about to."""
    with _process.lock:
        if _process.nursery is nursery:
            _process.nursery = None
            _process.resting = False


def _open_nursery() -> RemoteNursery | None:
    """The current nursery, if it still takes calls. The lock is held."""
    nursery = _process.nursery
    if nursery is not None and nursery.state is not NurseryState.OPEN:
        forget(nursery)
        return None
    return nursery


def _start_hosted() -> RemoteNursery | None:
    """Start a hosted nursery with all services. The lock is held."""
    if _process.exiting:
        return None
    hosted = HostedNursery(settings(), on_end=_hosted_ended)
    try:
        nursery = hosted.start()
    except RuntimeError as exc:
        # Python 3.12 and later start no thread once the interpreter ends.
        logger.debug("no hosted remote nursery: %s", exc)
        return None
    _process.hosted.add(hosted)
    _process.nursery = nursery
    _process.resting = False
    nursery.mailbox.post(partial(_arrange_services, nursery))
    return nursery


def _wake(nursery: RemoteNursery) -> None:
    with _process.lock:
        if not _process.resting or _process.nursery is not nursery:
            return
        _process.resting = False
    try:
        nursery.post(partial(_arrange_services, nursery))
    except LoopClosedError:
        forget(nursery)


def _arrange_services(nursery: RemoteNursery) -> None:
    """Have a nursery run what it should run by now. In its loop.

    What that is, is read here and not when this was posted: the last change wins, in whatever order
    the threads that made the changes came to post.
    """
    with _process.lock:
        current = _process.nursery is nursery
        resting = _process.resting
        services = list(_process.services.values())
    if not current:
        return
    if resting:
        nursery.rest()
        return
    for service in services:
        nursery.swap(service)


def _hosted_ended(hosted: HostedNursery) -> None:
    with _process.lock:
        _process.hosted.discard(hosted)
        _open_nursery()


def _make_current(nursery: RemoteNursery) -> list[HostedNursery]:
    """Make a host's nursery current; the hosted nurseries that it replaces."""
    with _process.lock:
        open_one = _open_nursery()
        if open_one is not None and not open_one.hosted and not open_one.mailbox.is_closed():
            raise NurseryOpenError(
                "a remote nursery is open in this process already; "
                "use seamless_remote.current_nursery(), or leave its block first"
            )
        _process.nursery = nursery
        _process.resting = False
        return list(_process.hosted)


def _at_exit() -> None:
    """Let the process end: no thread is started any more, and the hosted nursery is closed.

    Where `seamless.close()` is still to come (its exit hook was registered before this one), that
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
    parent, _process = _process, _Process()
    # The clients that are in effect stay so; their services start with the first nursery.
    _process.services = parent.services
    # Kept alive: to collect a loop closes it, which would take the parent's own wake-up out of the
    # selector that the two processes share.
    _process.parent = parent
    forget_loops()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork_in_child)
