"""The command line: `python -m benchmarks [CASE ...]`, from the checkout; see `--help`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from . import environments
from .catalogue import CASES, ENVIRONMENTS, Case
from .results import summarise
from .rounds import run_rounds, surroundings
from .table import short_table, table

_HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run the chosen cases and report; the exit status is 1 where a run failed."""
    arguments = _arguments()
    # Ended by SIGTERM, it leaves no service and no file either.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    cases = [case for case in CASES if not arguments.cases or case.name in arguments.cases]
    for name in _environments(cases):
        environments.ensure(name)
    begun = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="seamless-bench-") as scratch,
        surroundings(Path(scratch), cases) as around,
    ):
        runs = run_rounds(cases, arguments.rounds, around)
    results = summarise(cases, runs, arguments.rounds, seconds=time.monotonic() - begun)
    _report(results, arguments.output)
    failed = sum(peer["failed"] for case in results["cases"] for peer in case["peers"].values())
    if failed:
        print(f"{failed} runs failed; the JSON has what they printed", file=sys.stderr)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", epilog=f"cases: {names}")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="all, unless some are named")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=_HERE / "results", metavar="FOLDER")
    arguments = parser.parse_args()
    unknown = set(arguments.cases) - set(names)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if arguments.rounds < 1:
        parser.error("at least one round")
    return arguments


def _environments(cases: list[Case]) -> list[str]:
    """What these cases need; ours always, for the services are in it."""
    needed = {ENVIRONMENTS.get(peer, "ours") for case in cases for peer in case.peers} | {"ours"}
    return [name for name in environments.NAMES if name in needed]


def _report(results: dict[str, Any], output: Path) -> None:
    """Print the table; write it, the short one and the data to the folder."""
    output.mkdir(parents=True, exist_ok=True)
    text, data = table(results), output / "results.json"
    data.write_text(json.dumps(results, indent=1) + "\n")
    (output / "results.md").write_text(text + "\n")
    (output / "short.md").write_text(short_table(results) + "\n")
    print(text)
    print(f"Written to {output}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
