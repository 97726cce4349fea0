"""The wait of one task, ended from any thread, at the least cost on each backend.

`anyio.Event` may be set in its own loop only, and on asyncio one that is waited for takes a
kilobyte. Of the calls that wait by the thousand, each has a waiter of its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from .deadline import TimeLimit
from .event_loops import LoopEndedError, is_asyncio, post, running_loop

if TYPE_CHECKING:
    import trio

T = TypeVar("T")


HELD = "_seamless_remote_waiters"
"""The attribute of an asyncio loop with what is waited for in it."""


class Waiter(ABC):
    """What one task of one loop waits for, once."""

    __slots__ = ("__weakref__", "_loop", "woken")

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self.woken = False

    def wake(self) -> bool:
        """End the wait, from any thread. Safe to repeat, and when nobody waits (yet, or any more).

        False: the loop has ended, and the task with it.
        """
        self.woken = True
        try:
            if self._is_here():
                self._end()
            else:
                post(self._loop, self._end)
        except RuntimeError:  # also what asyncio raises for a future of a closed loop
            return False
        return True

    async def wait(self) -> None:
        """Wait until it is woken."""
        try:
            await self.pending()
        finally:
            self.dismiss()

    @abstractmethod
    def pending(self) -> Awaitable[None]:
        """The wait itself, without a frame for each who waits. Await it at once, then `dismiss`."""

    @abstractmethod
    def dismiss(self) -> None:
        """The wait is over, or was cancelled."""

    @abstractmethod
    def _is_here(self) -> bool:
        """Whether a task of the loop runs this code.

        In the loop's thread, but outside of its tasks, that would not do: a destructor or a signal
        handler may come when the loop has just decided how long to sleep. Only `post` ends that.
        """

    @abstractmethod
    def _end(self) -> None:
        """End the wait, in the loop."""


class _AsyncioWaiter(Waiter):
    __slots__ = ("_future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._future: asyncio.Future[None] = loop.create_future()

    def pending(self) -> Awaitable[None]:
        # The loop itself holds who waits in it: what wakes them refers to them weakly, and a task
        # that nobody else refers to would be collected while it waits.
        self._loop.__dict__.setdefault(HELD, set()).add(self._future)
        return self._future

    def dismiss(self) -> None:
        held: set[asyncio.Future[None]] | None = self._loop.__dict__.get(HELD)
        if held is not None:  # an interrupt may have come before the wait
            held.discard(self._future)

    def _is_here(self) -> bool:
        # The one that never raises: most wakers of other threads run no loop at all.
        loop = asyncio._get_running_loop()
        return loop is self._loop and asyncio.current_task(loop) is not None

    def _end(self) -> None:
        if not self._future.done():  # a cancellation may have come first
            self._future.set_result(None)


class _TrioWaiter(Waiter):
    __slots__ = ("_event",)

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        super().__init__(token)
        # trio runs, so it has been imported: this saves the look-up that `import` makes.
        self._event: trio.Event = sys.modules["trio"].Event()

    def pending(self) -> Awaitable[None]:
        return self._event.wait()

    def dismiss(self) -> None:
        """Nothing holds it."""

    def _is_here(self) -> bool:
        lowlevel = sys.modules["trio.lowlevel"]
        return lowlevel.in_trio_task() and lowlevel.current_trio_token() is self._loop

    def _end(self) -> None:
        self._event.set()


def waiter_in(loop: Any) -> Waiter:
    """A waiter for a task of `loop`, which is the loop that runs this code."""
    return _AsyncioWaiter(loop) if is_asyncio(loop) else _TrioWaiter(loop)


async def outcome_known(future: concurrent.futures.Future[Any]) -> None:
    """Wait in a task of any loop until a thread's future is done. Cancelling leaves it as it is."""
    waiter = waiter_in(running_loop())
    # Weak: a future that is never done must not keep the loop.
    reference = weakref.ref(waiter)

    def wake(_: object) -> None:
        waits = reference()
        if waits is not None:
            waits.wake()

    future.add_done_callback(wake)
    await waiter.wait()


async def wait_for(future: concurrent.futures.Future[T]) -> T:
    """The outcome of a thread's future, waited for in a task of any loop.

    Cancelling the wait leaves the future as it is.
    """
    await outcome_known(future)
    return future.result()


async def turns_within(loop: Any, seconds: float) -> bool:
    """Whether `loop`, another one than this, makes a turn within so many seconds."""
    waiter = waiter_in(running_loop())
    try:
        post(loop, waiter.wake)
    except LoopEndedError:
        return False
    with TimeLimit(seconds):
        await waiter.wait()
    return waiter.woken
