"""What lives in the nursery: services that start and stop, and what the whole process holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .calls import Call


@dataclass(frozen=True, slots=True)
class BackgroundTask:
    """Background work of a service; each task is supervised on its own.

    `run` works until it is cancelled. `give_up` is told, once, why a task that fails too often is
    not started again.
    """

    name: str
    run: Callable[[Call], Awaitable[None]]
    give_up: Callable[[str], None]


class Service(ABC):
    """One activation's clients, as the nursery sees them. Replaced as a whole, never changed."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def tasks(self) -> Sequence[BackgroundTask]:
        """The background work (keepalive), one task a client that has a server to ping."""

    @abstractmethod
    def in_flight(self) -> int:
        """How many requests of this set are under way, in whatever loop."""

    @abstractmethod
    def release(self, remaining: Collection[Service]) -> None:
        """Give up the connections that none of the `remaining` services uses."""

    @abstractmethod
    def client_snapshots(self) -> tuple[Any, ...]:
        """Its clients as plain data: dataclasses of their own."""


class Resource(Protocol):
    """What the process holds for all calls, and the nursery looks after: idle connections."""

    async def upkeep(self, call: Call) -> None:
        """What has to be done in the background, until cancelled. Supervised."""

    def let_go(self) -> None:
        """No nursery looks after it any more: give up what is not in use. From any thread."""

    def snapshot(self) -> tuple[Any, ...]:
        """The resource as plain data: dataclasses of its own."""
