"""How the task that uses a socket waits for it, in whatever loop it runs, and for how long.

On asyncio, each loop has a poller for that: anyio's `wait_readable` and a cancel scope for the
timeout cost several times as much (see `poller`).
"""

from __future__ import annotations

import asyncio
import math
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from ..nursery.deadline import TimeLimit
from .poller import Poller, Received, poller_of
from .socket_io import BrokenConnectionError

Step = Callable[[], Received]
"""Receives what has come, without waiting."""


class SilenceError(Exception):
    """The other side has been silent for as long as it may."""


class Readiness(ABC):
    """What one task at a time waits for at one socket, during one exchange.

    `timeout` bounds, in seconds, each wait between two bytes (None: no limit).
    """

    __slots__ = ("sock", "timeout")

    def __init__(self, sock: socket.socket, timeout: float | None) -> None:
        self.sock = sock
        self.timeout = timeout

    @abstractmethod
    def until(self, step: Step, patience: float | None = None) -> Awaitable[bool]:
        """Call `step` whenever something has come, until it is ENOUGH; what it raises is raised.

        False: it was not, within `patience` seconds. SilenceError: nothing came for the timeout.
        """

    @abstractmethod
    async def readable_or_writable(self) -> None:
        """Wait until there is something to receive, or the kernel takes more."""

    @abstractmethod
    def detach(self) -> None:
        """Let go of the loop: before the socket is closed, or goes to another loop."""


def readiness_in(loop: Any, sock: socket.socket, timeout: float | None) -> Readiness:
    """The way to wait for a non-blocking socket in `loop`, which runs this task."""
    if isinstance(loop, asyncio.AbstractEventLoop):
        return AsyncioReadiness(sock, timeout, loop)
    return TrioReadiness(sock, timeout)


class TrioReadiness(Readiness):
    """For trio's loop, in the task that waits."""

    __slots__ = ()

    async def until(self, step: Step, patience: float | None = None) -> bool:
        # trio runs, so it has been imported: this saves the look-up that `import` makes.
        trio = sys.modules["trio"]
        now = trio.current_time()
        patience_ends = math.inf if patience is None else now + patience
        silence = math.inf if self.timeout is None else self.timeout
        # One scope for both limits and all waits: each costs 7 us.
        with trio.CancelScope(deadline=min(patience_ends, now + silence)) as scope:
            while True:
                await trio.lowlevel.wait_readable(self.sock)
                while (received := step()) is Received.SOME:
                    pass
                if received is Received.ENOUGH:
                    return True
                scope.deadline = min(patience_ends, trio.current_time() + silence)
        if scope.deadline < patience_ends:
            raise SilenceError
        return False

    async def readable_or_writable(self) -> None:
        with TimeLimit(self.timeout) as waited:
            async with anyio.create_task_group() as group:

                async def wait(ready: Callable[[socket.socket], Any]) -> None:
                    await ready(self.sock)
                    group.cancel_scope.cancel()

                group.start_soon(wait, anyio.wait_readable)
                group.start_soon(wait, anyio.wait_writable)
        if waited.expired:
            raise SilenceError

    def detach(self) -> None:
        """It holds nothing between two waits."""


class AsyncioReadiness(Readiness):
    """For asyncio's loops, uvloop's among them, through the loop's poller.

    Steps are called by the loop itself: the task wakes up once, when there is enough.
    """

    __slots__ = ("_loop", "_patience_ends", "_poller", "_silence", "_step", "_waiter",
                 "descriptor", "due")  # fmt: skip

    def __init__(
        self, sock: socket.socket, timeout: float | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        # Not by `super()`: this is made for each exchange.
        self.sock = sock
        self.timeout = timeout
        self.descriptor = sock.fileno()
        self.due = self._patience_ends = math.inf
        self._silence = math.inf if timeout is None else timeout
        self._loop = loop
        # Before anything is sent: it may need a descriptor. And only until `detach`: an error that
        # somebody keeps leads here, by its frames, and must not keep that descriptor.
        self._poller: Poller | None = poller_of(loop)
        self._step: Step | None = None
        self._waiter: asyncio.Future[bool] | None = None
        """What ends the wait, while there is one."""

    def until(
        self, step: Step, patience: float | None = None, *, writing: bool = False
    ) -> Awaitable[bool]:
        """See `Readiness`; with `writing`, `step` is also called when the kernel takes more."""
        assert self._poller is not None
        now = self._loop.time()
        self._patience_ends = math.inf if patience is None else now + patience
        self.due = min(self._patience_ends, now + self._silence)
        self._step = step
        self._waiter = waiter = self._loop.create_future()
        self._poller.watch(self, writing=writing)
        return waiter

    async def readable_or_writable(self) -> None:
        await self.until(lambda: Received.ENOUGH, writing=True)

    def detach(self) -> None:
        poller, self._poller = self._poller, None
        if poller is not None and self._waiter is not None:
            poller.forget(self.descriptor)

    def ready(self) -> Received:
        """Called by the poller: something may have come, or can be sent; ENOUGH ends the wait."""
        waiter, step = self._waiter, self._step
        if waiter is None or waiter.done() or step is None:
            return Received.ENOUGH
        moved = False
        try:
            while (received := step()) is Received.SOME:
                moved = True
        except Exception as exc:
            _fail(waiter, exc)
        except BaseException:
            # Ctrl-C, in a callback of the loop: what was received may have got lost.
            _fail(waiter, BrokenConnectionError("interrupted"))
            raise
        else:
            if received is Received.NOTHING:
                if moved:
                    self.due = min(self._patience_ends, self._loop.time() + self._silence)
                return Received.SOME if moved else Received.NOTHING
            waiter.set_result(True)
        self._waiter = None
        return Received.ENOUGH

    def overdue(self) -> None:
        """Called by the poller: the patience or the timeout is over."""
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        if self._patience_ends <= self._loop.time():
            waiter.set_result(False)
        else:
            _fail(waiter, SilenceError())


def _fail(waiter: asyncio.Future[bool], failure: Exception) -> None:
    # Without the frames so far, which lead to the poller as well.
    waiter.set_exception(failure.with_traceback(None))
    # Counts as retrieved from here on: asyncio would complain if the loop is closed before the
    # task has run.
    waiter.exception()
