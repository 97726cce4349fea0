"""The remote nursery: a long-lived task group that owns all connections and background tasks."""

from __future__ import annotations

import asyncio
import enum
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Iterable
from contextlib import asynccontextmanager
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from ..errors import NurseryClosedError
from ..settings import Settings
from .handover import Handover, Operation
from .limiter import Limiter
from .line import Line, Turn
from .loops import mailbox_of, running_loop, runs_task_of
from .outbox import Outbox
from .scope import Resource, Scope
from .service import Service
from .sharing import SharedWork
from .snapshot import NurserySnapshot, ServiceSnapshot
from .supervision import SupervisedTask
from .watch import Watches

logger = logging.getLogger(__name__)

T = TypeVar("T")

PLACES_A_REQUEST = 2
"""How many limited calls have begun at once, for each database request that may be in flight: the
one whose request it is, and one that stands ready for the next."""

DRAIN_POLL = 0.02
"""Seconds between two looks at whether the requests of a service that is given up have ended."""


class NurseryState(str, enum.Enum):
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class _NurseryScope(Scope):
    """The scope of calls that run in the nursery."""

    def __init__(self, nursery: RemoteNursery, task_group: TaskGroup) -> None:
        super().__init__(nursery.settings)
        self._nursery = nursery
        self._limiter = Limiter("database limiter", nursery.settings.database_max_inflight)
        self._shared = SharedWork(task_group)

    @property
    def limiter(self) -> Limiter:
        return self._limiter

    async def share(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        self._require_open()
        return await self._shared.join(key, work)

    def _adopt(self, resource: Resource) -> None:
        self._nursery._supervise(f"upkeep of {type(resource).__name__}", resource.upkeep)


class _RunningService:
    """A service of the nursery with its supervised task."""

    __slots__ = ("service", "state", "task")

    def __init__(self, service: Service, task: SupervisedTask) -> None:
        self.service = service
        self.task = task
        self.state = "running"


class RemoteNursery:
    """The scope that owns what the clients hold: sockets, background tasks, services.

    It lives in one event loop, its *home*. `run_here` is called there; `take` and `post` from
    anywhere. Hosts open one with `seamless_remote.open_nursery()`.
    """

    def __init__(self, settings: Settings, *, hosted: bool) -> None:
        self.settings = settings
        self.hosted = hosted
        self.state = NurseryState.OPEN
        self.home: Any = running_loop()
        self.thread = threading.get_ident()
        self.mailbox = mailbox_of(self.home)
        self.watches = Watches(self.mailbox, settings.handover_patience)
        self._backend = "asyncio" if isinstance(self.home, asyncio.AbstractEventLoop) else "trio"
        # All that the nursery's end waits for: calls that have begun, and its own loop's in line.
        self._calls: set[anyio.CancelScope | Handover[Any] | Turn] = set()
        bounded = settings.total_timeout is None  # otherwise a call must not wait unbegun
        self._line = Line(PLACES_A_REQUEST * settings.database_max_inflight if bounded else 0)
        self._last_call_ended = anyio.Event()
        self._posted = anyio.Event()
        self._outbox = Outbox()
        self._tasks: list[SupervisedTask] = []
        self._services: dict[str, _RunningService] = {}
        self._retiring: list[_RunningService] = []

    def _begin(self, task_group: TaskGroup) -> None:
        self._task_group = task_group
        self._context = copy_context()
        self._scope = _NurseryScope(self, task_group)
        self.mailbox.attend(self._ring)
        task_group.start_soon(self._receive, name="reception of the remote nursery")
        task_group.start_soon(self._outbox.run, name="outbox of the remote nursery")

    def _ring(self) -> None:
        self._posted.set()

    async def _receive(self) -> None:
        """Take in what other threads post: a task, for what it starts must be started by one.

        When it ends, the nursery takes no more: whatever is posted after that goes back.
        """
        try:
            while True:
                while self.mailbox.drain():
                    await checkpoint()
                await self._posted.wait()
                self._posted = anyio.Event()
        finally:
            self._stop_taking()
            self.mailbox.leave(self._ring)

    # Calls.

    async def run_here(
        self, operation: Operation[T], args: tuple[Any, ...], *, limited: bool = False
    ) -> T:
        """Run a call right here, in the caller's own task. Only in the nursery's loop.

        A `limited` one waits in line first.

        NurseryClosedError: the nursery ended, and its grace period with it.
        """
        if limited and not self._line.enter():
            await self._wait_in_line()
        with anyio.CancelScope() as call:
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

    def take(self, handover: Handover[Any]) -> None:
        """Take a call over, from any thread; returned to its caller if the nursery ends first.

        LoopClosedError: the nursery's loop is gone.
        """
        self.mailbox.post(partial(self._take_up, handover))

    def _take_up(self, handover: Handover[Any]) -> None:
        if self.state is not NurseryState.OPEN:
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
        args: tuple[Any, ...] = (self._scope, self._handover_ended)
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
                undisturbed = await handover.run(self._scope, self._handover_ended)
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

    def _leave_line(self) -> None:
        """Give a place up, to those in line."""
        self._line.leave()
        self._begin_next()

    def _begin_next(self) -> None:
        if isinstance(self.home, asyncio.AbstractEventLoop) and self.home.is_closed():
            return  # a call that was dropped with its loop is collected: nothing begins there
        while (handover := self._line.next()) is not None:
            try:
                self._start(handover)
            except Exception:
                logger.exception("a call that was handed over could not be started")

    def _handover_ended(self, handover: Handover[Any]) -> None:
        self._ended(handover)
        handover.go_home(self._outbox)

    def _ended(self, call: anyio.CancelScope | Handover[Any] | Turn) -> None:
        self._calls.discard(call)
        if not self._calls:
            self._last_call_ended.set()

    def post(self, action: Callable[[], object]) -> None:
        """Have `action` called in the nursery's loop: now if this is a task of it, soon otherwise.

        LoopClosedError: the loop has ended.
        """
        if runs_task_of(self.home):
            action()
        else:
            self.mailbox.post(action)

    # Services and supervised tasks. All in the nursery's loop.

    def swap(self, service: Service) -> None:
        """Start a service in place of the one of its name, which ends when its requests have."""
        if self.state is not NurseryState.OPEN:
            return
        old = self._services.pop(service.name, None)
        if old is not None and old.service is service:
            self._services[service.name] = old
            return
        if not service.idle():
            task = self._supervise(
                f"keepalive of {service.name}",
                lambda: service.run(self._scope),
                on_given_up=lambda reason: self._give_up(service, reason),
            )
            self._services[service.name] = _RunningService(service, task)
            logger.info("service %s started", service.name)
        if old is not None:
            old.state = "stopping"
            self._retiring.append(old)
            self._task_group.start_soon(self._retire, old, name=f"retire {service.name}")

    def rest(self) -> None:
        """Stop all services and let go of their connections; a later `swap` starts them again."""
        for running in list(self._services.values()):
            self._stop(running)
            del self._services[running.service.name]
            running.service.release(self._scope, ())

    async def _retire(self, old: _RunningService) -> None:
        with anyio.move_on_after(self.settings.grace_period):
            while old.service.in_flight():  # noqa: ASYNC110 - counted across loops and threads
                await anyio.sleep(DRAIN_POLL)
        self._retiring.remove(old)
        self._stop(old)
        old.service.release(self._scope, [each.service for each in self._services.values()])

    def _stop(self, running: _RunningService) -> None:
        running.task.stop()
        if running.task in self._tasks:
            self._tasks.remove(running.task)
        logger.info("service %s stopped", running.service.name)

    def _give_up(self, service: Service, reason: str) -> None:
        service.mark_down(f"its keepalive fails too often: {reason}")
        running = self._services.get(service.name)
        if running is not None and running.service is service:
            running.state = "down"

    def _supervise(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        *,
        on_given_up: Callable[[str], None] | None = None,
    ) -> SupervisedTask:
        task = SupervisedTask(name, work, on_given_up=on_given_up)
        self._tasks.append(task)
        self._task_group.start_soon(task.run, name=name)
        return task

    # The end.

    def _stop_taking(self) -> None:
        if self.state is NurseryState.OPEN:
            self.state = NurseryState.CLOSING
            for handover in self._line.clear_handed_over():
                handover.return_unclaimed(self._outbox)

    async def _end(self) -> None:
        """Give requests in flight their grace, then cancel what is left and close every socket."""
        self._stop_taking()
        grace = self.settings.grace_period
        await self._calls_to_end(grace)
        if self._calls:
            logger.info(
                "the remote nursery ends with %d calls in flight after %g s of grace",
                len(self._calls),
                grace,
            )
            for call in list(self._calls):
                call.cancel()
            await self._calls_to_end(grace)
        self._task_group.cancel_scope.cancel()
        await self._scope.aclose_resources()
        self.state = NurseryState.CLOSED

    async def _calls_to_end(self, patience: float) -> None:
        with anyio.move_on_after(patience):
            while self._calls:
                self._last_call_ended = anyio.Event()
                await self._last_call_ended.wait()

    def snapshot(self) -> NurserySnapshot:
        """How the nursery is now, as plain data. From any thread."""
        limiter = self._scope.limiter.snapshot()
        turns, handed_over = self._line.waiting()
        return NurserySnapshot(
            backend=self._backend,
            hosted=self.hosted,
            state=self.state.value,
            calls=len(self._calls) + handed_over,
            services=tuple(self._service_snapshots()),
            limiter=replace(limiter, waiting=limiter.waiting + turns + handed_over),
            tasks=tuple(task.snapshot() for task in list(self._tasks)),
        )

    def _service_snapshots(self) -> Iterable[ServiceSnapshot]:
        for running in [*self._services.values(), *self._retiring]:
            yield ServiceSnapshot(
                name=running.service.name,
                state=running.state,
                clients=running.service.client_snapshots(),
            )


@asynccontextmanager
async def run_nursery(settings: Settings, *, hosted: bool) -> AsyncIterator[RemoteNursery]:
    """A nursery in the running loop, open until the block ends. It is not made current here.

    An error of the block comes out as it is, not in an exception group. A failure of the nursery
    itself cancels the block and comes out in one. A cancellation waits for the nursery's end.
    """
    nursery = RemoteNursery(settings, hosted=hosted)
    cancelled = anyio.get_cancelled_exc_class()
    failure: BaseException | None = None
    try:
        async with anyio.create_task_group() as task_group:
            nursery._begin(task_group)
            try:
                yield nursery
            except cancelled:
                raise
            except BaseException as exc:
                failure = exc
            finally:
                with anyio.CancelScope(shield=True):
                    await nursery._end()
    except BaseException as exc:
        if failure is None:
            raise
        if not isinstance(exc, cancelled):
            logger.critical("the remote nursery failed, beside its block", exc_info=exc)
    finally:
        nursery.state = NurseryState.CLOSED
    if failure is not None:
        try:
            raise failure
        finally:
            failure = None  # it refers to this frame
