"""The wait of one task until another one of its loop wakes it, at the least cost on each backend.

`anyio.Event` does the same for any number of tasks; on asyncio, one that is waited for takes a
kilobyte. Of the calls that wait by the thousand, each waits for news of its own.
"""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import anyio

from .loops import running_loop

if TYPE_CHECKING:
    import trio


class WakeUp(ABC):
    """What one task waits for, once. It belongs to one event loop."""

    __slots__ = ()

    @abstractmethod
    def set(self) -> None:
        """Wake the task, now or when it comes to wait. Safe to repeat, or when nobody waits."""

    @abstractmethod
    def is_set(self) -> bool:
        """Whether it was set; maybe after its wait was cancelled."""

    @abstractmethod
    def wait(self) -> Awaitable[None]:
        """Wait until it is set. To be awaited at once; no checkpoint where it is set already."""

    @abstractmethod
    async def wait_at_most(self, seconds: float) -> None:
        """Wait until it is set, or so long. It must not be waited for again."""


class _AsyncioWakeUp(WakeUp):
    __slots__ = ("_future", "_set")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._set = False
        self._future: asyncio.Future[None] = loop.create_future()

    def set(self) -> None:
        self._set = True
        if not self._future.done():  # a cancellation may have come first
            self._future.set_result(None)

    def is_set(self) -> bool:
        return self._set

    def wait(self) -> Awaitable[None]:
        return self._future

    async def wait_at_most(self, seconds: float) -> None:
        # No cancel scope: that could not be left when a task is collected after its loop.
        timer = self._future.get_loop().call_later(seconds, self.set)
        try:
            await self._future
        finally:
            timer.cancel()


class _TrioWakeUp(WakeUp):
    __slots__ = ("_event",)

    def __init__(self) -> None:
        # In a running trio it has been imported, and need not be looked for.
        self._event: trio.Event = sys.modules["trio"].Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self) -> Awaitable[None]:
        return self._event.wait()

    async def wait_at_most(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._event.wait()


def wake_up(loop: Any = None) -> WakeUp:
    """A wake-up for a task of the running loop, whose key may be given where it is known."""
    if loop is None:
        loop = running_loop()
    if isinstance(loop, asyncio.AbstractEventLoop):
        return _AsyncioWakeUp(loop)
    return _TrioWakeUp()
