"""What each case is to reach, and whether it does."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .catalogue import CASES, SLOW_SECONDS

Run = dict[str, Any]
"""A report (see `measured/meter.py`), or `{"error": text}`."""

_NAMES = {
    "wall": ("time", "s"),
    "cpu": ("CPU", "s"),
    "peak_mb": ("peak memory", "MB"),
    "pause_p999_ms": ("pauses p99.9", "ms"),
    "pause_max_ms": ("longest pause", "ms"),
    "waiting_bytes": ("memory", "bytes"),
    "connections": ("connections at once", ""),
    "errors": ("errors", ""),
}


@dataclass(frozen=True)
class Target:
    """An upper bound on a peer's figure, or on its ratio to that of `against`, pair by pair.

    `against` is another peer of the case, or another case of the same peer. Times are those of
    one operation then.
    """

    peer: str
    figure: str
    bound: float
    against: str = ""

    def __str__(self) -> str:
        name, unit = _NAMES[self.figure]
        return f"{name} ≤ {self.bound:.3g} {f'x {self.against}' if self.against else unit}".strip()


def _at_most(peers: str | Sequence[str], against: str = "", **bounds: float) -> list[Target]:
    """A bound on each figure of each peer; `peers` may be one."""
    each = (peers,) if isinstance(peers, str) else peers
    return [Target(peer, name, bound, against) for peer in each for name, bound in bounds.items()]


_OURS = ("ours", "ours-host", "ours-trio")
_ASYNCIO = ("ours", "ours-host")
_MOST_CONNECTIONS = 32  # `Settings.max_connections` of this package
_GROWTH = 1.1  # in proportion, but for a tenth: the first look-ups find some memory free already
_WORSE = 1.05

_WAITING = _at_most(_ASYNCIO, waiting_bytes=10_000, connections=_MOST_CONNECTIONS)

_AIMS = {
    "lookups-gathered": [
        *_at_most("ours", "published", wall=1.0, cpu=0.68),
        *_at_most(("ours-host", "ours-trio"), "published", wall=1.0),
    ],
    "stub-gathered": [
        *_at_most("ours", "published", wall=0.6, cpu=0.6),
        *_at_most(_ASYNCIO, "floor", cpu=2.0),
    ],
    "stub-warm": _at_most(_ASYNCIO, "floor", cpu=1.4),
    "lookups-in-turn": _at_most("ours", "published", wall=0.85, cpu=0.65),
    "stub-in-turn": _at_most("ours", "published", wall=0.65, cpu=0.6),
    "lookups-asyncio-run": _at_most("ours", "published", wall=0.5, cpu=0.45),
    "lookups-threads": _at_most("ours", "published", cpu=0.5),
    "stub-threads": _at_most("ours", "published", wall=0.35, cpu=0.35),
    "waiting-1000": _WAITING,
    "waiting-10000": [
        *_WAITING,
        *_at_most(_ASYNCIO, "waiting-1000", wall=_GROWTH, waiting_bytes=_GROWTH),
    ],
    "waiting-100000": [
        *_WAITING,
        *_at_most(_ASYNCIO, "waiting-10000", wall=_GROWTH, waiting_bytes=_GROWTH),
    ],
    "http-in-turn": _at_most("ours", "published", wall=0.75),
    # One for the ping, which has a lane of its own.
    "storm": _at_most(_ASYNCIO, errors=0, connections=_MOST_CONNECTIONS + 1),
    "download": [
        *_at_most(_OURS, "published", peak_mb=0.8),
        *_at_most(_OURS, pause_p999_ms=10, pause_max_ms=50),
    ],
    "upload": _at_most(_ASYNCIO, "curl", wall=1.18),
    # What comes on top of the slower server's pause is hashing and sending.
    "two-servers": _at_most(_OURS, wall=1.2 * max(SLOW_SECONDS)),
    "resolve-output": [
        *_at_most("ours", "curl", wall=1.4),
        *_at_most("ours", peak_mb=100),
    ],
    "resolve-output-huge": [
        *_at_most("ours", "curl", wall=1.15),
        *_at_most("ours", peak_mb=100),
    ],
}
"""What was aimed at, by case."""

_RELEASED = {
    "lookups-gathered": (1.1, 1.1, 1, 0.86, 0.68, 0.74),
    "stub-gathered": (0.78, 0.57, 0.81, 0.76, 0.57, 0.81),
    "lookups-in-turn": (1, 0.81, 0.75, 1.1, 0.51, 0.56),
    "stub-in-turn": (1.4, 0.57, 0.7, 1.4, 0.46, 0.61),
    "lookups-asyncio-run": (0.76, None, None, 0.73, None, None),
    "lookups-threads": (0.75, None, None, 0.61, None, None),
    "stub-threads": (0.38, None, None, 0.37, None, None),
    "writes-gathered": (0.89, 0.92, 0.9, 0.73, 0.52, 0.6),
    "waiting-1000": (0.6, 0.42, None, 0.63, 0.42, None),
    "waiting-10000": (0.82, 0.53, None, 0.85, 0.54, None),
    "waiting-100000": (0.79, 0.56, None, 0.82, 0.56, None),
    "folder-in-turn": (0.094, None, None, 0.096, None, None),
    "folder-gathered": (0.064, 0.061, 0.069, 0.058, 0.057, 0.064),
    "http-in-turn": (0.84, None, None, 0.75, None, None),
    "download": (0.57, 0.55, 0.53, 0.41, 0.49, 0.46),
    "download-folder": (0.7, 0.72, 0.71, 1.2, 1.2, 1.2),
    "upload": (0.48, 0.43, None, 0.17, 0.15, None),
    "upload-again": (0.005, 0.0043, None, 0.0022, 0.0014, None),
    "same-buffer": (0.051, 0.048, 0.045, 0.049, 0.046, 0.042),
    "two-servers": (0.65, 0.65, 0.65, 0.44, 0.48, 0.64),
    "help": (0.25, None, None, 0.24, None, None),
    "resolve-output": (0.37, None, None, 0.28, None, None),
    "first-result": (0.43, None, None, 0.81, None, None),
}
"""Time and CPU of 0.5.0 as ratios to the published package: any loop, asyncio host, trio host."""


def _targets(name: str) -> list[Target]:
    """What was aimed at; elsewhere nothing may be worse than in 0.5.0 by more than a twentieth."""
    aims = _AIMS.get(name, [])
    aimed = {(aim.peer, aim.figure, aim.against) for aim in aims}
    places = [(peer, figure) for figure in ("wall", "cpu") for peer in _OURS]
    kept = [
        Target(peer, figure, _WORSE * ratio, "published")
        for (peer, figure), ratio in zip(places, _RELEASED.get(name, ()), strict=False)
        if ratio is not None and (peer, figure, "published") not in aimed
    ]
    return [*aims, *kept]


TARGETS = {case.name: _targets(case.name) for case in CASES}
"""The targets of each case."""


def outcome(
    target: Target, case: Mapping[str, list[Run]], others: Mapping[str, Mapping[str, list[Run]]]
) -> dict[str, Any]:
    """A target with what was reached, as plain data; `met` is None where that is not known.

    `case` are the runs of the target's case by peer, `others` those of every case.
    """
    values = _values(target, case, others)
    reached = statistics.median(values) if values else None
    return {
        "target": str(target),
        "reached": reached,
        "min": min(values, default=None),
        "max": max(values, default=None),
        "met": None if reached is None else reached <= target.bound,
    }


def ratios(mine: Sequence[Run], theirs: Sequence[Run], figure: str) -> list[float]:
    """The figure of each run to that of the other peer's run in the same round.

    Only where both did all that was asked: a call that fails fast is no fast call.
    """
    return [
        _each(one, figure) / _each(other, figure)
        for one, other in zip(mine, theirs, strict=False)
        if _complete(one) and _complete(other) and _each(other, figure) > 0
    ]


def _complete(run: Run) -> bool:
    return "error" not in run and not run["extra"].get("errors")


def _values(
    target: Target, case: Mapping[str, list[Run]], others: Mapping[str, Mapping[str, list[Run]]]
) -> list[float]:
    mine = case[target.peer]
    if not target.against:
        return [_figure(run, target.figure) for run in mine if "error" not in run]
    theirs = case.get(target.against) or others.get(target.against, {}).get(target.peer, [])
    return ratios(mine, theirs, target.figure)


def _each(run: Run, figure: str) -> float:
    """The figure of one operation, where it grows with their number."""
    value = _figure(run, figure)
    return value / run["operations"] if figure in ("wall", "cpu") else value


def _figure(run: Run, figure: str) -> float:
    return float(run[figure] if figure in run else run["extra"][figure])
