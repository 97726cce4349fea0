"""A call in a new asyncio loop on another thread, for callers whose own loop is of no use.

Synchronous code needs it if its thread runs a loop already, and so does an asyncio loop inside a
trio task, which libraries take for trio.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Generic, TypeVar

import anyio
import sniffio

from .event_loops import LoopEndedError, post, running_loop

logger = logging.getLogger(__name__)

T = TypeVar("T")

SIGNAL_PATIENCE = 0.5
"""Seconds after which a thread that waits for another one looks for signals, at the latest."""


class ThreadCall(Generic[T]):
    """The call of one coroutine function, with the context variables of whoever made this."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._context = copy_context()
        # Where trio made the context, it says so; the call runs on asyncio.
        self._context.run(sniffio.current_async_library_cvar.set, None)
        self._cancelled = False
        self._scope: anyio.CancelScope | None = None
        self._loop: Any = None

    def run(self) -> T:
        """Run it in the calling thread, which runs no loop.

        concurrent.futures.CancelledError: `cancel` was called in time.
        """
        # Not `anyio.run`: in a child that was forked in a task, it takes the parent's loop for
        # running.
        return self._context.run(asyncio.run, self._main())

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
                # A signal that comes just before `join` does not end it; it is handled after it.
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

        Cancelling this cancels the call and waits for its end; cancelling it again does not wait.
        """
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
        # Set the flag first: the call looks at it after it has made its scope known.
        self._cancelled = True
        if self._scope is not None:
            with suppress(LoopEndedError):
                post(self._loop, self._scope.cancel)

    async def _main(self) -> T:
        self._loop = running_loop()
        with anyio.CancelScope() as self._scope:
            if self._cancelled:
                self._scope.cancel()
            return await self._work()
        raise CancelledError
