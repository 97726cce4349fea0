"""Runs the real services, and whole programs, as separate processes.

`Service` is a service that a test starts, disturbs and ends itself. `Home` is a temporary HOME with
a cluster definition, from which seamless-remote launches services; `run_script` runs a program in
it. Their output is kept and shown on failure.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from seamless_remote.demo import local_cluster
from seamless_remote.demo.local_cluster import HOST, PORTS, processes_with, write_yaml

BINARIES = Path(sys.executable).parent
START_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0

# Signs of a leak that a program must never print to standard error.
LEAK_SIGNS = (
    "Exception ignored",
    "ResourceWarning",
    "was never awaited",
    "was destroyed but it is pending",
    "exception was never retrieved",
    "Fatal Python error",
)


class ServiceError(Exception):
    """A service did not start or did not end. The message includes its output."""


def free_port() -> int:
    """A port of `PORTS` that is free at this moment."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def environment(home: Path | None = None, **changes: str) -> dict[str, str]:
    """The environment for a process, with this interpreter's console scripts first in PATH."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    env["PATH"] = os.pathsep.join([str(BINARIES), env.get("PATH", os.defpath)])
    env["PYTHONUNBUFFERED"] = "1"
    if home is not None:
        env["HOME"] = str(home)
    return env | changes


def wait_until(
    condition: Callable[[], object], *, timeout: float = 30.0, what: str = "the condition"
) -> None:
    """Poll `condition` until it holds. AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} seconds in vain for {what}")
        time.sleep(0.01)


def healthy(port: int, *, timeout: float = 5.0) -> bool:
    """Whether `/healthcheck` on this port returns 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request("GET", "/healthcheck")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def end_group(leader: int, *, timeout: float = STOP_TIMEOUT) -> None:
    """End the session that `leader` leads: terminate the leader, then kill what is left."""
    with contextlib.suppress(ProcessLookupError):
        # A stopped process would not handle SIGTERM.
        os.killpg(leader, signal.SIGCONT)
        os.kill(leader, signal.SIGTERM)
        deadline = time.monotonic() + timeout
        while _alive(leader) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(leader, signal.SIGKILL)


def end_processes_with(name: str, value: str) -> None:
    """Kill all processes that were started with this environment variable."""
    for process in processes_with(name, value):
        with contextlib.suppress(psutil.Error):
            process.kill()
    wait_until(lambda: not processes_with(name, value), what="the end of all processes")


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether `process` itself listens on `port`, and not some other process."""
    try:
        connections = psutil.Process(process.pid).net_connections(kind="tcp")
    except psutil.NoSuchProcess:
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


class Service:
    """A running service on this machine.

    `arguments` are its command and options except the port, a free one that is chosen here and kept
    by `restart`. A service left behind by a crashed test run exits after its own `--timeout`.
    """

    def __init__(
        self, arguments: Sequence[str], *, directory: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.port = 0
        self.process: subprocess.Popen[bytes]
        self._arguments = [str(BINARIES / arguments[0]), *arguments[1:]]
        self._env = environment() if env is None else dict(env)
        self._log = directory.with_name(f"{directory.name}.log")
        while True:
            self.port = free_port()
            if self._start():
                return
            if not _taken(self.port):
                raise ServiceError(f"{arguments[0]} did not start:\n{self.output()}")

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def output(self) -> str:
        """The output of the service so far."""
        return self._log.read_text(errors="replace")

    def _start(self) -> bool:
        """Start the process. True once it is healthy; False if it exits, as on a taken port."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._arguments, "--port", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while self.process.poll() is None:
            if healthy(self.port) and _listens(self.process, self.port):
                return True
            if time.monotonic() > deadline:
                self.close()
                raise ServiceError(
                    f"{self._arguments[0]} did not become healthy within {START_TIMEOUT:g} "
                    f"seconds:\n{self.output()}"
                )
            time.sleep(0.02)
        return False

    def kill(self) -> None:
        """Send SIGKILL to the service, but not to its workers."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Send SIGSTOP: the service keeps its connections and falls silent."""
        self.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED)

    def cont(self) -> None:
        """Send SIGCONT, which resumes the service after `stop`."""
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """End the service if it still runs, and start it with the same port and directory."""
        self.close()
        # Try repeatedly: another process may hold the port for a moment.
        for _ in range(20):
            if self._start():
                return
            time.sleep(0.25)
        raise ServiceError(f"{self._arguments[0]} did not restart:\n{self.output()}")

    def close(self) -> None:
        """End the service and all its workers. Safe to repeat."""
        end_group(self.process.pid)
        self.process.wait(STOP_TIMEOUT)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start_hashserver(
    directory: Path, *, writable: bool = True, timeout: float = 600, layout: str = "prefix"
) -> Service:
    """Start a hashserver on `directory`, which is created if missing."""
    directory.mkdir(parents=True, exist_ok=True)
    arguments = ["hashserver", str(directory), "--host", HOST, "--layout", layout]
    arguments += ["--timeout", str(timeout), *(["--writable"] if writable else [])]
    return Service(arguments, directory=directory)


def start_database(directory: Path, *, writable: bool = True, timeout: float = 600) -> Service:
    """Start a seamless-database on `directory/seamless.db`."""
    directory.mkdir(parents=True, exist_ok=True)
    arguments = ["seamless-database", str(directory / "seamless.db"), "--host", HOST]
    arguments += ["--timeout", str(timeout), *(["--writable"] if writable else [])]
    return Service(arguments, directory=directory)


def start_jobserver(
    directory: Path,
    *,
    workers: int = 1,
    hashserver: Service | None = None,
    database: Service | None = None,
    record: bool = False,
    timeout: float = 600,
) -> Service:
    """Start a seamless-jobserver whose jobs use the given services for buffers and results.

    It gets their addresses as a launched jobserver does, from the `parameters` in its status file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    parameters: dict[str, Any] = {"record": record, "buffer": [], "database": []}
    for kind, service in (("buffer", hashserver), ("database", database)):
        if service is not None:
            parameters[kind].append({"readonly": False, "remote_url": service.url})
    status = directory / "status.json"
    status.write_text(json.dumps({"status": "starting", "parameters": parameters}))
    arguments = ["seamless-jobserver", "--workers", str(workers), "--host", HOST]
    arguments += ["--timeout", str(timeout), "--status-file", str(status)]
    return Service(arguments, directory=directory)


LAUNCHER_PATIENCE = 30.0
"""Seconds that a launcher may take to check what it has started."""


class Home:
    """A temporary HOME with a cluster named `local` in `~/.seamless/clusters.yaml`, and a project.

    `configure` writes the project's configuration. `close` ends the services that were launched
    under this HOME, and fails if any other process is left.
    """

    cluster = "local"
    project_name = "testproject"

    def __init__(self, path: Path, *, workers: int = 2) -> None:
        self.path = path
        self.project = path / "project"
        self.buffers = path / "buffers" / self.project_name
        self.database = path / "database" / self.project_name
        self.state = path / ".remote-http-launcher"
        for directory in (self.project, path / ".seamless", path / "tmp"):
            directory.mkdir(parents=True)
        self.env = environment(path, TMPDIR=str(path / "tmp"))
        write_yaml(path / ".seamless" / "clusters.yaml", cluster_definition(path, workers=workers))
        self.configure()

    def configure(
        self,
        *,
        level: int = 2,
        execution: str | None = None,
        remote: str | None = None,
        profile: Sequence[object] = (),
        stages: Mapping[str, Sequence[object]] | None = None,
    ) -> None:
        """Write seamless.yaml and seamless.profile.yaml for a delegation level.

        Level 0 has no cluster; level 2 has the hashserver and the database; level 3 also has
        `remote` (`jobserver`, the default, or `daskserver`). `profile` and `stages` are further
        commands for seamless.profile.yaml, and for the stages in seamless.yaml.
        """
        commands: list[object] = [{"project": self.project_name}]
        if level == 0:
            commands.append({"persistent": False})
        default = "remote" if level == 3 else "process"
        commands.append({"execution": execution or default})
        commands += [{f"stage {name}": list(entries)} for name, entries in (stages or {}).items()]
        write_yaml(self.project / "seamless.yaml", commands)
        chosen: list[object] = [{"cluster": self.cluster}] if level else []
        if level == 3:
            chosen.append({"remote": remote or "jobserver"})
        write_yaml(self.project / "seamless.profile.yaml", [*chosen, *profile])

    def run(self, code: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program in the project, as `run_script` does."""
        return run_script(code, home=self, **options)

    def services(self) -> dict[str, dict[str, Any]]:
        """The launcher's state of each service launched under this HOME, by the service's key."""
        states = {}
        for path in sorted(self.state.glob("server/*.json")):
            # The launcher may remove the file at any time.
            with contextlib.suppress(json.JSONDecodeError, FileNotFoundError):
                states[path.stem] = json.loads(path.read_text())
        return states

    def service_pid(self, prefix: str) -> int:
        """The process id of the one launched service whose key starts with `prefix`."""
        (pid,) = [s["pid"] for key, s in self.services().items() if key.startswith(prefix)]
        return int(pid)

    def processes(self) -> list[psutil.Process]:
        """All processes under this HOME, except this one."""
        return processes_with("HOME", str(self.path))

    def _strangers(self, services: list[int]) -> list[str]:
        strangers = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) not in services:
                    strangers.append(f"{process.pid}: {' '.join(process.cmdline())}")
        return strangers

    def close(self) -> None:
        """End all processes under this HOME. AssertionError if one of them is not a service's."""
        services = [int(state["pid"]) for state in self.services().values() if "pid" in state]
        # The launcher checks once more what it has started, and ends.
        deadline = time.monotonic() + LAUNCHER_PATIENCE
        while (strangers := self._strangers(services)) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in services:
            if _alive(pid):
                end_group(pid)
        end_processes_with("HOME", str(self.path))
        if strangers:
            raise AssertionError("processes left behind:\n" + "\n".join(strangers))


def cluster_definition(path: Path, *, workers: int = 2) -> dict[str, Any]:
    """The content of clusters.yaml for a `Home` at `path`."""
    return local_cluster.cluster_definition(path, name=Home.cluster, workers=workers)


def run_script(
    code: str,
    *,
    home: Home,
    cwd: Path | None = None,
    timeout: float = 120.0,
    env: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    check: bool = True,
    warnings: Sequence[str] = ("error", "default::DeprecationWarning"),
    allow: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run `code` as a separate program under `home`, from a file in the project directory.

    Raises AssertionError with the output if the program does not end within `timeout` seconds, if
    its exit status is not 0 (unless `check` is False), or if its standard error contains one of
    `LEAK_SIGNS` that is not in `allow`. By default, warnings other than deprecations are errors.
    """
    directory = home.project if cwd is None else cwd
    script = directory / "program.py"
    script.write_text(code)
    options = [option for item in warnings for option in ("-W", item)]
    command = [sys.executable, "-X", "faulthandler", *options, str(script), *arguments]
    return run_command(
        command,
        home=home,
        cwd=directory,
        timeout=timeout,
        env=env,
        check=check,
        allow=allow,
    )


def run_command(
    command: Sequence[str],
    *,
    home: Home,
    cwd: Path | None = None,
    timeout: float = 120.0,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    allow: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a command under `home`: a console script of this interpreter, or any other program.

    Raises AssertionError as `run_script` does. Undecodable bytes of the output are replaced.
    """
    program = shutil.which(command[0], path=home.env["PATH"]) or command[0]
    # Files and not pipes: a process that the program leaves behind would keep a pipe open.
    with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile("w+b") as err:
        process = subprocess.Popen(
            [program, *command[1:]],
            cwd=home.project if cwd is None else cwd,
            env={**home.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        in_time = _await_end(process, timeout)
        stdout, stderr = (_content(file) for file in (out, err))
    if not in_time:
        shown = _shown(command, process.returncode, stdout, stderr)
        raise AssertionError(f"no end within {timeout:g} seconds\n{shown}")
    signs = [sign for sign in LEAK_SIGNS if sign in stderr and sign not in allow]
    if signs or (check and process.returncode != 0):
        shown = _shown(command, process.returncode, stdout, stderr)
        raise AssertionError(f"{', '.join(signs) or 'the program failed'}\n{shown}")
    return subprocess.CompletedProcess(list(command), process.returncode, stdout, stderr)


def _await_end(process: subprocess.Popen[bytes], timeout: float) -> bool:
    """Whether the process ended in time. If it did not, kill it and its session."""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        # faulthandler prints a traceback of each thread on SIGABRT.
        process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    return True


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _shown(command: Sequence[str], status: int, stdout: str, stderr: str) -> str:
    return f"{' '.join(command)}: exit status {status}\nstdout:\n{stdout}\nstderr:\n{stderr}"
