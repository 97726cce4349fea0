"""A call in a loop of its own, on another thread, where the caller's own loop is of no use to it.

That is so where a synchronous caller's thread runs a loop already, and in an asyncio loop that runs
inside a trio task, which libraries take for trio.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from typing import Generic, TypeVar

import anyio

from .event_loops import LoopClosedError, Mailbox, mailbox_of, running_loop

logger = logging.getLogger(__name__)

T = TypeVar("T")

SIGNAL_PATIENCE = 0.5
"""Seconds after which a thread that waits for another one looks for signals, at the latest."""


class Detour(Generic[T]):
    """The call of one coroutine function, in a new asyncio loop."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._cancelled = False
        self._scope: anyio.CancelScope | None = None
        self._mailbox: Mailbox | None = None

    def run(self) -> T:
        """Run it in the calling thread, which runs no loop.

        concurrent.futures.CancelledError: `cancel` was called in time.
        """
        # Not `anyio.run`: in a child forked in a task, it takes the parent's loop for running.
        return asyncio.run(self._main())

    def run_in_thread(self) -> T:
        """Run it in a thread of its own while the calling thread waits, whatever loop that runs.

        A KeyboardInterrupt of the wait cancels the call, and does not wait for its end.
        """
        outcome: list[T] = []
        error: list[BaseException] = []

        def work() -> None:
            try:
                outcome.append(self.run())
            except BaseException as exc:
                error.append(exc)

        helper = threading.Thread(target=work, name="seamless-remote-call", daemon=True)
        try:
            helper.start()
            while helper.is_alive():
                # A signal that comes just before the wait does not end it, and is handled after it.
                helper.join(SIGNAL_PATIENCE)
        except BaseException:
            self.cancel()
            raise
        if error:
            try:
                raise error[0]
            finally:
                error.clear()  # it refers to this frame
        return outcome[0]

    async def run_in_executor(self, here: asyncio.AbstractEventLoop) -> T:
        """Run it in an executor thread of the running asyncio loop.

        Cancelling this cancels the call, and waits for its end; cancelling it again does not wait.
        """
        # Nothing of anyio works in a loop inside a trio task.
        future = here.run_in_executor(None, self.run)
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait([future])
        except BaseException as exc:
            self.cancel()
            if isinstance(exc, asyncio.CancelledError):
                await asyncio.wait([future])
            raise
        return future.result()

    def cancel(self) -> None:
        """Cancel the call, from any thread."""
        # The flag first: the call looks at it when it has made its scope known.
        self._cancelled = True
        if self._mailbox is not None and self._scope is not None:
            try:
                self._mailbox.post(self._scope.cancel)
            except LoopClosedError:
                logger.debug("a call had ended when it was cancelled")

    async def _main(self) -> T:
        with anyio.CancelScope() as self._scope:
            self._mailbox = mailbox_of(running_loop())
            if self._cancelled:
                self._scope.cancel()
            return await self._work()
        raise CancelledError
