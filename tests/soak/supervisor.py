"""Runs a soak in a process of its own, stops it hard where it does not end, and judges it.

Everything is in a temporary HOME: of that, no process and (where all went well) no file is left.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from services import end_group, end_processes_with, environment

from .audit import Findings, audit
from .plan import MALLOC, TIMEOUTS, Plan
from .report import report

STACKS_TIME = 3.0
"""Seconds for a hanging soak to show where it hangs."""

FOREIGN = ("SEAMLESS_", "HASHSERVER_", "REMOTE_HTTP_LAUNCHER", "RHL_", "DASK_", "XDG_")
"""Settings of the user's own that would lead the soak elsewhere."""


def supervise(plan: Plan) -> int:
    """Run the soak and print its report; the exit status: 0, 1 for a broken promise, 130."""
    signal.signal(signal.SIGTERM, _interrupt)
    home = Path(tempfile.mkdtemp(prefix="seamless-soak-"))
    passed = False
    try:
        failure = _run(plan, home)
        outcome = _outcome(home)
        findings = Findings()
        if outcome is not None:
            findings = _audit(home, outcome)
        elif failure is None:
            failure = "the soak has left no outcome"
        print(report(plan, outcome, findings, failure))
        passed = failure is None and outcome is not None and not outcome["violations"]
        passed = passed and not findings.amiss
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_processes_with("HOME", str(home))
        _remove(home, keep_logs=not passed)
    return 0 if passed else 1


def _run(plan: Plan, home: Path) -> str | None:
    """Run the session to its end; what is wrong with that end, if anything."""
    command = [sys.executable, "-W", "error::ResourceWarning", "-m", "soak.session"]
    process = subprocess.Popen(
        [*command, str(plan.minutes), str(plan.seed), plan.backend],
        cwd=Path(__file__).resolve().parents[1],
        env=_environment(home),
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,
    )
    try:
        status = process.wait(plan.hard_stop)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGUSR1)  # faulthandler shows the stacks of all threads
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STACKS_TIME)
        return f"no end within {plan.hard_stop:.0f} s: killed; the stacks above show where it hung"
    finally:
        end_group(process.pid, timeout=0)
        process.wait()
    return None if status == 0 else f"the soak ended with exit status {status}"


def _environment(home: Path) -> dict[str, str]:
    env = environment(home, TMPDIR=str(home / "tmp"), **TIMEOUTS, **MALLOC)
    return {k: v for k, v in env.items() if k in TIMEOUTS or not k.startswith(FOREIGN)}


def _outcome(home: Path) -> dict[str, Any] | None:
    try:
        outcome: dict[str, Any] = json.loads((home / "outcome.json").read_text())
    except FileNotFoundError:
        return None
    return outcome


def _audit(home: Path, outcome: dict[str, Any]) -> Findings:
    return audit(
        home / "ledger",
        Path(outcome["buffers"]),
        Path(outcome["database"]),
        outcome["database_port"],
    )


def _remove(home: Path, *, keep_logs: bool) -> None:
    """Remove the HOME; after a failure only the buffers, which take up most of it."""
    if not keep_logs:
        shutil.rmtree(home)
        return
    for name in ("buffers", "archive", "tmp"):
        shutil.rmtree(home / name, ignore_errors=True)
    print(f"The logs, the ledger and the database are in {home}", file=sys.stderr)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
