"""Runs the cases: every peer in turn, round after round, each run in a process of its own."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .catalogue import Case

Run = dict[str, Any]
"""A run's figures by name (see `measured/meter.py`), or `{"error": text, "stderr": text}`."""

Runs = dict[str, dict[str, list[Run]]]
"""By case and peer, one a round."""

CHECKOUT = Path(__file__).resolve().parent.parent

_MEASURED = Path(__file__).with_name("measured")
_TIMEOUT = 120.0
_LATE: Run = {"error": f"not over after {_TIMEOUT:g} s", "stderr": ""}


def scripts(peer: str) -> Path:
    """The folder of the programs in the peer's virtualenv, which the Makefile makes."""
    name = "published" if peer == "published" else "ours"
    version = ".".join(platform.python_version_tuple()[:2])
    return CHECKOUT / f".venv-bench-{version}-{name}" / "bin"


def run_rounds(cases: Sequence[Case], rounds: int, told: Mapping[str, Mapping[str, Any]]) -> Runs:
    """Run each case by each of its peers; which peer is first changes with the round.

    `told` is what a peer's process is told, by the service of its case.
    """
    runs: Runs = {case.name: {peer: [] for peer in case.peers} for case in cases}
    begun = time.monotonic()
    for case in cases:
        for number in range(case.rounds(rounds)):
            first = number % len(case.peers)
            for peer in (*case.peers[first:], *case.peers[:first]):
                earlier = runs[case.name][peer]
                # A peer that did not come to an end once would take its time again.
                run = _LATE if _LATE in earlier else _run(case, peer, told[case.service])
                earlier.append(run)
                outcome = f"FAILED: {run['error']}" if "error" in run else "done"
                at = f"[{time.monotonic() - begun:.0f} s] round {number + 1} of {case.name}"
                print(f"{at}, {peer}: {outcome}", file=sys.stderr)
    return runs


def _run(case: Case, peer: str, told: Mapping[str, Any]) -> Run:
    task = {"measure": case.measure, "peer": peer, **told, **case.settings}
    try:
        done = subprocess.run(
            [scripts(peer) / "python", _MEASURED],
            input=json.dumps(task),
            cwd=told["scratch"],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return _LATE
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"error": f"exit status {done.returncode}: {last}", "stderr": done.stderr[-4000:]}
    run: Run = json.loads(done.stdout.splitlines()[-1])
    return run
