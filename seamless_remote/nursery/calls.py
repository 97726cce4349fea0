"""The calls under way: each runs in its caller's own task, and can be ended from any thread."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from ..errors import NurseryClosedError
from ..settings import Settings
from .deadline import deadline_in
from .event_loops import LoopEndedError, has_ended, is_running, post

LOOK_INTERVAL = 0.1
"""Seconds between two looks at whether a call has ended without telling: dropped with its loop."""


@dataclass(frozen=True, slots=True)
class CallSnapshot:
    """A call under way: what it does, for how many seconds, and what it waits for right now."""

    what: str
    age: float
    waits_for: str


class Call:
    """What an operation runs with: its loop, its settings, and a note of what it waits for.

    Background tasks have a plain one. A user's call is a `TrackedCall`.
    """

    __slots__ = ("__weakref__", "is_long", "loop", "settings", "waits_for")

    def __init__(self, loop: Any, settings: Settings) -> None:
        self.loop = loop
        self.settings = settings
        self.is_long = False
        """Whether it may take for days: then no grace period is of use to it."""
        self.waits_for: object = None
        """Anything whose text says it; only a snapshot makes that text."""

    @property
    def ending(self) -> bool:
        """Whether the nursery, or `close_all_clients()`, has asked it to end."""
        return False


class TrackedCall(Call):
    """A user's call. As a context manager it is under way: a nursery's end waits for it.

    Leaving the block raises NurseryClosedError if the call was ended from outside before it was
    done. A cancellation by its caller passes through.
    """

    __slots__ = ("_calls", "_deadline", "_ending", "started", "thread", "what")

    def __init__(self, loop: Any, settings: Settings, calls: Calls, what: str) -> None:
        # Not by `super()`: this is made for each call.
        self.loop = loop
        self.settings = settings
        self.is_long = False
        self.waits_for = None
        self.what = what
        self.thread = threading.get_ident()
        self.started = time.monotonic()
        self._calls = calls
        self._deadline = deadline_in(loop)
        self._ending = False

    def __enter__(self) -> TrackedCall:
        self._deadline.enter()
        self._calls.begin(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._calls.end(self)
        if self._deadline.exit(exc_type, exc):
            raise NurseryClosedError(
                f"the clients were closed on this side during {self.what}"
            ) from exc

    @property
    def ending(self) -> bool:
        return self._ending

    def end_within(self, seconds: float) -> None:
        """Cancel it in so many seconds, unless it is done by then, or is cancelled sooner.

        A long one is cancelled at once. From any thread.
        """
        self._ending = True

        def set_deadline() -> None:
            if self._calls.has(self):
                self._deadline.set(0.0 if self.is_long else seconds)

        with suppress(LoopEndedError):  # it can never go on
            post(self.loop, set_deadline)

    def snapshot(self) -> CallSnapshot:
        """The call as plain data. From any thread."""
        waits_for = "" if self.waits_for is None else str(self.waits_for)
        return CallSnapshot(self.what, time.monotonic() - self.started, waits_for)


class Calls:
    """The calls under way in this process, in whatever loops.

    They are referenced weakly: a loop that is dropped with its tasks must be collected.
    """

    def __init__(self) -> None:
        self._calls: dict[int, weakref.ref[TrackedCall]] = {}
        self._told: list[Callable[[], object]] = []

    def begin(self, call: TrackedCall) -> None:
        """A call begins."""
        self._calls[id(call)] = weakref.ref(call)

    def end(self, call: TrackedCall) -> None:
        """A call is over."""
        self._calls.pop(id(call), None)
        if self._told:
            for tell in tuple(self._told):
                tell()

    def has(self, call: TrackedCall) -> bool:
        """Whether a call is under way."""
        return id(call) in self._calls

    def under_way(self) -> list[TrackedCall]:
        """Those that can still go on, the oldest first."""
        calls = [reference() for reference in list(self._calls.values())]
        return [call for call in calls if call is not None and not has_ended(call.loop)]

    @contextmanager
    def telling(self, tell: Callable[[], object]) -> Iterator[None]:
        """Have `tell` called whenever a call ends, in the thread in which it does."""
        self._told.append(tell)
        try:
            yield
        finally:
            self._told.remove(tell)

    def end_all(self, grace: float) -> None:
        """Cancel the calls that are under way now in `grace` seconds, and wait until they are over.

        The thread waits for their cleanup as well, for `grace` seconds more at most. It does not
        wait for the calls of a loop that has stopped, nor for those of a loop of this thread.
        """
        calls = self.under_way()
        for call in calls:
            call.end_within(grace)
        here = threading.get_ident()
        awaited = {id(call) for call in calls if call.thread != here}
        deadline = time.monotonic() + 2 * grace
        # Not an Event: the collector may end a call in this very thread, while that is locked.
        ended: queue.SimpleQueue[None] = queue.SimpleQueue()
        with self.telling(partial(ended.put, None)):
            while awaited := awaited & {
                id(call) for call in self.under_way() if is_running(call.loop)
            }:
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                with suppress(queue.Empty):
                    ended.get(timeout=min(left, LOOK_INTERVAL))
