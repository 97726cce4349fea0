"""Event loops of each kind, in this thread, in others, and left behind in the middle of a task."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import threading
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import Any, TypeVar

import anyio
import pytest
from signals import LONG

from seamless_remote.nursery.event_loops import post, running_loop

with contextlib.suppress(ImportError):
    import uvloop

T = TypeVar("T")

KINDS = ("asyncio", "trio", "uvloop")
ASYNCIO_KINDS = ("asyncio", "uvloop")

ON_ASYNCIO = pytest.mark.parametrize(
    "anyio_backend",
    ["asyncio", pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")],
)
"""For tests of what only asyncio has, such as cancelling a task from outside of any scope."""

# Without being closed, a loop of uvloop that has run is never collected: libuv keeps it.
DROPPED = pytest.mark.parametrize(
    ("kind", "closed"), [("asyncio", True), ("asyncio", False), ("uvloop", True)]
)


def backend_of(kind: str) -> dict[str, Any]:
    """A kind of loop as keyword arguments of `anyio.run`."""
    if kind != "uvloop":
        return {"backend": kind}
    pytest.importorskip("uvloop")
    return {"backend": "asyncio", "backend_options": {"use_uvloop": True}}


def run(kind: str, function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run an async function to its end, in a new loop in this thread."""
    return anyio.run(function, *args, **backend_of(kind))


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """A loop of asyncio or uvloop."""
    if kind != "uvloop":
        return asyncio.new_event_loop()
    pytest.importorskip("uvloop")
    return uvloop.new_event_loop()


class LoopThread:
    """A loop that turns in a thread of its own, until `end`."""

    def __init__(self, kind: str) -> None:
        self._begun: Future[None] = Future()
        # A daemon: one that hangs fails its test, and does not keep the interpreter from ending.
        self._thread = threading.Thread(target=run, args=(kind, self._main), daemon=True)
        self._thread.start()
        self._begun.result(LONG)

    def start(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Begin to run a function, async or not, in the loop. Cancelling the future cancels it."""
        future: Future[Any] = Future()
        # In a context of that loop: the caller's would say which backend the caller runs on.
        begin = partial(self._context.run, self._tasks.start_soon, self._call)
        post(self.loop, partial(begin, future, function, args))
        return future

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """The same, and wait for its outcome."""
        return self.start(function, *args).result(LONG)

    def settle(self) -> None:
        """Wait until no task of the loop can go on by itself."""
        self.run(anyio.wait_all_tasks_blocked)

    def end(self) -> None:
        """Cancel its tasks, and have it end."""
        post(self.loop, lambda: self._tasks.cancel_scope.cancel())
        self._thread.join(LONG)
        assert not self._thread.is_alive()

    async def _main(self) -> None:
        self.loop = running_loop()
        self._context = contextvars.copy_context()
        async with anyio.create_task_group() as self._tasks:
            self._begun.set_result(None)
            await anyio.sleep_forever()

    async def _call(
        self, future: Future[Any], function: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        def cancel(future: Future[Any]) -> None:
            if future.cancelled():
                post(self.loop, scope.cancel)

        with anyio.CancelScope() as scope:
            future.add_done_callback(cancel)
            try:
                outcome = function(*args)
                if inspect.isawaitable(outcome):
                    outcome = await outcome
            except Exception as exc:
                with contextlib.suppress(InvalidStateError):
                    future.set_exception(exc)
            else:
                with contextlib.suppress(InvalidStateError):
                    future.set_result(outcome)


class Dropped:
    """A loop of asyncio's kind that stops with tasks in the middle of something."""

    def __init__(self, kind: str) -> None:
        self.loop = new_loop(kind)
        self._tasks: list[asyncio.Task[Any]] = []

    def begin(self, *functions: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Begin each function in a task, let all come to a stand, and stop the loop."""

        async def begin() -> None:
            for function in functions:
                task = asyncio.ensure_future(function())
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                self._tasks.append(task)
            for _ in range(5):
                await asyncio.sleep(0)

        self.loop.run_until_complete(begin())

    def cancel(self) -> None:
        """Cancel the tasks and let them end. Closes the loop."""
        for task in self._tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self.loop.close()

    def close(self) -> None:
        """Close the loop, and keep its tasks."""
        self.loop.close()

    def collect(self) -> None:
        """Have the loop and its tasks collected."""
        self._tasks.clear()
        del self.loop
        with warnings.catch_warnings():
            # asyncio warns of a loop that is collected before it is closed: not what is tested.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
