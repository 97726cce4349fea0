"""A service of the nursery: something with background work, started and stopped in its scope."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from .scope import Scope
from .snapshot import ClientSnapshot


class Service(ABC):
    """One set of clients, as the nursery sees it. It is replaced as a whole, never changed."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def idle(self) -> bool:
        """Whether there is nothing to run: no clients."""

    @abstractmethod
    async def run(self, scope: Scope) -> None:
        """The background work (keepalive), until cancelled."""

    @abstractmethod
    def in_flight(self) -> int:
        """How many requests of this set are under way, in whatever loop."""

    @abstractmethod
    def release(self, scope: Scope, remaining: Collection[Service]) -> None:
        """Give up what this set holds in `scope` and none of the `remaining` services uses."""

    @abstractmethod
    def mark_down(self, reason: str) -> None:
        """Its background work was given up: it fails too often."""

    @abstractmethod
    def client_snapshots(self) -> tuple[ClientSnapshot, ...]:
        """Its clients as plain data."""
