"""The nursery as the rest of the package uses it: calls, services, opening and end.

A call is an operation, `async def operation(scope, *args)`, that runs where the sockets live.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Any, TypeVar

from .current import (
    close,
    current_nursery,
    forget,
    install,
    nursery_for_call,
    open_nursery,
    settings,
    start_worker,
)
from .thread_call import Detour
from .handover import Handover, Operation
from .event_loops import LoopClosedError, in_trio_task, inside_trio_task, mailbox_of, running_loop
from .scope import LoneScope

__all__ = [
    "call",
    "call_blocking",
    "close",
    "current_nursery",
    "install",
    "open_nursery",
    "settings",
    "start_worker",
]

T = TypeVar("T")


async def call(
    operation: Operation[T], *args: Any, repeatable: bool = True, limited: bool = False
) -> T:
    """Run `operation(scope, *args)` where the sockets live; from a task of any loop.

    In the nursery's own loop it runs right here, in the caller's task. From another loop it is
    handed over, and the caller waits without blocking its loop; cancelling the caller cancels it,
    and waits for its clean-up, at most the grace period. Where the nursery's loop cannot turn, it
    runs here, on connections that end with the call; also if the nursery had begun with it, unless
    it is not `repeatable` (a host may block its loop until this very call has ended).

    A call that is `limited` (a database's) waits in line, before it begins, while
    `Settings.database_max_inflight` have begun in the nursery: first come first served, whichever
    loop it comes from. While it runs it must not wait for another one. Where the settings have a
    `total_timeout` it begins at once, for that time counts from its beginning.

    NurseryClosedError: the nursery ended while the call was running in it, or waited in its line.
    """
    here = running_loop()
    thread = threading.get_ident()
    if inside_trio_task(here):
        detour = Detour(partial(_call_here, thread, operation, args, repeatable, limited))
        return await detour.run_in_executor(here)
    nursery = nursery_for_call()
    if nursery is not None and nursery.home is here:
        # As below, with a frame less for each of the thousands of calls that may wait there.
        return await nursery.calls.run_here(operation, args, limited=limited)
    return await _call(here, thread, operation, args, repeatable, limited)


def call_blocking(operation: Operation[T], *args: Any) -> T:
    """The same from synchronous code; the calling thread waits, whether or not it runs a loop."""
    detour = Detour(partial(_call_here, threading.get_ident(), operation, args, True, False))
    if running_loop() is None and not in_trio_task():
        return detour.run()
    return detour.run_in_thread()


async def _call_here(
    thread: int,
    operation: Operation[T],
    args: tuple[Any, ...],
    repeatable: bool,
    limited: bool,
) -> T:
    """Run a call in the running loop, on behalf of `thread`."""
    return await _call(running_loop(), thread, operation, args, repeatable, limited)


async def _call(
    here: Any,
    thread: int,
    operation: Operation[T],
    args: tuple[Any, ...],
    repeatable: bool,
    limited: bool,
) -> T:
    while (nursery := nursery_for_call()) is not None:
        if nursery.home is here:
            return await nursery.calls.run_here(operation, args, limited=limited)
        if nursery.mailbox.is_closed():
            forget(nursery)
            continue
        if nursery.thread == thread or nursery.mailbox.is_stalled():
            break
        home = mailbox_of(here)
        handover = Handover(
            operation, args, home, nursery.mailbox, repeatable=repeatable, limited=limited
        )
        try:
            nursery.take(handover)
        except LoopClosedError:
            forget(nursery)
            continue
        if not await handover.wait(nursery.watches.of(home), nursery.settings.grace_period):
            break
        if not handover.returned:
            return handover.outcome()
    async with LoneScope(settings()) as scope:
        return await operation(scope, *args)
