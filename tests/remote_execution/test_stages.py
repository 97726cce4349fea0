"""Level 3 as seamless-config switches to it and away, and as `seamless-run` uses it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from services import BINARIES, Home, run_command, wait_until

STAGES = {
    "inside": [{"persistent": False}, {"execution": "process"}],
    "cached": [{"execution": "process"}],
    "jobs": [{"execution": "remote"}, {"remote": "jobserver"}],
    "dask": [{"execution": "remote"}, {"remote": "daskserver"}],
}

# Each stage has services of its own, and Seamless sends a buffer that it holds to the first of them
# only: so each transformation has code and input of its own.
TEN_ROUNDS = """
import gc, importlib, json, re, sys, threading
from pathlib import Path
import psutil
import remote_http_launcher
import seamless, seamless.config
from seamless.transformer import delayed
from seamless_remote import current_nursery

THEIRS = ("seamless-loop", "asyncio_0")
launches = []
run = remote_http_launcher.run

def counted(config, **options):
    launches.append(config["key"].split("-")[0])
    return run(config, **options)

remote_http_launcher.run = counted


def own_code(name, number):
    Path(f"{name}.py").write_text(f"def job(n):\\n    return n * n + {number}\\n")
    importlib.invalidate_caches()
    return importlib.import_module(name).job


def held():
    gc.collect()
    nursery = current_nursery()
    # How many idle connections there are depends on how many calls happened to run at once; the
    # pools bound them.
    idle = sum(pool.idle for pool in nursery.snapshot().connections) if nursery else 0
    return {
        # seamless-transformer leaves a loop and a thread of its executor for each run().
        "threads": len([t for t in threading.enumerate() if t.name not in THEIRS]),
        "sockets": len(psutil.Process().net_connections()) - idle,
        "tasks": len(nursery.snapshot().tasks) if nursery else 0,
    }


if __name__ == "__main__":
    sys.path.insert(0, ".")
    rounds = []
    number = 0
    for round_ in range(10):
        for stage in ("inside", "cached", "jobs", "cached", "dask"):
            seamless.config.set_stage(stage)
            number += 1
            transformation = delayed(own_code(f"code{number}", number))(1000 + number)
            assert transformation.run() == (1000 + number) ** 2 + number, (round_, stage)
        rounds.append(held())
    seamless.config.set_stage("cached")
    print(json.dumps({"rounds": rounds, "launches": launches}))
    seamless.close()
"""


def running(home: Home, text: str) -> bool:
    """Whether a process of this HOME has `text` on its command line."""
    for process in home.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            if text in " ".join(process.cmdline()):
                return True
    return False


@pytest.fixture
def staged(home: Home) -> Home:
    home.configure(execution="process", stages=STAGES)
    return home


def test_ten_rounds_of_stage_changes_give_right_results_and_pile_nothing_up(staged: Home) -> None:
    program = staged.run(
        TEN_ROUNDS,
        timeout=150,
        warnings=("default",),
        allow=("ResourceWarning",),
    )
    report = json.loads(program.stdout.splitlines()[-1])
    once_each = ["hashserver", "database"] * 3 + ["jobserver", "daskserver"]
    assert sorted(report["launches"]) == sorted(once_each)
    first, last = report["rounds"][1], report["rounds"][-1]
    for what in ("threads", "sockets", "tasks"):
        assert last[what] <= first[what] + 2, report["rounds"]


@pytest.mark.parametrize("remote", ["jobserver", "daskserver"])
def test_seamless_run_runs_a_command_remotely(home: Home, remote: str) -> None:
    home.configure(level=3, remote=remote)
    (home.project / "numbers.txt").write_text("3\n1\n2\n")
    command = ["seamless-run", "-c", "sort numbers.txt > sorted.txt"]
    run_command(command, home=home, allow=("ResourceWarning",))
    found = run_command(["seamless-run", "sort", "numbers.txt"], home=home)
    # seamless-dask says first that it waits for its workers.
    assert found.stdout.endswith("1\n2\n3\n")


@pytest.mark.parametrize("remote", ["jobserver", "daskserver"])
def test_ctrl_c_in_mid_job_ends_seamless_run_with_130_and_no_late_result(
    home: Home, remote: str, tmp_path: Path
) -> None:
    home.configure(level=3, remote=remote)
    begun, go = tmp_path / "begun", tmp_path / "go"
    code = f"touch {begun}; while [ ! -e {go} ]; do sleep 0.1; done; echo late"
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(
            [BINARIES / "seamless-run", "-c", code],
            cwd=home.project,
            env=home.env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        wait_until(begun.exists, timeout=60)
        os.kill(process.pid, signal.SIGINT)
        status = process.wait(60)
    shown = (tmp_path / "output").read_text()
    assert status == 130, shown
    assert "Traceback" not in shown
    go.touch()
    # The jobserver disowns a cancelled job; its process runs to its end, which nobody hears of.
    wait_until(lambda: not running(home, str(go)))
    database = next(home.database.glob("**/seamless.db"))
    query = "select count(*) from transformation"
    rows = subprocess.run(
        [
            "python3",
            "-c",
            f"import sqlite3; print(sqlite3.connect({str(database)!r})"
            f".execute({query!r}).fetchone()[0])",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert rows.strip() == "0", shown
