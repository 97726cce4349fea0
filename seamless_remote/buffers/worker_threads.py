"""Work that would hold an event loop up (hashing, decompressing, files), done in worker threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from ..nursery.event_loops import inside_trio_task, is_asyncio, running_loop
from ..nursery.waiter import outcome_known

T = TypeVar("T")

OFFLOAD_BYTES = 256 * 1024
"""From this many bytes on, hashing or copying goes to a worker thread."""


async def offload(work: Callable[..., T], *args: Any) -> T:
    """Run `work(*args)` in a worker thread; a cancellation waits for it to end.

    While the interpreter ends, when no thread can be started any more, it is run right here.
    """
    loop = running_loop()
    try:
        if not is_asyncio(loop):
            return await anyio.to_thread.run_sync(work, *args)
        if not can_start_threads():
            return work(*args)  # once the loop has an executor, its end would need a thread, too
        # Not anyio's worker threads: a task that is cancelled by asyncio's own means does not wait
        # for them, and what the thread works on (a file, a buffer) is then used by two.
        future: Future[T] = Future()
        loop.run_in_executor(None, _run, future, work, args)
        await _done(future)
        return future.result()
    except RuntimeError:
        if can_start_threads():
            raise
        return work(*args)


def _run(future: Future[T], work: Callable[..., T], args: tuple[Any, ...]) -> None:
    try:
        future.set_result(work(*args))
    except BaseException as exc:
        future.set_exception(exc)


class SideThread:
    """A thread that works beside a task, on one thing at a time. Close it when the task is done.

    A thread of its own and no task group: anyio's keep a loop that is dropped, with its tasks, from
    ever being collected.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="seamless-remote side thread")
        self._future: Future[Any] | None = None

    async def put(self, work: Callable[..., object], *args: Any) -> None:
        """Wait until the last thing is done, raise its error, or begin with the next one."""
        await self.finish()
        try:
            self._future = self._executor.submit(work, *args)
        except RuntimeError:
            if can_start_threads():
                raise
            work(*args)

    async def finish(self) -> None:
        """Wait until the last thing is done, and raise its error. A cancellation waits, too."""
        future, self._future = self._future, None
        if future is not None:
            await _done(future)
            future.result()

    def close(self) -> None:
        """Let the thread end."""
        self._executor.shutdown(wait=False)


async def _done(future: Future[Any]) -> None:
    """Wait for a thread's future, whether or not the task is cancelled meanwhile."""
    try:
        await outcome_known(future)
    except GeneratorExit:
        raise
    except BaseException:
        # Shielded, or anyio would cancel the task again at each turn of its loop. In an asyncio
        # loop inside a trio task, nothing of anyio works.
        inside_trio = inside_trio_task(running_loop())
        with nullcontext() if inside_trio else anyio.CancelScope(shield=True):
            while not future.done():
                with suppress(asyncio.CancelledError):
                    await outcome_known(future)
        raise


async def offload_large(size: int, work: Callable[[], T]) -> T:
    """Run `work`, which handles `size` bytes: in a worker thread if those are many."""
    return await offload(work) if size >= OFFLOAD_BYTES else work()


def can_start_threads() -> bool:
    """Whether threads can be started: not while the interpreter ends."""
    return threading.main_thread().is_alive()
