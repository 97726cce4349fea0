"""Runs the cases: every peer in turn, round after round, each run in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import environments, material, services
from .catalogue import (
    ENVIRONMENTS,
    HUGE_MEBIBYTES,
    LARGE_MEBIBYTES,
    PACE,
    SLOW_SECONDS,
    Case,
)
from .measured.task import LOOKUPS
from .targets import Run

_MEASURED = Path(__file__).with_name("measured")
_RUN_TIMEOUT = 120.0
_LATE = f"not over after {_RUN_TIMEOUT:g} s"


@contextlib.contextmanager
def surroundings(scratch: Path, cases: Sequence[Case]) -> Iterator[dict[str, Any]]:
    """Make the material of these cases and start the services; all end with the block.

    Gives what a peer's process is told, by the service of its case.
    """
    _say("Making the material, starting the services")
    buffers, log = scratch / "buffers", scratch / "services.log"
    huge = any(case.settings.get("buffer") == "huge" for case in cases)
    known = material.store_buffers(
        buffers,
        large_mebibytes=LARGE_MEBIBYTES,
        huge_mebibytes=HUGE_MEBIBYTES if huge else 0,
    )
    with contextlib.ExitStack() as running:
        start = running.enter_context
        database = start(services.real(log, "seamless-database", scratch / "results.db"))
        hashserver = start(services.real(log, "hashserver", buffers, "--layout", "prefix"))
        stub = start(services.stub(scratch))
        paced = start(services.stub(scratch, pace=PACE))
        slow = [start(services.stub(scratch, pause=seconds)) for seconds in SLOW_SECONDS]
        material.store_results(database, count=LOOKUPS)
        told: dict[str, dict[str, Any]] = {
            "": {},
            "database": {"database": database},
            "stub": {"database": stub},
            "paced": {"servers": [paced]},
            "folder": {"folder": str(buffers)},
            "hashserver": {"servers": [hashserver], "stored": str(buffers)},
            "slow": {"servers": slow},
        }
        yield {name: {"scratch": str(scratch), **known, **each} for name, each in told.items()}


def run_rounds(
    cases: Sequence[Case], rounds: int, around: dict[str, Any]
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
                run = earlier[-1] if late else _run(case, peer, around[case.service])
                earlier.append(run)
                number += 1
                outcome = f"FAILED: {run['error']}" if "error" in run else f"{run['wall']:.3f} s"
                at = time.monotonic() - begun
                _say(f"[{number}/{total}, {at:.0f} s] {case.name}, {round_ + 1}, {peer}: {outcome}")
    return runs


def _run(case: Case, peer: str, told: dict[str, Any]) -> Run:
    task = {"measure": case.measure, "peer": peer, **told, **case.settings}
    scratch = Path(told["scratch"])
    task_file = scratch / "task.json"
    task_file.write_text(json.dumps(task))
    python = environments.python(ENVIRONMENTS.get(peer, "ours"))
    try:
        done = subprocess.run(
            [python, _MEASURED, task_file],
            cwd=scratch,
            capture_output=True,
            text=True,
            timeout=_RUN_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return {"error": _LATE}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"error": f"exit status {done.returncode}: {last}", "stderr": done.stderr[-4000:]}
    report: Run = json.loads(done.stdout.splitlines()[-1])
    return report


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
