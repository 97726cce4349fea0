"""A nursery on a thread of its own, for processes in which no host has opened one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import anyio

from ..settings import Settings
from .event_loops import LoopClosedError
from .nursery import RemoteNursery, run_nursery

logger = logging.getLogger(__name__)

THREAD_NAME = "seamless-remote"
JOIN_MARGIN = 5.0
"""Seconds that may pass beside the grace periods, of the calls in flight and of their clean-up."""


class HostedNursery:
    """The one thread that the package starts for itself, with an asyncio loop and a nursery in it.

    A daemon: it must not keep the interpreter from ending. `on_end` is called in that thread when
    the nursery has ended, for whatever reason.
    """

    def __init__(self, settings: Settings, on_end: Callable[[HostedNursery], None]) -> None:
        self._settings = settings
        self._on_end = on_end
        self._ready = threading.Event()
        self._nursery: RemoteNursery | None = None
        self._stop = False
        self._stopped: anyio.Event | None = None
        self._ended_well = False
        self._thread = threading.Thread(target=self._main, name=THREAD_NAME, daemon=True)

    def start(self) -> RemoteNursery:
        """Start the thread and wait until its nursery is open (some milliseconds).

        RuntimeError: no thread can be started any more, or the nursery could not open.
        """
        try:
            self._thread.start()
            self._ready.wait()
        except BaseException:
            self._tell_to_stop()  # a KeyboardInterrupt: nobody will know of this thread
            raise
        if self._nursery is None:
            raise RuntimeError("the hosted remote nursery could not be opened; see the log")
        return self._nursery

    def stop(self) -> None:
        """End the nursery and wait for its thread (not where that is the calling thread).

        Requests in flight get their grace. From any thread; safe to call twice.
        """
        self._tell_to_stop()
        if threading.current_thread() is self._thread:
            return
        self._thread.join(2 * self._settings.grace_period + JOIN_MARGIN)
        if self._thread.is_alive():
            logger.error("the hosted remote nursery did not end in time; its thread is left behind")

    def _tell_to_stop(self) -> None:
        # The flag first: the nursery looks at it when it has made itself known.
        self._stop = True
        if self._nursery is not None and self._stopped is not None:
            try:
                self._nursery.mailbox.post(self._stopped.set)
            except LoopClosedError:
                logger.debug("the hosted remote nursery had ended already")

    def _main(self) -> None:
        try:
            anyio.run(self._serve, backend="asyncio")
        except BaseException:
            # While the interpreter ends, asyncio may be unable to start the thread in which it
            # waits for its executor's: the nursery had ended by then.
            level = logging.DEBUG if self._ended_well else logging.CRITICAL
            logger.log(level, "the hosted remote nursery ended with an error", exc_info=True)
        finally:
            self._ready.set()
            self._on_end(self)

    async def _serve(self) -> None:
        async with run_nursery(self._settings, hosted=True) as nursery:
            self._stopped = anyio.Event()
            self._nursery = nursery
            self._ready.set()
            if not self._stop:
                await self._stopped.wait()
        self._ended_well = True
