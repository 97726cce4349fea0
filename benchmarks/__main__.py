"""The command line: `python -m benchmarks [CASE ...]`, from the checkout; see `--help`.

`make bench` runs it, and makes the virtualenvs before that.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from .catalogue import CASES, FEW_ROUNDS, LONG
from .runs import CHECKOUT, run_rounds
from .surroundings import surroundings
from .table import short_table, table

_RESULTS = Path(__file__).with_name("results")


def main() -> int:
    """Run the chosen cases and report; the exit status is 1 where a run failed."""
    arguments = _arguments()
    # Ended by SIGTERM, it leaves no service and no file either.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    cases = [case for case in CASES if case.name in arguments.names or not arguments.names]
    with tempfile.TemporaryDirectory(prefix="seamless-bench-") as scratch:
        print("Making the material, starting the services", file=sys.stderr)
        with surroundings(Path(scratch), cases) as told:
            runs = run_rounds(cases, arguments.rounds, told)

    origin = _origin(arguments.rounds)
    text = f"{table(cases, runs)}\n\n{origin}\n"
    data = json.dumps({"origin": origin, "runs": runs}, indent=1)
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(data + "\n")
    (output / "results.md").write_text(text)
    (output / "short.md").write_text(short_table(cases, runs) + "\n")
    print(text)
    print(f"Written to {output}", file=sys.stderr)
    each = [run for peers in runs.values() for peer in peers.values() for run in peer]
    failed = sum("error" in run for run in each)
    if failed:
        print(f"{failed} runs failed; the JSON has what they printed", file=sys.stderr)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    names = ", ".join(case.name for case in CASES)
    parser.add_argument("names", nargs="*", metavar="CASE", help=f"some of {names}; all, if none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=_RESULTS, metavar="FOLDER")
    arguments = parser.parse_args()
    if unknown := set(arguments.names).difference(case.name for case in CASES):
        parser.error(f"no such case: {', '.join(unknown)}; there are {names}")
    return arguments


def _origin(rounds: int) -> str:
    """What the figures depend on, and when they were taken."""
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, cwd=CHECKOUT, capture_output=True, text=True).stdout.strip()
    processors = Path("/proc/cpuinfo").read_text().splitlines()
    named = {line.partition(":")[2].strip() for line in processors if line.startswith("model name")}
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return (
        f"Rounds: {rounds}, at most {FEW_ROUNDS} of {', '.join(LONG)}. Commit {commit}. "
        f"{os.cpu_count()} cores ({', '.join(named)}), "
        f"Python {platform.python_version()}, {platform.platform()}, {date}."
    )


if __name__ == "__main__":
    sys.exit(main())
