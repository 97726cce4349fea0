"""What the nursery looks like at one moment, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ClientSnapshot:
    """One client: where it reaches its service, how that is, and what went over the wire."""

    name: str
    url: str | None
    directory: str | None
    readonly: bool
    health: str
    last_round_trip: float | None
    """Seconds from the last request's start to the head of its answer."""
    requests: int
    retries: int
    bytes_sent: int
    bytes_received: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class ServiceSnapshot:
    """One activation module as a service of the nursery: `running`, `stopping` or `down`."""

    name: str
    state: str
    clients: tuple[ClientSnapshot, ...]


@dataclass(frozen=True, slots=True)
class LimiterSnapshot:
    """A limiter: its bound (0: none), and how many requests hold a slot or wait for one.

    A nursery's counts the calls in line as well: each waits for the slot of its first request.
    """

    name: str
    bound: int
    in_flight: int
    waiting: int


@dataclass(frozen=True, slots=True)
class TaskSnapshot:
    """A supervised background task: `running`, `pausing` before a restart, `ended` or `failed`."""

    name: str
    state: str
    restarts: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class NurserySnapshot:
    """The remote nursery: `hosted` on a thread of its own, or opened by a host.

    `calls` counts those that have begun, and those in line.
    """

    backend: str
    hosted: bool
    state: str
    calls: int
    services: tuple[ServiceSnapshot, ...]
    limiter: LimiterSnapshot
    tasks: tuple[TaskSnapshot, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as dicts, lists, strings and numbers (for JSON)."""
        return asdict(self)
