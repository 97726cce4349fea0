"""How the task that uses a socket gets at what comes in: one way for any backend, one for asyncio.

anyio's `wait_readable` registers a socket with asyncio's selector for each wait and takes it out
again, which costs more than to receive. There, it stays registered.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol

from anyio import wait_readable

Step = Callable[[], bool]
"""Receives what has come, without waiting, and says whether that was enough."""


class Reading(Protocol):
    """What can be waited for at one socket, by one task at a time."""

    async def until(self, step: Step) -> None:
        """Call `step` whenever something has come, until it returns True.

        What it raises is raised here. After a cancellation it is not called again.
        """
        ...

    def close(self) -> None:
        """To be called before the socket is closed."""
        ...


def reading_of(sock: socket.socket) -> Reading:
    """The way to read from a non-blocking socket in the loop that runs this task."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return _AwaitedReading(sock)
    # In trio's guest mode, asyncio's loop is running while it has no task.
    return _AwaitedReading(sock) if asyncio.current_task(loop) is None else _HeldReading(sock, loop)


class _AwaitedReading:
    """For any backend."""

    __slots__ = ("_sock",)

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def until(self, step: Step) -> None:
        while True:
            await wait_readable(self._sock)
            if step():
                return

    def close(self) -> None:
        pass


class _HeldReading:
    """For asyncio: registered with the loop until something comes that nobody waits for.

    A step is called by the loop itself: the task wakes up once, when there is enough.
    """

    __slots__ = ("_held", "_loop", "_sock", "_step", "_waiter")

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._sock = sock
        self._loop = loop
        self._held = False
        self._step: Step | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def until(self, step: Step) -> None:
        self._step = step
        self._waiter = waiter = self._loop.create_future()
        if not self._held:
            self._loop.add_reader(self._sock, self._readable)
            self._held = True
        try:
            await waiter
        finally:
            self._step = self._waiter = None

    def close(self) -> None:
        if self._held and not self._loop.is_closed():
            self._loop.remove_reader(self._sock)
        self._held = False

    def _readable(self) -> None:
        step, waiter = self._step, self._waiter
        if step is None or waiter is None or waiter.done():
            # It would be called again at once, and at every turn of the loop.
            self.close()
            return
        try:
            enough = step()
        except Exception as exc:
            waiter.set_exception(exc)
        else:
            if enough:
                waiter.set_result(None)
