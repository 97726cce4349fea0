"""Programs: curl, the command-line tools, and a first program on a cluster where nothing runs yet.

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
import json, os, time
import seamless, seamless.config
from seamless.transformer import delayed

@delayed
def multiply(a, b):
    import os
    return [a * b, os.getpid()]

if __name__ == "__main__":
    seamless.config.init()
    product, worker = multiply(6, 7).run()
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
_LAUNCHED = {"hashserver", "database", "jobserver"}


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
    meter, told = _program(task, _FIRST_PROGRAM)
    require(told["product"] == 42, "the job's result")
    require(told["remote"], "the job ran in the program, not in a worker")
    return meter.report(wall=told["at"] - told["started"])


def many_results(task: Task) -> Report:
    """`count` jobs at once at a jobserver that is up; the CPU time is that of the whole program."""
    count = task["count"]
    meter, told = _program(task, _MANY_PROGRAM, str(count))
    require(told["results"] == [number**2 for number in range(count)], "the jobs' results")
    return meter.report(wall=told["wall"])


def _program(task: Task, source: str, *arguments: str) -> tuple[Meter, dict[str, Any]]:
    """Run a program on a cluster where nothing runs yet; what it tells, and when it `started`."""
    with _home(task["scratch"], source) as home:
        # No setting of the user's own is to lead elsewhere.
        path = f"{_SCRIPTS}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        environment = {"HOME": str(home), "TMPDIR": str(home), "PATH": path}
        program = [sys.executable, "program.py", *arguments]
        with Meter(children=True) as meter:
            started = time.monotonic()
            printed = subprocess.check_output(program, cwd=home / "project", env=environment)
        states = (home / ".remote-http-launcher" / "server").glob("*.json")
        launched = {path.stem.partition("-")[0] for path in states}
    require(launched == _LAUNCHED, f"launched: {sorted(launched)}")
    return meter, {**json.loads(printed.splitlines()[-1]), "started": started}


def _run(*command: str | Path, **variables: str) -> Report:
    with Meter(children=True) as meter:
        subprocess.run(command, check=True, env=os.environ | variables, stdout=sys.stderr)
    return meter.report()


@contextlib.contextmanager
def _home(scratch: str, source: str) -> Iterator[Path]:
    """A HOME with a cluster and a project; every process that has it ends with the block."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        home = Path(folder)
        frontend = {
            "hashserver": {"bufferdir": str(home / "buffers")},
            "database": {"database_dir": str(home / "database")},
            "jobserver": {
                "conda": None,
                "network_interface": "127.0.0.1",
                "port_start": 20000,
                "port_end": 31999,
            },
        }
        cluster = {"type": "local", "workers": 2, "frontends": [frontend]}
        profile = [{"cluster": "here"}, {"execution": "remote"}, {"remote": "jobserver"}]
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
