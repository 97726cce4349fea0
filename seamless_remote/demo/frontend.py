"""A frontend on this machine that is reached over a real OpenSSH server, for demo and tests.

Nothing of the system is touched: the server runs as this user, on a loopback address and a port
above 1023, with its own configuration and keys, and the frontend is this user with another HOME.
That holds what remote-http-launcher expects of a frontend: a conda base installation with its
helpers, and an environment with the services.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from .local_cluster import HOST, PORTS, processes_with

ADDRESS = "127.0.0.2"
"""Where the frontend's services listen: another address than this machine's own services."""

SSH_NAME = "frontend"
"""The name by which the laptop's ssh knows it."""

ENVIRONMENT = "seamless"
"""Its conda environment."""

START_TIMEOUT = 30.0
"""Seconds that the SSH server may take to listen."""

END_TIMEOUT = 10.0
"""Seconds that processes get to end after they were killed."""

# Of the environment's programs, those that the launcher runs by name.
_PROGRAMS = ("hashserver", "seamless-", "rhl-")


def find_sshd() -> str | None:
    """The path of an OpenSSH server that can be started here; None without one, or without ssh."""
    folders = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", "/sbin"]
    found = shutil.which("sshd", path=os.pathsep.join(folders))
    return found if all(map(shutil.which, ("ssh", "ssh-keygen", "bash"))) else None


class FrontendError(Exception):
    """The frontend could not be set up; the message has what the SSH server said."""


class Frontend:
    """A frontend in `folder`, and the `.ssh` of a laptop whose HOME is `laptop`.

    `close` ends what runs in either of the two on behalf of the frontend, and the SSH server.
    """

    def __init__(self, folder: Path, laptop: Path, **variables: str) -> None:
        """`variables` are in the environment of whatever runs on the frontend."""
        self.home = folder / "home"
        self.laptop = laptop
        self.port = 0
        self._folder = folder
        self._variables = variables
        self._sshd: subprocess.Popen[bytes] | None = None
        self.home.mkdir(parents=True)
        _make_conda(self.home)
        self._make_keys()
        self.start()
        self.write_ssh_config()

    @property
    def ssh_folder(self) -> Path:
        """The folder with the `ssh` of the laptop, which is to be first on its PATH.

        The real one takes its home from the password database, whatever HOME says.
        """
        return self.laptop / "bin"

    def cluster(self, *, tunnel: bool, workers: int = 2) -> dict[str, Any]:
        """The definition of a cluster with this frontend, for clusters.yaml."""
        there = {"conda": ENVIRONMENT, "network_interface": ADDRESS}
        ports = {"port_start": PORTS.start, "port_end": PORTS.stop - 1}
        services = {
            "hostname": ADDRESS,
            "ssh_hostname": SSH_NAME,
            "hashserver": {"bufferdir": str(self.home / "buffers"), **there, **ports},
            "database": {"database_dir": str(self.home / "database"), **there, **ports},
            "jobserver": {**there, **ports},
            "daskserver": {"network_interface": ADDRESS, **ports},
        }
        queue = {
            "conda": ENVIRONMENT,
            "walltime": "10m",
            "cores": workers,
            "memory": "2GB",
            "tmpdir": "/tmp",
            "unknown_task_duration": "1s",
            "target_duration": "1m",
            "maximum_jobs": 1,
            "interactive": True,
        }
        return {
            "type": "local",
            "tunnel": tunnel,
            "workers": workers,
            "frontends": [services],
            "queues": {"main": queue},
            "default_queue": "main",
        }

    def write_ssh_config(self, port: int | None = None, *more: str, hostname: str = HOST) -> None:
        """What the laptop's ssh knows of the frontend: `port` is the server's own by default."""
        folder = self.laptop / ".ssh"
        lines = [
            f"Host {SSH_NAME}",
            f"HostName {hostname}",
            f"Port {self.port if port is None else port}",
            f"IdentityFile {self._folder / 'key'}",
            "IdentitiesOnly yes",
            f"UserKnownHostsFile {folder / 'known_hosts'}",
            f"HostKeyAlias {SSH_NAME}",
            *more,
        ]
        (folder / "config").write_text("\n  ".join(lines) + "\n")

    def start(self) -> None:
        """Start the SSH server, at the port that it had."""
        while not self._start(self.port or _free_port()):
            if self.port:
                raise FrontendError(f"the SSH server does not start:\n{self.log()}")

    def stop(self) -> None:
        """End the SSH server, with every login."""
        if self._sshd is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in psutil.Process(self._sshd.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        self._sshd.kill()
        self._sshd.wait()
        self._sshd = None

    def log(self) -> str:
        """What the SSH server has said so far."""
        return (self._folder / "sshd.log").read_text(errors="replace")

    def services(self) -> list[psutil.Process]:
        """The processes on the frontend, the SSH server's aside."""
        return processes_with("HOME", str(self.home))

    def tunnels(self) -> list[psutil.Process]:
        """The laptop's tunnels, and the launcher's monitors of them."""
        found = []
        for process in processes_with("HOME", str(self.laptop)):
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                if "--status-path" in command or ("-N" in command and "-L" in command):
                    found.append(process)
        return found

    def end_services(self) -> None:
        """Kill what runs on the frontend, and the tunnels to it."""
        deadline = time.monotonic() + END_TIMEOUT
        # One that is being started may start another one meanwhile.
        while processes := [*self.tunnels(), *self.services()]:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=END_TIMEOUT)
            if time.monotonic() > deadline:
                break

    def close(self) -> None:
        """End everything. FrontendError if a process stays."""
        self.stop()
        self.end_services()
        if left := [*self.tunnels(), *self.services()]:
            raise FrontendError(f"processes are still running: {left}")

    def _make_keys(self) -> None:
        folder = self.laptop / ".ssh"
        for new in (folder, self.ssh_folder, self.home / ".ssh"):
            new.mkdir(parents=True, exist_ok=True)
        for name in ("key", "host_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._folder / name],
                check=True,
            )
        self.allow_key()
        host_key = (self._folder / "host_key.pub").read_text()
        (folder / "known_hosts").write_text(f"{SSH_NAME} {host_key}")
        wrapper = self.ssh_folder / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "{folder / "config"}" "$@"\n')
        wrapper.chmod(0o755)

    def allow_key(self, allowed: bool = True) -> None:
        """Let the laptop's key in, or not."""
        key = (self._folder / "key.pub").read_text() if allowed else ""
        (self.home / ".ssh" / "authorized_keys").write_text(key)

    def _start(self, port: int) -> bool:
        path = find_sshd()
        if path is None:
            raise FrontendError("there is no OpenSSH server here")
        if os.geteuid() == 0:
            # Where sshd confines itself; made by its service, which does not run here.
            Path("/run/sshd").mkdir(exist_ok=True)
        folder = self._folder
        programs = self.home / "miniforge3" / "bin"
        variables = {
            "HOME": str(self.home),
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
            **self._variables,
        }
        (folder / "sshd_config").write_text(
            "\n".join(
                (
                    f"ListenAddress {HOST}:{port}",
                    f"HostKey {folder / 'host_key'}",
                    "PidFile none",
                    "UsePAM no",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    f"AuthorizedKeysFile {self.home / '.ssh' / 'authorized_keys'}",
                    "StrictModes no",
                    "PrintMotd no",
                    "UseDNS no",
                    "MaxStartups 100:30:200",
                    f"SetEnv {' '.join(f'{name}={value}' for name, value in variables.items())}",
                    "",
                )
            )
        )
        with (folder / "sshd.log").open("ab") as log:
            self._sshd = subprocess.Popen(
                [path, "-D", "-e", "-f", str(folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while self._sshd.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection((HOST, port), timeout=START_TIMEOUT).close()
                self.port = port
                return True
            if time.monotonic() > deadline:
                self.stop()
                raise FrontendError(f"the SSH server does not listen:\n{self.log()}")
            time.sleep(0.01)
        return False


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


_CONDA_SH = """\
conda() {{
  case "$1" in
    activate)
      [ "$2" != base ] || {{ export PATH="{base}/bin:$PATH" CONDA_PREFIX="{base}"; return 0; }}
      [ -d "{base}/envs/$2" ] || {{ echo "EnvironmentNameNotFound: $2" >&2; return 1; }}
      export PATH="{base}/envs/$2/bin:$PATH" CONDA_PREFIX="{base}/envs/$2" ;;
    *) "{base}/bin/conda" "$@" ;;
  esac
}}
"""

_CONDA = """\
#!/bin/sh
case "$1" in
  info) echo "{base}" ;;
  env) printf '{{"envs": ["{base}", "{base}/envs/{name}"]}}\\n' ;;
esac
"""

_BASHRC = """\
# >>> conda initialize >>>
. "{base}/etc/profile.d/conda.sh"
# <<< conda initialize <<<
"""


def _make_conda(home: Path) -> None:
    """A base installation with the launcher's helpers, and an environment with all packages that
    this interpreter has."""
    base = home / "miniforge3"
    made = base / "envs" / ENVIRONMENT
    for folder in (base / "bin", base / "etc" / "profile.d", made.parent):
        folder.mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
    (packages,) = made.glob("lib/python3*/site-packages")
    package = Path(__file__).parents[2]
    paths = [package, *(path for path in map(Path, sys.path) if path.name == "site-packages")]
    (packages / "this_interpreter.pth").write_text("\n".join(map(str, paths)) + "\n")
    for script in Path(sys.executable).parent.iterdir():
        if script.name.startswith(_PROGRAMS):
            _, _, rest = script.read_text().partition("\n")
            (made / "bin" / script.name).write_text(f"#!{made}/bin/python\n{rest}")
            (made / "bin" / script.name).chmod(0o755)
            if script.name.startswith("rhl-"):
                (base / "bin" / script.name).symlink_to(made / "bin" / script.name)
    values = {"base": base, "name": ENVIRONMENT}
    (base / "etc" / "profile.d" / "conda.sh").write_text(_CONDA_SH.format(**values))
    (base / "bin" / "conda").write_text(_CONDA.format(**values))
    (base / "bin" / "conda").chmod(0o755)
    (home / ".bashrc").write_text(_BASHRC.format(**values))
