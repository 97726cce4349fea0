"""The remote nursery: a long-lived task group that owns all connections and background tasks."""

from __future__ import annotations

import asyncio
import enum
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from ..settings import Settings
from .calls import Calls
from .handover import Handover
from .limiter import Limiter
from .event_loops import mailbox_of, running_loop, runs_task_of
from .scope import Resource, Scope
from .service import Service
from .shared_work import SharedWork
from .snapshot import NurserySnapshot, ServiceSnapshot
from .supervision import SupervisedTask
from .waiter import wake_up
from .watch import Watches

logger = logging.getLogger(__name__)

T = TypeVar("T")

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

    It lives in one event loop, its *home*; `take` and `post` are called from anywhere. Hosts open
    one with `seamless_remote.open_nursery()`.
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
        self.calls = Calls(settings)
        self._posted = wake_up(self.home)
        self._tasks: list[SupervisedTask] = []
        self._services: dict[str, _RunningService] = {}
        self._retiring: list[_RunningService] = []

    def _begin(self, task_group: TaskGroup) -> None:
        self._task_group = task_group
        self._scope = _NurseryScope(self, task_group)
        self.calls.open(self._scope, task_group)
        self.mailbox.attend(self._ring)
        task_group.start_soon(self._receive, name="reception of the remote nursery")

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
                self._posted = wake_up(self.home)
        finally:
            self._stop_taking()
            self.mailbox.leave(self._ring)

    def take(self, handover: Handover[Any]) -> None:
        """Take a call over, from any thread; returned to its caller if the nursery ends first.

        LoopClosedError: the nursery's loop is gone.
        """
        self.mailbox.post(partial(self.calls.take_up, handover))

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
            self.calls.stop_taking()

    async def _end(self) -> None:
        """Give requests in flight their grace, then cancel what is left and close every socket."""
        self._stop_taking()
        grace = self.settings.grace_period
        await self.calls.to_end(grace)
        if self.calls.count():
            logger.info(
                "the remote nursery ends with %d calls in flight after %g s of grace",
                self.calls.count(),
                grace,
            )
            self.calls.cancel()
            await self.calls.to_end(grace)
        self._task_group.cancel_scope.cancel()
        await self._scope.aclose_resources()
        self.state = NurseryState.CLOSED

    def snapshot(self) -> NurserySnapshot:
        """How the nursery is now, as plain data. From any thread."""
        limiter = self._scope.limiter.snapshot()
        in_line = self.calls.in_line()
        return NurserySnapshot(
            backend=self._backend,
            hosted=self.hosted,
            state=self.state.value,
            calls=self.calls.count(),
            services=tuple(self._service_snapshots()),
            limiter=replace(limiter, waiting=limiter.waiting + in_line),
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
