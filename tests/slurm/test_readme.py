"""The README's chapter "On a cluster", run as it stands."""

from __future__ import annotations

import re
import sys

import readme
from services import run_command
from stages import PROGRAM_TIMEOUT, SlurmHome


def _shape(line: str) -> str:
    """A line without its numbers, and without the addresses that a reader replaces."""
    return re.sub(r"[\d.]+", "#", line.strip())


def test_the_readmes_program_prints_on_the_readmes_cluster_what_the_readme_shows(
    stage: SlurmHome,
) -> None:
    stage.write("square.py", readme.files()["square.py"])
    command = [sys.executable, "square.py"]
    ended = run_command(command, home=stage, timeout=PROGRAM_TIMEOUT, allow=["ResourceWarning"])
    *logged, last = readme.outputs()[0].splitlines()
    assert _shape(ended.stdout) == _shape(last)
    printed = [_shape(line) for line in ended.stderr.splitlines()]
    # What was launched for an earlier program is not launched again.
    for line in logged:
        assert _shape(line) in printed or "ready" in line, ended.stderr
