"""Work that would hold an event loop up (hashing, decompressing, files), done in worker threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import anyio.to_thread

from .event_loops import inside_trio_task, running_loop

T = TypeVar("T")

OFFLOAD_BYTES = 256 * 1024
"""From this many bytes on, hashing or copying goes to a worker thread."""


async def offload(work: Callable[..., T], *args: Any) -> T:
    """Run `work(*args)` in a worker thread of the running loop; a cancellation waits for it to end.

    While the interpreter ends, when no thread can be started any more, it is run right here.
    """
    here = running_loop()
    if inside_trio_task(here):
        return await here.run_in_executor(None, work, *args)  # type: ignore[no-any-return]
    try:
        return await anyio.to_thread.run_sync(work, *args)
    except RuntimeError:
        if can_start_threads():
            raise
        return work(*args)


async def offload_large(size: int, work: Callable[[], T]) -> T:
    """Run `work`, which handles `size` bytes: in a worker thread where those are many."""
    return await offload(work) if size >= OFFLOAD_BYTES else work()


def can_start_threads() -> bool:
    """Whether threads can be started: not while the interpreter ends."""
    return threading.main_thread().is_alive()
