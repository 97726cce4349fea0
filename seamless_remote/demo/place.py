"""A temporary HOME with a cluster definition, the programs that run in it, and its end.

Every process of the demo, the launched services included, has this HOME in its environment; that is
how they are found again at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

CLUSTER = "here"
WORKERS = 2
PORTS = {"network_interface": "127.0.0.1", "port_start": 20000, "port_end": 31999}
PROGRAM_TIMEOUT = 180.0
END_TIMEOUT = 10.0

# Settings of the user's own that would lead the programs elsewhere.
FOREIGN = ("SEAMLESS_", "HASHSERVER_", "REMOTE_HTTP_LAUNCHER", "RHL_", "DASK_", "XDG_")


class StepError(Exception):
    """A step of the demo did not do what it should; the message says what happened instead."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit status and what it printed."""

    status: int
    stdout: str
    stderr: str


class Place:
    """The temporary HOME; after `close()` nothing of it is left."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="seamless-demo-"))
        self.journal = self.home / "journal"
        self._known: set[str] = set()
        for name in (".seamless", "tmp"):
            (self.home / name).mkdir()
        self.journal.touch()
        _write_yaml(self.home / ".seamless" / "clusters.yaml", cluster_definition(self.home))

    def project(self, name: str, *commands: Mapping[str, object]) -> Path:
        """A project directory with its configuration, as the user writes it."""
        directory = self.home / name
        directory.mkdir(exist_ok=True)
        _write_yaml(directory / "seamless.yaml", [{"project": name}])
        _write_yaml(directory / "seamless.profile.yaml", list(commands))
        return directory

    def run_program(self, code: str, project: Path, *arguments: str) -> dict[str, Any]:
        """Run a program in its project directory; gives the JSON object that it prints."""
        (project / "program.py").write_text(code)
        ended = self.run([sys.executable, "program.py", *arguments], project)
        if ended.status != 0:
            raise StepError(f"the program ended with status {ended.status}\n{_shown(ended)}")
        try:
            printed: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            raise StepError(f"the program printed no result\n{_shown(ended)}") from None
        return printed

    def run(self, command: Sequence[str], directory: Path) -> Ended:
        """Run a command under this HOME; a StepError where it is missing or does not end."""
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            try:
                process = subprocess.Popen(
                    command,
                    cwd=directory,
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                )
            except FileNotFoundError:
                raise StepError(f"there is no command {command[0]!r}") from None
            in_time = True
            try:
                process.wait(PROGRAM_TIMEOUT)
            except subprocess.TimeoutExpired:
                in_time = False
            finally:
                process.kill()
                process.wait()
            texts = []
            for file in (stdout, stderr):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        ended = Ended(process.returncode, *texts)
        if not in_time:
            raise StepError(f"no end after {PROGRAM_TIMEOUT:g} seconds\n{_shown(ended)}")
        return ended

    def runs(self, name: str) -> list[int]:
        """The processes in which the code of this name has run, from the journal."""
        lines = [line.split() for line in self.journal.read_text().splitlines()]
        return [int(pid) for word, pid in lines if word == name]

    def newly_launched(self) -> list[str]:
        """What remote-http-launcher has started since the last call, each in a few words."""
        launched = []
        for path in sorted((self.home / ".remote-http-launcher" / "server").glob("*.json")):
            if path.stem not in self._known:
                self._known.add(path.stem)
                state = json.loads(path.read_text())
                service = path.stem.partition("-")[0]
                launched.append(f"{service} (process {state['pid']}, port {state.get('port')})")
        return launched

    def service_logs(self) -> str:
        """The last lines that each service has printed."""
        texts = []
        for path in sorted((self.home / ".remote-http-launcher" / "server").glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-10:]
            texts.append("\n".join([f"{path.stem}:", *(f"  {line}" for line in lines)]))
        return "\n".join(texts)

    def _environment(self) -> dict[str, str]:
        """Its own HOME and folder for temporary files, and this Python's console scripts."""
        scripts = str(Path(sys.executable).parent)
        own = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
        return {
            **own,
            "HOME": str(self.home),
            "TMPDIR": str(self.home / "tmp"),
            "PATH": os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)]),
            "DEMO_JOURNAL": str(self.journal),
        }

    def close(self) -> None:
        """End every process of the demo, and remove its HOME."""
        try:
            self._end_processes()
        finally:
            shutil.rmtree(self.home)

    def _end_processes(self) -> None:
        """Ask every process to end, the services before their workers; kill what does not."""
        processes = self._processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getsid(process.pid) == process.pid:
                    process.terminate()
        psutil.wait_procs(processes, timeout=END_TIMEOUT)
        for process in (remaining := self._processes()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(remaining, timeout=END_TIMEOUT)
        if left := self._processes():
            raise StepError(f"processes are left: {left}")

    def _processes(self) -> list[psutil.Process]:
        """Every process that has this HOME."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(
                    "HOME"
                ) == str(self.home):
                    found.append(process)
        return found


def cluster_definition(home: Path) -> dict[str, Any]:
    """A cluster on this machine with all four services, none of them in a conda environment."""
    services = {
        "hashserver": {"bufferdir": str(home / "buffers")},
        "database": {"database_dir": str(home / "database")},
        "jobserver": {"conda": None, **PORTS},
        "daskserver": PORTS,
    }
    queue = {
        "conda": None,
        "walltime": "1:00:00",
        "cores": WORKERS,
        "memory": "2GB",
        "tmpdir": str(home / "tmp"),
        "unknown_task_duration": "1s",
        "target_duration": "1m",
        "maximum_jobs": 1,
        "interactive": True,
    }
    cluster = {
        "type": "local",
        "workers": WORKERS,
        "frontends": [services],
        "queues": {"short": queue},
        "default_queue": "short",
    }
    return {"local_cluster": CLUSTER, CLUSTER: cluster}


def _shown(ended: Ended) -> str:
    return "\n".join(text.strip() for text in (ended.stdout, ended.stderr) if text.strip())


def _write_yaml(path: Path, content: object) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
