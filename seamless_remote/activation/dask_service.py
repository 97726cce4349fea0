"""The Dask scheduler of the active stage as a service of the nursery, which watches over it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from ..clients.daskserver import DaskserverLaunchedHandle
from ..clients.scheduler_watch import watch
from ..nursery.service import BackgroundTask, Service


class DaskService(Service):
    """The scheduler in effect, or None. Its connection is Dask's: opened and closed elsewhere."""

    def __init__(self, handle: DaskserverLaunchedHandle | None) -> None:
        super().__init__("daskserver_remote")
        self.handle = handle

    def tasks(self) -> Sequence[BackgroundTask]:
        handle = self.handle
        if handle is None:
            return []
        name = f"watch of {self.name}"
        return [BackgroundTask(name, partial(watch, handle), handle.health.mark_down)]

    def in_flight(self) -> int:
        # A stage that is left lets go of its jobs: Dask cancels what no client waits for.
        return 0

    def release(self, remaining: Collection[Service]) -> None:
        """Nothing to give up: the watch's own connections are idle ones like others."""

    def client_snapshots(self) -> tuple[Any, ...]:
        return () if self.handle is None else (self.handle.snapshot(),)
