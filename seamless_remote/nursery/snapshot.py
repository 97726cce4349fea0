"""What the nursery looks like at one moment, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .bound import BoundSnapshot
from .calls import CallSnapshot
from .supervision import TaskSnapshot
from .table import as_html


@dataclass(frozen=True, slots=True)
class ServiceSnapshot:
    """One activation module as a service of the nursery: `running`, `stopping` or `down`.

    `clients` holds what the service itself says of each of its clients, as dataclasses.
    """

    name: str
    state: str
    clients: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class NurserySnapshot:
    """The remote nursery: `hosted` on a thread of its own, or opened by a host.

    `calls` are those of the whole process, the oldest first. `limiter` is the bound on database
    requests, `jobs` the one on jobs. `connections` holds a dataclass for each pool: where it leads,
    and how many connections it has.
    """

    backend: str
    hosted: bool
    state: str
    calls: tuple[CallSnapshot, ...]
    services: tuple[ServiceSnapshot, ...]
    limiter: BoundSnapshot
    jobs: BoundSnapshot
    tasks: tuple[TaskSnapshot, ...]
    connections: tuple[Any, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as dicts, lists, strings and numbers (for JSON)."""
        return asdict(self)

    def _repr_html_(self) -> str:
        return as_html(self)
