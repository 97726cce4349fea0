"""A cluster on this machine on which nothing runs yet, under a HOME of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from meter import Meter, Report
from task import Task, require

_PROGRAM = """
import json, os, time
import seamless, seamless.config
from seamless.transformer import delayed

@delayed
def multiply(a, b):
    import os
    return [a * b, os.getpid()]

if __name__ == "__main__":
    seamless.config.init()
    result = multiply(6, 7).run()
    print(json.dumps({"result": result, "at": time.monotonic(), "pid": os.getpid()}), flush=True)
    seamless.close()
"""
_SERVICES = {"hashserver", "database", "jobserver"}
_WORKERS = 2
_END_TIMEOUT = 10.0
_FOREIGN = ("SEAMLESS_", "HASHSERVER_", "REMOTE_HTTP_LAUNCHER", "RHL_", "XDG_")


def first_result(task: Task) -> Report:
    """From the start of a program to the first result of its jobserver, three launches included.

    The CPU time and the memory are the program's, without those of the services.
    """
    with tempfile.TemporaryDirectory(dir=task["scratch"]) as folder, _home(Path(folder)) as home:
        with Meter(children=True) as meter:
            started = time.monotonic()
            done = subprocess.run(
                [sys.executable, "program.py"],
                cwd=home / "project",
                env=_environment(home),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        require(done.returncode == 0, f"the program ended with {done.returncode}: {done.stderr}")
        told = json.loads(done.stdout.splitlines()[-1])
        states = (home / ".remote-http-launcher" / "server").glob("*.json")
        launched = {path.stem.partition("-")[0] for path in states}
    product, worker = told["result"]
    require(product == 42, "the job's result")
    require(worker != told["pid"], "the job ran in the program, not in a worker")
    require(launched == _SERVICES, f"launched: {sorted(launched)}")
    report = meter.report(1)
    report.wall = told["at"] - started
    return report


@contextlib.contextmanager
def _home(folder: Path) -> Iterator[Path]:
    """A HOME with a cluster and a project; every process that has it ends with the block.

    The definitions are JSON, which is YAML as well.
    """
    for name in (".seamless", "tmp", "project"):
        (folder / name).mkdir()
    ports = {"network_interface": "127.0.0.1", "port_start": 20000, "port_end": 31999}
    frontend = {
        "hashserver": {"bufferdir": str(folder / "buffers")},
        "database": {"database_dir": str(folder / "database")},
        "jobserver": {"conda": None, **ports},
    }
    cluster = {"type": "local", "workers": _WORKERS, "frontends": [frontend]}
    definitions = {
        ".seamless/clusters.yaml": {"local_cluster": "here", "here": cluster},
        "project/seamless.yaml": [{"project": "bench"}],
        "project/seamless.profile.yaml": [
            {"cluster": "here"},
            {"execution": "remote"},
            {"remote": "jobserver"},
        ],
    }
    for path, definition in definitions.items():
        (folder / path).write_text(json.dumps(definition))
    (folder / "project" / "program.py").write_text(_PROGRAM)
    try:
        yield folder
    finally:
        _end_processes(folder)


def _environment(home: Path) -> dict[str, str]:
    """That of this process, without settings of the user's own that would lead elsewhere."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**own, "HOME": str(home), "TMPDIR": str(home / "tmp"), "PATH": path}


def _end_processes(home: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _processes(home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + _END_TIMEOUT
        while _processes(home) and time.monotonic() < deadline:
            time.sleep(0.02)
    if left := _processes(home):
        raise RuntimeError(f"processes that do not end: {left}")


def _processes(home: Path) -> list[int]:
    """Every process that has this HOME; one that has ended has no environment any more."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"HOME={home}".encode() in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
    return found
