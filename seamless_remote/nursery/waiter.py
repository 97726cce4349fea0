"""The wait of one task until another one of its loop wakes it, at the least cost on each backend.

`anyio.Event` does the same for any number of tasks; on asyncio, one that is waited for takes a
kilobyte. Of the calls that wait by the thousand, each waits for news of its own.
"""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio

from .event_loops import running_loop

if TYPE_CHECKING:
    import trio

Look = Callable[[], float | None]
"""Looks at something, and says in how many seconds to look again; None: not any more."""


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
    async def wait_looking(self, seconds: float, look: Look) -> None:
        """Wait until it is set; call `look` after so many seconds, and then as that says."""


class _AsyncioWakeUp(WakeUp):
    __slots__ = ("_future", "_set", "_timer")

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

    async def wait_looking(self, seconds: float, look: Look) -> None:
        # The timer looks, and does not wake the task for it: where a signal handler raises a
        # KeyboardInterrupt between two lines of the loop, that loses what it has in hand. It should
        # be a look then, and not the wake-up of a task, which could never be cancelled after that.
        self._look_in(seconds, look)
        try:
            await self._future
        finally:
            self._timer.cancel()

    def _look_in(self, seconds: float, look: Look) -> None:
        loop = self._future.get_loop()
        self._timer = loop.call_later(seconds, self._look_now, seconds, look)

    def _look_now(self, seconds: float, look: Look) -> None:
        self._look_in(seconds, look)  # first: one that is interrupted is not the last one
        following = look()
        if following != seconds:
            self._timer.cancel()
            if following is not None:
                self._look_in(following, look)


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

    async def wait_looking(self, seconds: float, look: Look) -> None:
        following: float | None = seconds
        while following is not None:
            with anyio.move_on_after(following):
                await self._event.wait()
                return
            following = look()
        await self._event.wait()


def wake_up(loop: Any = None) -> WakeUp:
    """A wake-up for a task of the running loop, whose key may be given where it is known."""
    if loop is None:
        loop = running_loop()
    if isinstance(loop, asyncio.AbstractEventLoop):
        return _AsyncioWakeUp(loop)
    return _TrioWakeUp()
