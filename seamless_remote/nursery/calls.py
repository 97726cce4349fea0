"""The calls of a nursery: those that run in it, and those that wait in its line to begin."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

from ..errors import NurseryClosedError
from ..settings import Settings
from .handover import Handover, Operation
from .line import Line, Turn
from .event_loops import running_loop
from .outbox import Outbox
from .scope import Scope

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Calls:
    """Runs calls in a scope: those of its own loop in their callers' tasks, others in tasks of its
    own. All of it in the nursery's loop, but for the counts.
    """

    def __init__(self, settings: Settings) -> None:
        self._home = running_loop()
        # The backend's own class: `anyio.CancelScope` finds out anew each time which one that is.
        self._cancel_scope: type[anyio.CancelScope] = type(anyio.CancelScope())
        self._is_open = True
        # All that the nursery's end waits for: calls that have begun, and its own loop's in line.
        self._calls: set[anyio.CancelScope | Handover[Any] | Turn] = set()
        bounded = settings.total_timeout is None  # otherwise a call must not wait unbegun
        self._line = Line(self._home, settings.database_max_inflight if bounded else 0)
        self._last_call_ended = anyio.Event()
        self._outbox = Outbox(self._home)

    def open(self, scope: Scope, task_group: TaskGroup) -> None:
        """Take calls from now on, to run in this scope, in tasks of this group."""
        self._scope = scope
        self._task_group = task_group
        self._context = copy_context()
        task_group.start_soon(self._outbox.run, name="outbox of the remote nursery")

    def count(self) -> int:
        """How many there are, running and in line. From any thread."""
        return len(self._calls) + self._line.waiting()[1]

    def in_line(self) -> int:
        """How many wait to begin. From any thread."""
        return sum(self._line.waiting())

    async def run_here(
        self, operation: Operation[T], args: tuple[Any, ...], *, limited: bool = False
    ) -> T:
        """Run a call right here, in the caller's own task.

        A `limited` one waits in line first.

        NurseryClosedError: the nursery ended, and its grace period with it.
        """
        if limited and not self._line.enter():
            await self._wait_in_line()
        with self._cancel_scope() as call:
            self._calls.add(call)
            try:
                return await operation(self._scope, *args)
            finally:
                if limited:
                    self._leave_line()
                self._ended(call)
        raise NurseryClosedError("the remote nursery ended while this call was running")

    async def _wait_in_line(self) -> None:
        turn = self._line.join()
        self._calls.add(turn)
        try:
            await turn.wait()
            if turn.refused:
                raise NurseryClosedError("the remote nursery ended while this call was in its line")
        except BaseException:
            self._line.give_up(turn)
            self._begin_next()
            raise
        finally:
            self._ended(turn)

    def take_up(self, handover: Handover[Any]) -> None:
        """Begin a call that was handed over, put it in line, or return it when the end has come."""
        if not self._is_open:
            handover.return_unclaimed(self._outbox)
        elif handover.limited and not self._line.enter():
            handover.in_line = True
            self._line.append(handover)
        elif handover.claim():
            self._start(handover)
        elif handover.limited:
            self._leave_line()

    def _start(self, handover: Handover[Any]) -> None:
        """Start a task for a claimed call, which has its place if it is limited."""
        # From here on it counts: the nursery does not end between its claim and its start.
        self._calls.add(handover)
        run: Callable[..., Coroutine[Any, Any, object]] = handover.run
        args: tuple[Any, ...] = (self._scope, self._new_shield(), self._handover_ended)
        if handover.limited:
            run, args = self._run_limited, (handover,)
        start = partial(self._task_group.start_soon, run, *args, name="a call")
        try:
            # Not in the context of the host's call that may just have left its place.
            self._context.copy().run(start)
        except BaseException as exc:
            handover.fail(exc)
            self._handover_ended(handover)
            if handover.limited:
                self._line.leave()
            raise

    async def _run_limited(self, handover: Handover[Any]) -> None:
        """Run a handed-over call, and in the same task those in line that get its place.

        A call that fails, is cancelled or leaves a context variable changed is the last one: what
        is left of it does not reach the next call, which has a new task.
        """
        context = copy_context()
        while True:
            try:
                shield = self._new_shield()
                undisturbed = await handover.run(self._scope, shield, self._handover_ended)
            except BaseException:
                self._leave_line()
                raise
            if not undisturbed or copy_context() != context:
                self._leave_line()
                return
            self._line.leave()
            following = self._line.next()
            if following is None:
                return
            handover = following
            self._calls.add(handover)

    def _new_shield(self) -> anyio.CancelScope:
        return self._cancel_scope(shield=True)

    def _leave_line(self) -> None:
        """Give a place up, to those in line."""
        self._line.leave()
        self._begin_next()

    def _begin_next(self) -> None:
        if isinstance(self._home, asyncio.AbstractEventLoop) and self._home.is_closed():
            return  # a call that was dropped with its loop is collected: nothing begins there
        while (handover := self._line.next()) is not None:
            try:
                self._start(handover)
            except Exception:
                logger.exception("a call that was handed over could not be started")

    def _handover_ended(self, handover: Handover[Any]) -> None:
        self._ended(handover)
        handover.go_home(self._outbox, last=not self._calls)

    def _ended(self, call: anyio.CancelScope | Handover[Any] | Turn) -> None:
        self._calls.discard(call)
        if not self._calls:
            self._last_call_ended.set()

    # The end.

    def stop_taking(self) -> None:
        """Return whatever is handed over from now on, and what has not begun by now."""
        self._is_open = False
        for handover in self._line.clear_handed_over():
            handover.return_unclaimed(self._outbox)

    def cancel(self) -> None:
        """Cancel all that are left; those of the loop's own tasks get a NurseryClosedError."""
        for call in list(self._calls):
            call.cancel()

    async def to_end(self, patience: float) -> None:
        """Wait until all have ended, at most `patience` seconds."""
        with anyio.move_on_after(patience):
            while self._calls:
                self._last_call_ended = anyio.Event()
                await self._last_call_ended.wait()
