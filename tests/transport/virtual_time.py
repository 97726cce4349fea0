"""A clock that a test puts forward: for timeouts without waiting for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio
from exchanges import SETTINGS
from trio.testing import MockClock

from seamless_remote.nursery.calls import Call
from seamless_remote.nursery.event_loops import is_asyncio, running_loop

in_virtual_time = pytest.mark.parametrize(
    "anyio_backend",
    ["asyncio", ("trio", {"clock": MockClock(rate=1.0)}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "trio", "uvloop"],
)
"""Has a test's loop be one in which a `Clock` works."""


class Clock:
    """The time by which a call waits. It runs as ever, and can be put forward.

    On asyncio's loops, uvloop's among them, that is the time of `call` only. On trio it is that of
    the loop, which must have a MockClock.
    """

    def __init__(self) -> None:
        loop = running_loop()
        self._shifted = ShiftedLoop(loop) if is_asyncio(loop) else None  # type: ignore[abstract]
        self.call = Call(self._shifted or loop, SETTINGS)

    async def passes(self, seconds: float) -> None:
        """Let so much pass at once; what that brings about has happened when this returns."""
        if self._shifted is not None:
            self._shifted.shift(seconds)
        else:
            clock: Any = trio.lowlevel.current_clock()
            clock.jump(seconds)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()


class ShiftedLoop(asyncio.AbstractEventLoop):
    """Another loop at a later time: what a transport asks of its loop, and nothing else."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._forward = 0.0
        self._timers: list[tuple[asyncio.TimerHandle, Callable[..., object], tuple[Any, ...]]] = []
        for name in ("add_reader", "remove_reader", "add_writer", "remove_writer", "create_future",
                     "call_soon_threadsafe", "is_closed", "is_running"):  # fmt: skip
            setattr(self, name, getattr(loop, name))

    def time(self) -> float:
        return self._loop.time() + self._forward

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any
    ) -> asyncio.TimerHandle:
        handle = self._loop.call_at(when - self._forward, callback, *args)
        self._timers.append((handle, callback, args))
        return handle

    def shift(self, seconds: float) -> None:
        self._forward += seconds
        timers, self._timers = self._timers, []
        for handle, callback, args in timers:
            # A timer that looks at the clock and finds that it is not its time is not harmed.
            if not handle.cancelled():
                handle.cancel()
                self._loop.call_soon(callback, *args)
