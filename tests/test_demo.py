"""The demo does what the README says of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_the_demo_runs_to_its_end_and_leaves_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    with (tmp_path / "output").open("w+") as output:
        status = subprocess.call(
            [sys.executable, "-m", "seamless_remote.demo"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(folder)},
            timeout=240,
        )
        output.seek(0)
        shown = output.read()
    assert status == 0, shown
    assert "no process and no file is left" in shown
    assert list(folder.iterdir()) == []
