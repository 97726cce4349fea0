"""What a case is to reach, and whether it does."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Run = dict[str, Any]
"""A report (see `measured/meter.py`), or `{"error": text}`."""

_UNITS = {
    "wall": "s",
    "peak_mb": "MB",
    "pause_p999_ms": "ms",
    "pause_max_ms": "ms",
    "waiting_bytes": "bytes",
    "connections": "",
}
_NAMES = {
    "wall": "time",
    "cpu": "CPU",
    "peak_mb": "peak memory",
    "pause_p999_ms": "pauses p99.9",
    "pause_max_ms": "longest pause",
    "waiting_bytes": "memory",
}


@dataclass(frozen=True)
class Target:
    """A bound on a peer's figure, or on its ratio to that of `against`, pair by pair.

    `against` is another peer of the case, or another case of the same peer: then the figures are
    those of one operation. The figure is a field of a report, or `throughput`.
    """

    peer: str
    figure: str
    bound: float
    against: str = ""
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Whether a figure, or a ratio, keeps to the bound."""
        return value >= self.bound if self.at_least else value <= self.bound


def at_most(peer: str, figure: str, bound: float, against: str = "") -> Target:
    """The figure is at most so much (of that of `against`)."""
    return Target(peer, figure, bound, against)


def at_least(peer: str, figure: str, bound: float, against: str) -> Target:
    """The figure is at least so many times that of `against`."""
    return Target(peer, figure, bound, against, at_least=True)


def faster(peers: Sequence[str], against: str, *, throughput: float) -> tuple[Target, ...]:
    """Each of these peers has so many times the throughput."""
    return tuple(at_least(peer, "throughput", throughput, against) for peer in peers)


def outcome(
    target: Target, case: Mapping[str, list[Run]], others: Mapping[str, Mapping[str, list[Run]]]
) -> dict[str, Any]:
    """A target with what was reached, as plain data; `met` is None where that is not known.

    `case` are the runs of the target's case by peer, `others` those of every case.
    """
    values = _values(target, case, others)
    reached = statistics.median(values) if values else None
    return {
        "target": _text(target),
        "unit": "" if target.against else _UNITS[target.figure],
        "reached": reached,
        "min": min(values, default=None),
        "max": max(values, default=None),
        "met": None if reached is None else target.met(reached),
    }


def _values(
    target: Target, case: Mapping[str, list[Run]], others: Mapping[str, Mapping[str, list[Run]]]
) -> list[float]:
    mine = case[target.peer]
    if not target.against:
        return [_figure(run, target.figure) for run in mine if "error" not in run]
    theirs = case.get(target.against)
    if theirs is None:
        theirs = others.get(target.against, {}).get(target.peer, [])
    values = []
    for one, other in zip(mine, theirs, strict=False):
        if "error" not in one and "error" not in other:
            reference = _each(other, target.figure)
            if reference > 0:
                values.append(_each(one, target.figure) / reference)
    return values


def _each(run: Run, figure: str) -> float:
    """The figure of one operation, where it grows with their number."""
    if figure == "throughput":
        return float(run["operations"] / run["wall"])
    value = _figure(run, figure)
    return value / run["operations"] if figure in ("wall", "cpu") else value


def _figure(run: Run, figure: str) -> float:
    return float(run[figure] if figure in run else run["extra"][figure])


def _text(target: Target) -> str:
    name = _NAMES.get(target.figure, target.figure)
    sign = "≥" if target.at_least else "≤"
    if not target.against:
        return f"{name} {sign} {target.bound:g} {_UNITS[target.figure]}".strip()
    return f"{name} {sign} {target.bound:g} x {target.against}"
