"""A temporary HOME with a cluster definition, in which the demo runs programs and services."""

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

from .frontend import Frontend, FrontendError
from .local_cluster import FOREIGN_PREFIXES, cluster_definition, processes_with, write_yaml

CLUSTER = "here"
FRONTEND_CLUSTER = "there"
WORKERS = 2
PROGRAM_TIMEOUT = 180.0
"""Seconds that a program may run."""

END_TIMEOUT = 10.0
"""Seconds that processes get to end after SIGTERM, and again after SIGKILL."""


class StepError(Exception):
    """A step of the demo had an unexpected outcome; the message describes it."""


@dataclass(frozen=True)
class Completed:
    """A command that has ended: its exit status and its output."""

    status: int
    stdout: str
    stderr: str


class Sandbox:
    """The temporary HOME. `close` ends all processes in it and removes it."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="seamless-demo-"))
        self.journal = self.home / "journal"
        self.frontend: Frontend | None = None
        self._known: set[str] = set()
        for name in (".seamless", "tmp"):
            (self.home / name).mkdir()
        self.journal.touch()
        self._clusters = cluster_definition(self.home, name=CLUSTER, workers=WORKERS)
        self._write_clusters()

    def open_frontend(self) -> Frontend:
        """Set up a frontend that programs reach by ssh, and a cluster with it, behind tunnels.

        FrontendError if that fails.
        """
        self.frontend = Frontend(self.home / "frontend", self.home, DEMO_JOURNAL=str(self.journal))
        self._clusters[FRONTEND_CLUSTER] = self.frontend.cluster(tunnel=True, workers=WORKERS)
        self._write_clusters()
        return self.frontend

    def project(self, name: str, *commands: Mapping[str, object]) -> Path:
        """Create a project directory with configuration files, as a user would; returns its path.

        `commands` are the content of seamless.profile.yaml.
        """
        directory = self.home / name
        directory.mkdir(exist_ok=True)
        write_yaml(directory / "seamless.yaml", [{"project": name}])
        write_yaml(directory / "seamless.profile.yaml", list(commands))
        return directory

    def run_program(self, code: str, project: Path, *arguments: str) -> dict[str, Any]:
        """Run a program in a project directory; returns the JSON object that it prints last.

        StepError if it fails.
        """
        (project / "program.py").write_text(code)
        completed = self.run([sys.executable, "program.py", *arguments], project)
        if completed.status != 0:
            raise StepError(
                f"the program exited with status {completed.status}\n{_output_of(completed)}"
            )
        try:
            printed: dict[str, Any] = json.loads(completed.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            raise StepError(f"the program printed no result\n{_output_of(completed)}") from None
        return printed

    def run(self, command: Sequence[str], directory: Path) -> Completed:
        """Run a command with this HOME. StepError if it is missing or exceeds the timeout."""
        # Files and not pipes: a service that the command launches would hold a pipe open.
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
        completed = Completed(process.returncode, *texts)
        if not in_time:
            raise StepError(f"no end after {PROGRAM_TIMEOUT:g} seconds\n{_output_of(completed)}")
        return completed

    def runs(self, name: str) -> list[int]:
        """The process ids in which the transformation `name` has run, according to the journal."""
        lines = [line.split() for line in self.journal.read_text().splitlines()]
        return [int(pid) for word, pid in lines if word == name]

    def newly_launched(self) -> list[str]:
        """Descriptions of the services launched since the last call."""
        launched = []
        for path in sorted((self.home / ".remote-http-launcher" / "server").glob("*.json")):
            if path.stem not in self._known:
                self._known.add(path.stem)
                state = json.loads(path.read_text())
                service = path.stem.partition("-")[0]
                launched.append(f"{service} (process {state['pid']}, port {state.get('port')})")
        return launched

    def service_logs(self) -> str:
        """The last lines of each service's log."""
        texts = []
        homes = [self.home] if self.frontend is None else [self.home, self.frontend.home]
        logs = (home.glob(".remote-http-launcher/server/*.log") for home in homes)
        for path in (path for found in logs for path in sorted(found)):
            lines = path.read_text(errors="replace").splitlines()[-10:]
            texts.append("\n".join([f"{path.stem}:", *(f"  {line}" for line in lines)]))
        return "\n".join(texts)

    def _environment(self) -> dict[str, str]:
        """This HOME, its own temporary folder, and the console scripts of this Python."""
        folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
        if self.frontend is not None:
            folders.insert(0, str(self.frontend.ssh_folder))
        own = {
            key: value for key, value in os.environ.items() if not key.startswith(FOREIGN_PREFIXES)
        }
        return {
            **own,
            "HOME": str(self.home),
            "TMPDIR": str(self.home / "tmp"),
            "PATH": os.pathsep.join(folders),
            "DEMO_JOURNAL": str(self.journal),
        }

    def close(self) -> None:
        """End all processes and remove the HOME. StepError if a process does not end."""
        try:
            if self.frontend is not None:
                self.frontend.close()
            self._end_processes()
        except FrontendError as exc:
            raise StepError(str(exc)) from exc
        finally:
            shutil.rmtree(self.home)

    def _write_clusters(self) -> None:
        write_yaml(self.home / ".seamless" / "clusters.yaml", self._clusters)

    def _end_processes(self) -> None:
        # Terminate session leaders only: the services, which then end their own workers. Kill
        # whatever is left after that.
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
            raise StepError(f"processes are still running: {left}")

    def _processes(self) -> list[psutil.Process]:
        return processes_with("HOME", str(self.home))


def _output_of(completed: Completed) -> str:
    texts = (completed.stdout, completed.stderr)
    return "\n".join(text.strip() for text in texts if text.strip())
