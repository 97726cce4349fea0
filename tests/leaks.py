"""Detects what a test leaves behind: threads, open files, child processes and tasks.

`watch` is the body of an autouse fixture. `watch_tasks` wraps an async test function, because an
event loop cancels its remaining tasks when it ends, after which they cannot be detected.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import psutil
import sniffio
import trio

PATIENCE = 30.0  # seconds that threads and processes get to finish ending, a launcher among them

# Idle threads of other packages, which keep them for a while.
TOLERATED_THREADS = re.compile(
    r"Trio thread \d+"  # trio's cached worker threads: idle ones end after 10 seconds
    r"|execnet.*"  # the channel of pytest-xdist
)


@contextmanager
def watch() -> Iterator[None]:
    """Raise AssertionError if new threads, open files or child processes outlive the body.

    Also if asyncio logs an error, such as a task destroyed while pending, or an exception that was
    never retrieved.
    """
    gc.freeze()  # exclude the existing objects from the collections below, which are slow otherwise
    threads = set(threading.enumerate())
    files = _open_files()
    children = set(_children())
    with _asyncio_errors() as errors:
        yield
        left = _left(threads, files, children)
        deadline = time.monotonic() + PATIENCE
        while left and time.monotonic() < deadline:
            time.sleep(0.01)
            left = _left(threads, files, children)
    if left or errors:
        raise AssertionError("left behind:\n" + "\n".join([*left, *errors]))


def _left(
    threads: set[threading.Thread], files: Counter[str], children: set[psutil.Process]
) -> list[str]:
    gc.collect()
    new_threads = [
        thread
        for thread in threading.enumerate()
        if thread not in threads and not TOLERATED_THREADS.fullmatch(thread.name)
    ]
    new_files = _open_files() - files
    new_children = [child for child in _children() if child not in children]
    return [
        *(f"thread {thread.name!r}\n{_stack(thread)}" for thread in new_threads),
        *(f"{_kind(target)} {target} ({count}x)" for target, count in new_files.items()),
        *(f"process {child}" for child in new_children),
    ]


def _stack(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)[-6:]) if frame else ""


def _open_files() -> Counter[str]:
    """The target of each open file descriptor, counted."""
    targets: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        try:
            targets[os.readlink(f"/proc/self/fd/{name}")] += 1
        except FileNotFoundError:
            continue  # the descriptor that `listdir` itself has used
    return targets


def _kind(target: str) -> str:
    kind, colon, _ = target.partition(":")
    return kind if colon and not target.startswith("/") else "file"


def _children() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.is_running()]


@contextmanager
def _asyncio_errors() -> Iterator[list[str]]:
    """Collect the errors that asyncio logs because it has no caller to raise them to."""
    errors: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(self.format(record))

    handler = Collector(logging.ERROR)
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    try:
        yield errors
    finally:
        logger.removeHandler(handler)


def watch_tasks(test: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Make an async test fail if tasks that it has started are still running at its end.

    In trio only system tasks can be left: all others are children of the test's own nurseries.
    """

    @functools.wraps(test)
    async def watched(*args: Any, **kwargs: Any) -> Any:
        tasks = _asyncio_tasks if sniffio.current_async_library() == "asyncio" else _trio_tasks
        before = tasks()
        result = await test(*args, **kwargs)
        with anyio.move_on_after(PATIENCE):
            while tasks() - before:  # noqa: ASYNC110 - a task's end sets no event of ours
                await anyio.sleep(0.01)
        left = tasks() - before
        if left:
            raise AssertionError("tasks left behind:\n" + "\n".join(map(repr, left)))
        return result

    return watched


def _asyncio_tasks() -> set[Any]:
    return {task for task in asyncio.all_tasks() if not task.done()}


def _trio_tasks() -> set[Any]:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return {task for nursery in root.child_nurseries for task in nursery.child_tasks}
