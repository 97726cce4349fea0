"""Event loops seen from outside: which one runs this code, and how to reach one from any thread.

A loop is named by its *key*: the asyncio loop object (uvloop's too), or trio's token.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from sniffio import current_async_library_cvar


class LoopEndedError(RuntimeError):
    """The event loop has ended: nothing can run in it any more."""


def running_loop() -> Any:
    """The key of the loop that runs this code, or None outside of one.

    An asyncio loop may run inside a trio task (Seamless does that in `Checksum.resolve()`), and
    trio may run as a guest of asyncio. The innermost loop counts: in guest mode, asyncio has no
    current task while a trio task runs.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    if loop is not None and asyncio.current_task(loop) is not None:
        return loop
    if in_trio_task():
        return sys.modules["trio.lowlevel"].current_trio_token()
    return loop


def in_trio_task() -> bool:
    """Whether a trio task of this thread is running, with or without another loop inside it."""
    # Another thread may be importing trio right now; then no trio task runs in this one.
    ask = getattr(sys.modules.get("trio.lowlevel"), "in_trio_task", None)
    return ask is not None and bool(ask())


def is_asyncio(loop: Any) -> bool:
    """Whether `loop` is an asyncio loop, not a trio token."""
    return isinstance(loop, asyncio.AbstractEventLoop)


def inside_trio_task(loop: Any) -> bool:
    """Whether `loop` is an asyncio loop that runs inside a trio task of this thread.

    Libraries that look for the current backend take such a loop for trio.
    """
    return isinstance(loop, asyncio.AbstractEventLoop) and in_trio_task()


def claim_backend(loop: Any) -> None:
    """Have anyio take `loop`, which runs this code, for what it is, whatever the context says.

    `anyio.run` names its backend in the context, and a context goes where it is copied to: the
    calls that Seamless makes for a trio task run on an asyncio thread, with that task's context.
    """
    # Not put back afterwards: it holds for whatever else runs in this loop with this context. For
    # trio no such claim is needed, as it tells its own thread.
    if is_asyncio(loop) and current_async_library_cvar.get() not in (None, "asyncio"):
        current_async_library_cvar.set(None)


def post(loop: Any, action: Callable[[], object]) -> None:
    """Have `action` called in `loop` soon, from any thread. LoopEndedError: it has ended."""
    call_soon = loop.call_soon_threadsafe if is_asyncio(loop) else loop.run_sync_soon
    try:
        call_soon(action)
    except RuntimeError as exc:
        raise LoopEndedError(str(exc)) from exc


def call_later(loop: Any, seconds: float, action: Callable[[], object]) -> bool:
    """Have `action` called in `loop` in so many seconds, if a task of it runs this code.

    False: none does, or the loop is trio's, which has no timers without a task.
    """
    # The one that never raises; and see `waiter.Waiter`, on code outside of tasks.
    here = asyncio._get_running_loop()
    if here is None or here is not loop or asyncio.current_task(here) is None:
        return False
    here.call_later(seconds, action)
    return True


def has_ended(loop: Any) -> bool:
    """Whether `loop` was closed or collected (None), with whatever tasks were left in it.

    A trio run never leaves tasks behind: it ends after them.
    """
    if isinstance(loop, asyncio.AbstractEventLoop):
        return loop.is_closed()
    return loop is None


def is_running(loop: Any) -> bool:
    """Whether `loop` turns by itself. A loop that computes is running, however long it takes.

    An asyncio loop between two `run_until_complete` is not: its tasks may wait for ever.
    """
    return loop is not None and (not is_asyncio(loop) or bool(loop.is_running()))
