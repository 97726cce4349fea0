"""A nursery on a thread of its own, for processes in which no host has opened one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

import anyio

from .nursery import RemoteNursery, run_nursery
from .waiter import wait_for

logger = logging.getLogger(__name__)

THREAD_NAME = "seamless-remote"
JOIN_PATIENCE = 5.0
"""Seconds that the thread may take to end; it only has pings to cancel."""


class HostedThread:
    """The one thread that the package keeps for itself, with an asyncio loop and a nursery in it.

    A daemon: it must not keep the interpreter from ending. `on_end` is called in that thread when
    the nursery has ended, for whatever reason.
    """

    def __init__(self, nursery: RemoteNursery, on_end: Callable[[HostedThread], None]) -> None:
        self.nursery = nursery
        self._on_end = on_end
        self._stop: Future[None] = Future()
        self._thread = threading.Thread(target=self._main, name=THREAD_NAME, daemon=True)

    def start(self) -> None:
        """Start it; the nursery opens soon. RuntimeError: the interpreter starts no threads now."""
        self._thread.start()

    def tell_to_stop(self) -> None:
        """Have the nursery end. From any thread; does not wait."""
        with suppress(InvalidStateError):  # it was told already
            self._stop.set_result(None)

    def join(self) -> None:
        """Wait for the thread to end, unless it is the calling thread, or was never started."""
        if self._thread.ident in (None, threading.get_ident()):
            return
        self._thread.join(JOIN_PATIENCE)
        if self._thread.is_alive():
            logger.error("the hosted remote nursery does not end; its thread is left behind")

    def _main(self) -> None:
        try:
            anyio.run(self._serve, backend="asyncio")
        except BaseException:
            logger.critical("the hosted remote nursery failed", exc_info=True)
        finally:
            self._on_end(self)

    async def _serve(self) -> None:
        async with run_nursery(self.nursery):
            await wait_for(self._stop)
