"""From runs to results: medians, ratios pair by pair with their spread, targets, the machine."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import environments
from .catalogue import Case
from .targets import TARGETS, Run, outcome, ratios

_FIGURES = ("wall", "cpu", "peak_mb", "grown_mb")
_REFERENCES = ("published", "curl", "floor")


def summarise(
    cases: Sequence[Case], runs: dict[str, dict[str, list[Run]]], rounds: int, *, seconds: float
) -> dict[str, Any]:
    """All that was measured, in so many seconds, as plain data."""
    return {
        "machine": _machine(),
        "rounds": rounds,
        "seconds": seconds,
        "cases": [_case(case, runs, rounds) for case in cases],
    }


def compared(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The cases with ratios to the published package."""
    return [
        case
        for case in results["cases"]
        if any("published" in figures["ratios"] for figures in case["peers"].values())
    ]


def _machine() -> dict[str, Any]:
    """What the figures depend on."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=environments.CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    processors = Path("/proc/cpuinfo").read_text().splitlines()
    named = [line.partition(":")[2].strip() for line in processors if line.startswith("model name")]
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "cores": os.cpu_count(),
        "processor": named[0] if named else "unknown",
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _case(case: Case, runs: dict[str, dict[str, list[Run]]], rounds: int) -> dict[str, Any]:
    mine = runs[case.name]
    peers = {peer: _peer(peer, mine) for peer in case.peers}
    for target in TARGETS[case.name]:
        peers[target.peer]["targets"].append(outcome(target, mine, runs))
    return {
        "name": case.name,
        "kind": case.kind,
        "title": case.title,
        "limit": case.limit,
        "rounds": case.rounds(rounds),
        "peers": peers,
    }


def _peer(peer: str, runs: dict[str, list[Run]]) -> dict[str, Any]:
    good = [run for run in runs[peer] if "error" not in run]
    summary: dict[str, Any] = {
        "runs": runs[peer],
        "failed": len(runs[peer]) - len(good),
        "median": {},
        "ratios": {},
        "targets": [],
    }
    if not good:
        return summary
    each = [
        {
            **{name: run[name] for name in _FIGURES},
            "wall": run["wall"] / run["operations"],
            "cpu": run["cpu"] / run["operations"],
            **run["extra"],
        }
        for run in good
    ]
    summary["median"] = {name: statistics.median(run[name] for run in each) for name in each[0]}
    for reference in _REFERENCES:
        spreads = {
            name: _spread(ratios(runs[peer], runs.get(reference, []), name))
            for name in ("wall", "cpu")
        }
        if reference != peer and any(spreads.values()):
            summary["ratios"][reference] = spreads
    return summary


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
