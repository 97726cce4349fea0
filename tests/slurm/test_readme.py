"""The README's chapter "On a cluster", run as it stands."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import readme
from services import run_command
from stages import PROGRAM_TIMEOUT, SlurmHome


def _shape(line: str) -> str:
    """A line without its numbers, and without the addresses that a reader replaces."""
    return re.sub(r"[\d.]+", "#", line.strip())


def test_the_readmes_program_prints_on_the_readmes_cluster_what_the_readme_shows(
    own_stage: Callable[..., SlurmHome],
) -> None:
    stage = own_stage()
    stage.write("square.py", readme.files()["square.py"])
    command = [sys.executable, "square.py"]
    ended = run_command(command, home=stage, timeout=PROGRAM_TIMEOUT, allow=["ResourceWarning"])
    *logged, last = readme.outputs()[0].splitlines()
    assert _shape(ended.stdout) == _shape(last)
    printed = [_shape(line) for line in ended.stderr.splitlines()]
    assert [line for line in logged if _shape(line) not in printed] == []
