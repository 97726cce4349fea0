"""Running a call: an operation, `async def operation(call, *args)`, in its caller's own task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Any, TypeVar

from anyio.lowlevel import checkpoint_if_cancelled

from ..errors import NurseryClosedError
from .calls import Call, TrackedCall
from .event_loops import claim_backend, in_trio_task, inside_trio_task, running_loop
from .process import attend, settings, this_process
from .shared_work import Work
from .thread_call import ThreadCall

T = TypeVar("T")

Operation = Callable[..., Awaitable[T]]
"""`async def operation(call: Call, *args)`: what a client does."""


async def call(what: str, operation: Operation[T], *args: Any) -> T:
    """Run `operation(call, *args)` right here, in a task of any loop; `what` names it for people.

    Cancelling the task cancels it. NurseryClosedError: it was ended on this side, by the end of the
    nursery of this loop or by `close_all_clients()`.
    """
    loop = running_loop()
    if inside_trio_task(loop):
        # Nothing of anyio works in such a loop.
        elsewhere: ThreadCall[T] = ThreadCall(partial(call, what, operation, *args))
        return await elsewhere.run_in_executor(loop)
    claim_backend(loop)
    try:
        with TrackedCall(loop, settings(), this_process().calls, what) as this:
            # In this order: a nursery that ends either is seen here, or sees this call.
            attend()
            outcome: T = await operation(this, *args)
    except NurseryClosedError:
        # If a scope of anyio around this is cancelled too, that goes before the error.
        await checkpoint_if_cancelled()
        raise
    return outcome


def call_blocking(what: str, operation: Operation[T], *args: Any) -> T:
    """The same from synchronous code; the thread waits, whether or not it runs a loop."""
    work = ThreadCall(partial(call, what, operation, *args))
    if running_loop() is None and not in_trio_task():
        return work.run()
    return work.run_in_thread()


def share(
    call: Call,
    key: Hashable,
    make: Callable[[], Work[T]],
    waits_for: str = "another caller, who fetches the same",
) -> Awaitable[T]:
    """The outcome of work that several callers of this loop ask for (see `shared_work`)."""
    return this_process().shared.join(call, key, make, waits_for)
