"""The real services, and whole programs, as processes of their own.

`Service` is one service that a test starts, harms and ends by hand. `Home` is a temporary HOME with
a cluster definition, from which seamless-remote launches services by itself, and `run_script` runs
a program in it. What they print is kept, and shown when something fails.
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
import yaml

BINARIES = Path(sys.executable).parent
HOST = "127.0.0.1"
PORTS = range(20000, 32000)  # below the range from which the kernel takes ports for connections
START_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0

# What a program must never leave on its standard error, whatever else it prints there.
LEAK_SIGNS = (
    "Exception ignored",
    "ResourceWarning",
    "was never awaited",
    "was destroyed but it is pending",
    "exception was never retrieved",
    "Fatal Python error",
)


class ServiceError(Exception):
    """A service did not start, or did not end; the message holds what it printed."""


def free_port() -> int:
    """A port on which nobody listens at this moment."""
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
    """The environment for a process: this interpreter's console scripts first on its PATH."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    env["PATH"] = os.pathsep.join([str(BINARIES), env.get("PATH", os.defpath)])
    env["PYTHONUNBUFFERED"] = "1"
    if home is not None:
        env["HOME"] = str(home)
    return env | changes


def wait_until(
    condition: Callable[[], object], *, timeout: float = 30.0, what: str = "the condition"
) -> None:
    """Poll `condition` until it holds; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about within {timeout:g} seconds")
        time.sleep(0.01)


def healthy(port: int, *, timeout: float = 5.0) -> bool:
    """Whether a `/healthcheck` on this port is answered with 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request("GET", "/healthcheck")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def end_group(leader: int, *, timeout: float = STOP_TIMEOUT) -> None:
    """End a process that leads a session, and all that it started: asked first, then killed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGCONT)
        os.kill(leader, signal.SIGTERM)
        deadline = time.monotonic() + timeout
        while _alive(leader) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(leader, signal.SIGKILL)


def processes_with(name: str, value: str) -> list[psutil.Process]:
    """Every process that was started with this environment variable, the running one aside."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(name) == value:
                found.append(process)
    return found


def end_processes_with(name: str, value: str) -> None:
    """Kill every process that was started with this environment variable."""
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
    """Whether it is `process`, and not a stranger, that listens on `port`."""
    try:
        connections = psutil.Process(process.pid).net_connections(kind="tcp")
    except psutil.NoSuchProcess:
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


class Service:
    """A running service on this machine.

    `arguments` are its command and options, without the port, which is the service's own choice
    of a free one and stays the same through `restart`. A service that a crashed test run leaves
    behind ends itself after its `--timeout`.
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
        """What the service has printed so far."""
        return self._log.read_text(errors="replace")

    def _start(self) -> bool:
        """True once it answers; False where it ended at once, as on a port that is taken."""
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
                raise ServiceError(f"{self._arguments[0]} is silent:\n{self.output()}")
            time.sleep(0.02)
        return False

    def kill(self) -> None:
        """SIGKILL to the service itself; its workers, if it has any, are on their own."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGSTOP: the service keeps its connections and says nothing."""
        self.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED)

    def cont(self) -> None:
        """SIGCONT: the service goes on after `stop`."""
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """End it if it still runs, and start it again on the same port and directory."""
        self.close()
        for _ in range(20):
            if self._start():
                return
            time.sleep(0.25)
        raise ServiceError(f"{self._arguments[0]} did not come back:\n{self.output()}")

    def close(self) -> None:
        """End the service and all its workers; may be called twice."""
        end_group(self.process.pid)
        self.process.wait(STOP_TIMEOUT)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start_hashserver(
    directory: Path, *, writable: bool = True, timeout: float = 600, layout: str = "prefix"
) -> Service:
    """A hashserver on `directory`, which is made where it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    arguments = ["hashserver", str(directory), "--host", HOST, "--layout", layout]
    arguments += ["--timeout", str(timeout), *(["--writable"] if writable else [])]
    return Service(arguments, directory=directory)


def start_database(directory: Path, *, writable: bool = True, timeout: float = 600) -> Service:
    """A seamless-database on `directory/seamless.db`."""
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
    """A seamless-jobserver whose jobs read and write buffers and results at the given services.

    It learns of them as a launched one does: from the `parameters` of its status file.
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


class Home:
    """A temporary HOME: a cluster named `local` in `~/.seamless/clusters.yaml`, and a project.

    Its services need no conda. `configure` sets what the programs run with; `close` ends every
    service that was launched under this HOME and fails where a process is left that was not one.
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
        _write_yaml(path / ".seamless" / "clusters.yaml", cluster_definition(path, workers=workers))
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

        Level 0 has no cluster, level 2 the hashserver and the database, level 3 also `remote`
        (jobserver or daskserver). `profile` and `stages` add commands of the caller's own.
        """
        commands: list[object] = [{"project": self.project_name}]
        if level == 0:
            commands.append({"persistent": False})
        default = "remote" if level == 3 else "process"
        commands.append({"execution": execution or default})
        commands += [{f"stage {name}": list(entries)} for name, entries in (stages or {}).items()]
        _write_yaml(self.project / "seamless.yaml", commands)
        chosen: list[object] = [{"cluster": self.cluster}] if level else []
        if level == 3:
            chosen.append({"remote": remote or "jobserver"})
        _write_yaml(self.project / "seamless.profile.yaml", [*chosen, *profile])

    def run(self, code: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program in the project; see `run_script`."""
        return run_script(code, home=self, **options)

    def services(self) -> dict[str, dict[str, Any]]:
        """The state that the launcher keeps of each service it launched here, by its key."""
        states = {}
        for path in sorted(self.state.glob("server/*.json")):
            with contextlib.suppress(json.JSONDecodeError, FileNotFoundError):
                states[path.stem] = json.loads(path.read_text())
        return states

    def service_pid(self, prefix: str) -> int:
        """The process id of the launched service whose key begins with `prefix`."""
        (pid,) = [s["pid"] for key, s in self.services().items() if key.startswith(prefix)]
        return int(pid)

    def processes(self) -> list[psutil.Process]:
        """Every process that runs under this HOME, the running one aside."""
        return processes_with("HOME", str(self.path))

    def close(self) -> None:
        """End the launched services; any other process left here is ended too, and an error."""
        services = [int(state["pid"]) for state in self.services().values() if "pid" in state]
        strangers = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) not in services:
                    strangers.append(f"{process.pid}: {' '.join(process.cmdline())}")
        for pid in services:
            if _alive(pid):
                end_group(pid)
        end_processes_with("HOME", str(self.path))
        if strangers:
            raise AssertionError("processes left behind:\n" + "\n".join(strangers))


def cluster_definition(path: Path, *, workers: int = 2) -> dict[str, Any]:
    """A cluster on this machine with all four services and a Dask queue, none of them in conda."""
    ports = {"network_interface": HOST, "port_start": PORTS.start, "port_end": PORTS.stop - 1}
    queue = {
        "conda": None,
        "walltime": "1:00:00",
        "cores": workers,
        "memory": "2GB",
        "tmpdir": str(path / "tmp"),
        "unknown_task_duration": "1s",
        "target_duration": "1m",
        "maximum_jobs": 1,
        "interactive": True,
    }
    frontend = {
        "hashserver": {"bufferdir": str(path / "buffers")},
        "database": {"database_dir": str(path / "database")},
        "jobserver": {"conda": None, **ports},
        "daskserver": ports,
    }
    local = {
        "type": "local",
        "workers": workers,
        "frontends": [frontend],
        "queues": {"here": queue},
        "default_queue": "here",
    }
    return {"local_cluster": Home.cluster, Home.cluster: local}


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
    """Run `code` as a program of its own under `home`, from a file in its project directory.

    Fails, with the output shown, where it does not end within `timeout` seconds, where its exit
    status is not 0 (unless `check` is False), and where its standard error shows a leak: a sign of
    `LEAK_SIGNS` that is not in `allow`. Warnings are errors; third-party deprecations are shown.
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
    """Run a command under `home`, a console script of this interpreter or any other program.

    As `run_script` in what fails and how; the output is text, undecodable bytes replaced.
    """
    program = shutil.which(command[0], path=home.env["PATH"]) or command[0]
    # Files and not pipes: a process that the program leaves behind would hold a pipe open.
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
    """Whether the process ended in time; where it did not, faulthandler shows where it hangs."""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
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


def _write_yaml(path: Path, content: object) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
