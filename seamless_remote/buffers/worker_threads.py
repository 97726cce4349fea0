"""Work that would hold an event loop up (hashing, decompressing, files), done in worker threads."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, TypeVar

import anyio

from ..nursery.event_loops import inside_trio_task, running_loop
from ..nursery.waiter import outcome_known

T = TypeVar("T")

OFFLOAD_BYTES = 256 * 1024
"""From this many bytes on, hashing or copying goes to a worker thread."""


MOST_THREADS = 32
"""How many threads work at once, in the process; what comes beyond waits its turn."""


async def offload(work: Callable[..., T], *args: Any) -> T:
    """Run `work(*args)` in a worker thread; a cancellation waits for it to end.

    It is work that waits for nothing but the disk and the processor: it may have to wait for its
    turn. While the interpreter ends, when no thread can be started any more, it is run right here.
    """
    try:
        future = _threads.submit(work, args)
    except RuntimeError:
        if can_start_threads():
            raise
        return work(*args)
    # A task that is cancelled waits all the same: what the thread works on (a file, a buffer) would
    # be used by two.
    await _done(future)
    return future.result()


class _Threads:
    """Threads that live as long as there is work. They keep no interpreter from ending.

    Not those of the loop, nor anyio's: hosts fill these with work that waits for us. Seamless runs
    whole transformations in its loops' executors, and what they read would wait for them.
    """

    def __init__(self) -> None:
        # Reentrant, for signal handlers.
        self._lock = threading.RLock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._count = 0

    def submit(self, work: Callable[..., T], args: tuple[Any, ...]) -> Future[T]:
        """Begin with the work, or have it wait. RuntimeError if no thread can be started."""
        future: Future[T] = Future()
        task = partial(_run, future, work, args)
        with self._lock:
            if self._count >= MOST_THREADS:
                self._waiting.append(task)
                return future
            self._count += 1
        try:
            thread = threading.Thread(
                target=self._work, args=(task,), name="seamless-remote worker", daemon=True
            )
            thread.start()
        except BaseException:
            with self._lock:
                self._count -= 1
            raise
        return future

    def _work(self, task: Callable[[], None]) -> None:
        while True:
            task()
            with self._lock:
                if not self._waiting:
                    self._count -= 1
                    return
                task = self._waiting.popleft()


_threads = _Threads()


def _after_fork_in_child() -> None:
    # Of all threads only the one that forked is left.
    global _threads
    _threads = _Threads()


os.register_at_fork(after_in_child=_after_fork_in_child)


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
