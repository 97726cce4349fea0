"""The remote nursery: a long-lived task group that runs what the clients need in the background."""

from __future__ import annotations

import enum
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from ..settings import Settings
from .bound import Bound
from .calls import Call, Calls
from .event_loops import has_ended, is_asyncio, running_loop
from .service import Resource, Service
from .snapshot import NurserySnapshot, ServiceSnapshot
from .supervision import SupervisedTask
from .waiter import Waiter, waiter_in

logger = logging.getLogger(__name__)

DRAIN_POLL = 0.02
"""Seconds between two looks at whether the requests of a service that is given up have ended."""


class NurseryState(str, enum.Enum):
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Owner(Protocol):
    """What a nursery asks of the process that it runs in."""

    @property
    def calls(self) -> Calls: ...
    @property
    def limiter(self) -> Bound: ...
    @property
    def jobs(self) -> Bound: ...
    @property
    def resources(self) -> Sequence[Resource]: ...

    def services_for(self, nursery: RemoteNursery) -> Sequence[Service] | None:
        """The services that it is to run by now; None: it is not the current one (any more)."""

    def replaced(self) -> Collection[Service]:
        """Services that others took the place of, and that no nursery has seen off yet."""

    def seen_off(self, services: Collection[Service]) -> None:
        """These are given up: their requests have ended, or had their time."""


class _RunningService:
    """A service with its supervised tasks."""

    __slots__ = ("service", "state", "tasks")

    def __init__(self, service: Service) -> None:
        self.service = service
        self.tasks: list[SupervisedTask] = []
        self.state = "running"


class RemoteNursery:
    """The scope in which services, their pings and the upkeep of idle connections live.

    It lives in one event loop, its *home*. No call runs in it, and none waits for it. Hosts open
    one with `seamless_remote.open_nursery()`.
    """

    def __init__(self, settings: Settings, owner: Owner, *, hosted: bool) -> None:
        self.settings = settings
        self.hosted = hosted
        self.state = NurseryState.OPEN
        self._owner = owner
        self.home: Any = None
        self._changed: Waiter | None = None
        self._tasks: list[SupervisedTask] = []
        self._services: dict[str, _RunningService] = {}
        self._retiring: list[_RunningService] = []

    @property
    def is_open(self) -> bool:
        """Whether it looks after what the process holds; False once its loop was closed."""
        if self.state is not NurseryState.OPEN:
            return False
        # A hosted one ends with its loop.
        return self.hosted or self.home is None or not has_ended(self.home)

    def rearrange(self) -> None:
        """Have it look at which services it is to run. From any thread; does not wait."""
        # A nursery that has not begun yet looks when it begins, after it has made this known.
        if self._changed is not None:
            self._changed.wake()

    # All that follows runs in the home loop, `snapshot` aside.

    def _begin(self, task_group: TaskGroup) -> None:
        self.home = running_loop()
        self._task_group = task_group
        self._changed = waiter_in(self.home)
        self._call = Call(self.home, self.settings)
        for resource in self._owner.resources:
            self._supervise(f"upkeep of {resource}", partial(resource.upkeep, self._call))
        task_group.start_soon(self._attend, name="reception of the remote nursery")

    async def _attend(self) -> None:
        while True:
            self._changed = changed = waiter_in(self.home)
            self._arrange()
            await changed.wait()

    def _arrange(self) -> None:
        """Run the services that are wanted by now.

        Which those are is read here, not when the change was made: the last change wins, in
        whatever order the threads that made changes come to wake this.
        """
        wanted = self._owner.services_for(self)
        if wanted is None:
            return
        names = {service.name for service in wanted}
        old = [self._services.pop(name) for name in set(self._services) - names]
        for service in wanted:
            former = self._services.get(service.name)
            if former is None or former.service is not service:
                self._services.pop(service.name, None)
                self._start(service)
                if former is not None:
                    old.append(former)
        known = {each.service for each in (*self._services.values(), *self._retiring, *old)}
        # Replaced before this nursery looked, or given up by one that has ended meanwhile.
        old += [_RunningService(each) for each in self._owner.replaced() if each not in known]
        if old:
            self._retire(old)

    def _start(self, service: Service) -> None:
        running = _RunningService(service)
        tasks = service.tasks()
        if not (tasks or service.client_snapshots()):
            return  # without clients, there is nothing to show either
        self._services[service.name] = running
        for task in tasks:

            def give_up(
                reason: str, tell: Callable[[str], None] = task.give_up, name: str = task.name
            ) -> None:
                running.state = "down"
                tell(f"its background task, {name}, fails too often: {reason}")

            running.tasks.append(
                self._supervise(task.name, partial(task.run, self._call), on_given_up=give_up)
            )
        logger.info("service %s started", service.name)

    def _retire(self, old: Sequence[_RunningService]) -> None:
        """Give services up when their requests have ended."""
        busy = [each for each in old if each.service.in_flight()]
        self._give_up([each for each in old if each not in busy])
        if busy:
            for each in busy:
                each.state = "stopping"
            self._retiring += busy
            names = ", ".join(sorted({each.service.name for each in busy}))
            self._supervise(f"retirement of {names}", partial(self._see_off, busy))

    async def _see_off(self, busy: Sequence[_RunningService]) -> None:
        with anyio.move_on_after(self.settings.grace_period):
            while busy:
                await anyio.sleep(DRAIN_POLL)  # requests end in any loop or thread, untold
                self._give_up([each for each in busy if not each.service.in_flight()])
                busy = [each for each in busy if each in self._retiring]
        self._give_up(busy)

    def _give_up(self, old: Sequence[_RunningService]) -> None:
        remaining = [each.service for each in self._services.values()]
        for each in old:
            for task in each.tasks:
                task.stop()
            each.service.release(remaining)
            logger.info("service %s stopped", each.service.name)
        self._owner.seen_off([each.service for each in old])
        self._retiring = [each for each in self._retiring if each not in old]
        self._tasks = [task for task in self._tasks if not task.is_over]

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

    async def _end(self) -> None:
        """Give the calls of this loop their grace, then cancel those left, and end the tasks."""
        self.state = NurseryState.CLOSING
        if not self.hosted:
            await self._end_calls()
        self._task_group.cancel_scope.cancel()

    async def _end_calls(self) -> None:
        calls, grace = self._owner.calls, self.settings.grace_period
        own = [each for each in calls.under_way() if each.loop is self.home]
        for call in own:
            call.end_within(grace)
        awaited = {id(call) for call in own}
        with anyio.move_on_after(2 * grace):  # their cleanup may take as long again
            while awaited:
                ended = waiter_in(self.home)
                with calls.telling(ended.wake):
                    # Look when no end can be missed any more.
                    awaited &= {id(call) for call in calls.under_way()}
                    if awaited:
                        await ended.wait()

    def snapshot(self) -> NurserySnapshot:
        """How the nursery is now, as plain data. From any thread."""
        owner = self._owner
        running = [*self._services.values(), *self._retiring]
        return NurserySnapshot(
            backend="asyncio" if self.hosted or is_asyncio(self.home) else "trio",
            hosted=self.hosted,
            state=self.state.value,
            calls=tuple(call.snapshot() for call in owner.calls.under_way()),
            services=tuple(
                ServiceSnapshot(each.service.name, each.state, each.service.client_snapshots())
                for each in running
            ),
            limiter=owner.limiter.snapshot(),
            jobs=owner.jobs.snapshot(),
            tasks=tuple(task.snapshot() for task in list(self._tasks)),
            connections=tuple(pool for resource in owner.resources for pool in resource.snapshot()),
        )

    def _repr_html_(self) -> str:
        return self.snapshot()._repr_html_()


@asynccontextmanager
async def run_nursery(nursery: RemoteNursery) -> AsyncIterator[RemoteNursery]:
    """Run a nursery in this loop until the block ends. It is not made current here.

    An error of the block comes out as it is, not in an exception group. A failure of the nursery
    itself cancels the block and comes out in one. A cancellation waits for the nursery's end.
    """
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
