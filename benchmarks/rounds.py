"""Runs the cases: every peer in turn, round after round, each run in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import environments, material, services
from .catalogue import (
    ENVIRONMENTS,
    HUGE_MEBIBYTES,
    LARGE_MEBIBYTES,
    LOOKUPS,
    SLOW_SECONDS,
    Case,
)
from .targets import Run

_MEASURED = Path(__file__).with_name("measured")
_RUN_TIMEOUT = 120.0
_LATE = f"not over after {_RUN_TIMEOUT:g} s"


@dataclass(frozen=True)
class Surroundings:
    """What a peer's process is told: by kind of service, and of the material."""

    services: dict[str, dict[str, Any]]
    material: dict[str, Any]
    scratch: Path


@contextlib.contextmanager
def surroundings(scratch: Path, cases: Sequence[Case]) -> Iterator[Surroundings]:
    """Make the material of these cases and start the services; all end with the block."""
    _say("Making the material, starting the services")
    buffers = scratch / "buffers"
    known = material.store_buffers(
        buffers,
        large_mebibytes=LARGE_MEBIBYTES,
        huge_mebibytes=HUGE_MEBIBYTES if any(case.needs_huge for case in cases) else 0,
    )
    with contextlib.ExitStack() as running:
        database = running.enter_context(
            services.database(scratch / "results.db", scratch / "database.log")
        )
        hashserver = running.enter_context(services.hashserver(buffers, scratch / "hashserver.log"))
        stub = running.enter_context(services.stub(scratch))
        slow = [
            running.enter_context(services.stub(scratch, pause=seconds)) for seconds in SLOW_SECONDS
        ]
        material.store_results(database, count=LOOKUPS)
        yield Surroundings(
            {
                "": {},
                "database": {"database": database},
                "stub": {"database": stub},
                "folder": {"folder": str(buffers)},
                "hashserver": {"servers": [hashserver], "stored": str(buffers)},
                "slow": {"servers": slow},
            },
            asdict(known),
            scratch,
        )


def run_rounds(
    cases: Sequence[Case], rounds: int, around: Surroundings
) -> dict[str, dict[str, list[Run]]]:
    """Every case's runs by peer, one a round. Which peer is first changes with the round."""
    runs: dict[str, dict[str, list[Run]]] = {
        case.name: {peer: [] for peer in case.peers} for case in cases
    }
    total = sum(case.rounds(rounds) * len(case.peers) for case in cases)
    number = 0
    begun = time.monotonic()
    for case in cases:
        for round_ in range(case.rounds(rounds)):
            first = round_ % len(case.peers)
            for peer in (*case.peers[first:], *case.peers[:first]):
                earlier = runs[case.name][peer]
                # A peer that did not come to an end once would take its time again.
                late = earlier and earlier[-1].get("error") == _LATE
                run = earlier[-1] if late else _run(case, peer, around)
                earlier.append(run)
                number += 1
                outcome = f"{run['wall']:.3f} s" if "wall" in run else f"FAILED: {run['error']}"
                at = time.monotonic() - begun
                _say(f"[{number}/{total}, {at:.0f} s] {case.name}, {round_ + 1}, {peer}: {outcome}")
    return runs


def _run(case: Case, peer: str, around: Surroundings) -> Run:
    task = {
        "measure": case.measure,
        "peer": peer,
        "scratch": str(around.scratch),
        **around.material,
        **around.services[case.service],
        **case.settings,
    }
    task_file = around.scratch / "task.json"
    task_file.write_text(json.dumps(task))
    python = environments.python(ENVIRONMENTS.get(peer, "ours"))
    started = time.monotonic()
    try:
        done = subprocess.run(
            [python, _MEASURED, task_file],
            cwd=around.scratch,
            capture_output=True,
            text=True,
            timeout=_RUN_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return {"error": _LATE}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"error": f"exit status {done.returncode}: {last}", "stderr": done.stderr[-4000:]}
    report: Run = json.loads(done.stdout.strip().splitlines()[-1])
    report["process_seconds"] = time.monotonic() - started
    return report


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
