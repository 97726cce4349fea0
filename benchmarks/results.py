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
from .catalogue import ENVIRONMENTS, Case
from .targets import Run, outcome

_FIGURES = ("wall", "cpu", "peak_mb", "grown_mb")
_REFERENCES = ("published", "curl", "floor")
_SHOWN = ("anyio", "trio", "httptools", "aiohttp", "asks", "hashserver", "seamless")


def summarise(
    cases: Sequence[Case], runs: dict[str, dict[str, list[Run]]], rounds: int, *, seconds: float
) -> dict[str, Any]:
    """All that was measured, in so many seconds, as plain data."""
    peers = {peer for case in cases for peer in case.peers}
    return {
        "machine": machine({ENVIRONMENTS.get(peer, "ours") for peer in peers} | {"ours"}),
        "rounds": rounds,
        "seconds": seconds,
        "cases": [_case(case, runs, rounds) for case in cases],
    }


def machine(names: set[str]) -> dict[str, Any]:
    """What the figures depend on; the packages of the environments with these names."""
    curl = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=False)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=environments.CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "cores": os.cpu_count(),
        "processor": _field("/proc/cpuinfo", "model name"),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "system": platform.platform(),
        "load": list(os.getloadavg()),
        "python": platform.python_version(),
        "curl": curl.stdout.split(" (")[0],
        "packages": {
            name: {
                package: version
                for package, version in environments.versions(name).items()
                if package.startswith(_SHOWN)
            }
            for name in sorted(names)
        },
    }


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def _case(case: Case, runs: dict[str, dict[str, list[Run]]], rounds: int) -> dict[str, Any]:
    mine = runs[case.name]
    peers = {peer: _peer(peer, mine) for peer in case.peers}
    for target in case.targets:
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
    good = [run for run in runs[peer] if "wall" in run]
    summary: dict[str, Any] = {
        "runs": runs[peer],
        "failed": len(runs[peer]) - len(good),
        "median": {},
        "ratios": {},
        "targets": [],
    }
    if not good:
        return summary
    summary["operations"] = good[0]["operations"]
    summary["median"] = {
        name: statistics.median(run[name] for run in good) for name in _FIGURES
    } | {name: statistics.median(run["extra"][name] for run in good) for name in good[0]["extra"]}
    for reference in _REFERENCES:
        pairs = [
            pair
            for pair in zip(runs[peer], runs.get(reference, ()), strict=False)
            if all("wall" in run for run in pair)
        ]
        if reference != peer and pairs:
            summary["ratios"][reference] = {name: _spread(pairs, name) for name in _FIGURES}
    return summary


def _spread(pairs: Sequence[tuple[Run, Run]], name: str) -> dict[str, float]:
    """The ratio of the runs of one round, over the rounds."""
    ratios = [mine[name] / theirs[name] for mine, theirs in pairs if theirs[name]]
    if not ratios:
        return {}
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
