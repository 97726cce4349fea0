"""Work that several callers ask for at once, done once for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from types import TracebackType
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

from ..errors import NurseryClosedError

T = TypeVar("T")


class _Work:
    __slots__ = ("done", "error", "scope", "traceback", "value", "waiters")

    def __init__(self) -> None:
        self.done = anyio.Event()
        # A cancellation of the nursery's block leaves it to its callers, who have their grace.
        self.scope = anyio.CancelScope(shield=True)
        self.waiters = 0
        self.value: Any = None
        self.error: BaseException | None = NurseryClosedError(
            "the remote nursery ended while it was fetching this for several callers"
        )
        self.traceback: TracebackType | None = None


class SharedWork:
    """Work by key: who asks for a key that is being worked on waits for that work's outcome.

    Each piece of work is a task of the nursery. Cancelling one of several callers leaves the
    others their result; cancelling the last one cancels the work, and waits for it to end. An
    error reaches all who wait.
    """

    def __init__(self, task_group: TaskGroup) -> None:
        self._task_group = task_group
        self._works: dict[Hashable, _Work] = {}

    async def join(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """The outcome of `work`, started now or by an earlier caller with the same key."""
        entry = self._works.get(key)
        if entry is None:
            entry = _Work()
            self._task_group.start_soon(self._run, key, entry, work, name=f"shared {key!r}")
            self._works[key] = entry
        entry.waiters += 1
        try:
            await entry.done.wait()
        except GeneratorExit:
            self._leave(key, entry)
            raise
        except BaseException:
            if self._leave(key, entry):
                with anyio.CancelScope(shield=True):
                    await entry.done.wait()
            raise
        if entry.error is not None:
            # Every caller adds its own frames: to a traceback of its own.
            raise entry.error.with_traceback(entry.traceback)
        value: T = entry.value
        return value

    def _leave(self, key: Hashable, entry: _Work) -> bool:
        """Wait no longer. True: nobody does, and the work has been cancelled."""
        entry.waiters -= 1
        if entry.waiters or entry.done.is_set():
            return False
        self._forget(key, entry)
        entry.scope.cancel()
        return True

    async def _run(self, key: Hashable, entry: _Work, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            with entry.scope:
                entry.value = await work()
                entry.error = None
        except Exception as exc:
            entry.error = exc
            entry.traceback = exc.__traceback__
        except anyio.get_cancelled_exc_class():
            # As in `Handover.run`: cancelled elsewhere, which is no reason to end the nursery.
            entry.error = NurseryClosedError("what several callers wait for was cancelled")
        finally:
            self._forget(key, entry)
            entry.done.set()

    def _forget(self, key: Hashable, entry: _Work) -> None:
        if self._works.get(key) is entry:
            del self._works[key]
