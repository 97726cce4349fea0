"""Programs: curl, the command-line tools, and programs on a cluster that they launch.

The figures are the program's, without those of the services that it launches.
"""

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
from typing import Any

from meter import Meter, Report
from task import Task, file_checksum, require, take_stored

_SCRIPTS = Path(sys.executable).parent
_RESOLVE = str(_SCRIPTS / "seamless-resolve")
_FIRST_PROGRAM = """
import json, os, sys, time
import seamless, seamless.config
from seamless.transformer import delayed

@delayed
def multiply(a, b):
    import os
    return [a * b, os.getpid()]

if __name__ == "__main__":
    seamless.config.init()
    product, worker = multiply(6, int(sys.argv[1])).run()
    at = time.monotonic()
    print(json.dumps({"product": product, "at": at, "remote": worker != os.getpid()}), flush=True)
    seamless.close()
"""
_MANY_PROGRAM = """
import json, sys, time
import seamless, seamless.config
from seamless.transformer import delayed

@delayed
def square(a):
    return a * a

if __name__ == "__main__":
    seamless.config.init()
    square(-1).run()
    started = time.monotonic()
    jobs = [square(number).start() for number in range(int(sys.argv[1]))]
    results = [job.run() for job in jobs]
    wall = time.monotonic() - started
    print(json.dumps({"results": results, "wall": wall}), flush=True)
    seamless.close()
"""
_STORES = {"hashserver", "database"}


def downloaded(task: Task) -> Report:
    """The large buffer, or the one that `buffer` names, from the server into a file."""
    checksum, url = task[task.get("buffer", "large")], task["servers"][0]
    with tempfile.TemporaryDirectory(dir=task["scratch"]) as folder:
        target = Path(folder, "download")
        if task["peer"] == "curl":
            report = _run("curl", "-sSf", "-o", target, f"{url}/{checksum}")
        else:
            clients = json.dumps({"buffer": [{"remote_url": url, "readonly": True}]})
            variables = {"SEAMLESS_REMOTE_CLIENTS": clients, "HOME": folder}
            report = _run(_RESOLVE, checksum, "--output", target, **variables)
        require(file_checksum(target) == checksum, "the file's bytes")
    return report


def uploaded(task: Task) -> Report:
    """A large new buffer from a file to the server, by curl."""
    with tempfile.NamedTemporaryFile(dir=task["scratch"]) as source:
        piece = os.urandom(1 << 20)
        for _ in range(task["mebibytes"]):
            source.write(piece)
        source.flush()
        checksum = file_checksum(Path(source.name))
        url = f"{task['servers'][0]}/{checksum}"
        report = _run("curl", "-sSf", "-H", "Expect:", "-o", os.devnull, "-T", source.name, url)
    take_stored(task["stored"], checksum)
    return report


def help_text(task: Task) -> Report:
    """`seamless-resolve --help`, `count` times."""
    command = [_RESOLVE, "--help"]
    require(b"checksum" in subprocess.check_output(command).lower(), "the help text")
    with Meter(children=True) as meter:
        for _ in range(task["count"]):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return meter.report(task["count"])


def first_result(task: Task) -> Report:
    """From the start of a program to the first result of its jobserver, three launches included."""
    with _home(task["scratch"], _FIRST_PROGRAM, remote="jobserver") as home:
        meter, wall = _timed_first(home, 7)
    return meter.report(wall=wall)


def warm_result(task: Task) -> Report:
    """From the start of a program to its first result, where an earlier one launched Dask's stage.

    It is the mean of `count` programs in turn; the peak of memory is that of the earlier one too.
    """
    count = task["count"]
    with _home(task["scratch"], _FIRST_PROGRAM, remote="daskserver") as home:
        _timed_first(home, 7)
        launched = _launched(home)
        with Meter(children=True) as meter:
            # Each multiplies by another number: the database has the earlier results.
            walls = [_timed_first(home, 8 + number)[1] for number in range(count)]
        require(_launched(home) == launched, "the stage was warm, but a service is another process")
    return meter.report(count, wall=sum(walls) / count)


def many_results(task: Task) -> Report:
    """`count` jobs at once at a jobserver that is up; the CPU time is that of the whole program."""
    count = task["count"]
    with _home(task["scratch"], _MANY_PROGRAM, remote="jobserver") as home:
        meter, told = _program(home, count)
    require(told["results"] == [number**2 for number in range(count)], "the jobs' results")
    return meter.report(wall=told["wall"])


def _timed_first(home: Path, factor: int) -> tuple[Meter, float]:
    """Run the first program; also the seconds from its start to its result."""
    meter, told = _program(home, factor)
    require(told["product"] == 6 * factor, "the job's result")
    require(told["remote"], "the job ran in the program, not in a worker")
    return meter, told["at"] - told["started"]


def _program(home: Path, argument: int) -> tuple[Meter, dict[str, Any]]:
    """Run the program in this HOME; what it tells, and when it `started`."""
    # No setting of the user's own is to lead elsewhere.
    path = f"{_SCRIPTS}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = {"HOME": str(home), "TMPDIR": str(home), "PATH": path}
    program = [sys.executable, "program.py", str(argument)]
    with Meter(children=True) as meter:
        started = time.monotonic()
        printed = subprocess.check_output(program, cwd=home / "project", env=environment)
    return meter, {**json.loads(printed.splitlines()[-1]), "started": started}


def _launched(home: Path) -> dict[str, int]:
    """The process of each launched service, by the kind of service."""
    states = (home / ".remote-http-launcher" / "server").glob("*.json")
    return {path.stem.partition("-")[0]: json.loads(path.read_text())["pid"] for path in states}


def _run(*command: str | Path, **variables: str) -> Report:
    with Meter(children=True) as meter:
        subprocess.run(command, check=True, env=os.environ | variables, stdout=sys.stderr)
    return meter.report()


@contextlib.contextmanager
def _home(scratch: str, source: str, *, remote: str) -> Iterator[Path]:
    """A HOME with a cluster and a project whose jobs go to `remote`, which the block has to launch.

    Every process that has this HOME ends with the block.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        home = Path(folder)
        ports = {"network_interface": "127.0.0.1", "port_start": 20000, "port_end": 31999}
        frontend = {
            "hashserver": {"bufferdir": str(home / "buffers")},
            "database": {"database_dir": str(home / "database")},
            "jobserver": {"conda": None, **ports},
            "daskserver": ports,
        }
        queue = {
            "conda": None,
            "walltime": "1:00:00",
            "cores": 2,
            "memory": "2GB",
            "tmpdir": str(home),
            "unknown_task_duration": "1s",
            "target_duration": "1m",
            "maximum_jobs": 1,
            "interactive": True,
        }
        cluster = {"type": "local", "workers": 2, "frontends": [frontend]}
        cluster |= {"queues": {"main": queue}, "default_queue": "main"}
        profile = [{"cluster": "here"}, {"execution": "remote"}, {"remote": remote}]
        clusters = {"local_cluster": "here", "here": cluster}
        for path, content in {
            ".seamless/clusters.yaml": json.dumps(clusters),  # which is YAML as well
            "project/seamless.yaml": json.dumps([{"project": "bench"}]),
            "project/seamless.profile.yaml": json.dumps(profile),
            "project/program.py": source,
        }.items():
            (home / path).parent.mkdir(exist_ok=True)
            (home / path).write_text(content)
        try:
            yield home
            require(_launched(home).keys() == {*_STORES, remote}, f"launched: {_launched(home)}")
        finally:
            _kill_processes(home)


def _kill_processes(home: Path) -> None:
    """Kill every process that has this HOME; one that has ended has no environment any more."""
    left = True
    while left:
        left = False
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if f"HOME={home}".encode() in environment.read_bytes().split(b"\0"):
                    left = True
                    os.kill(int(environment.parent.name), signal.SIGKILL)
