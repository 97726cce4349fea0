"""One login to a frontend for all that a launch has to say there.

remote-http-launcher runs `ssh` a dozen times a launch. Each login costs a second or so on a slow
path, so one is made here, and shared (`ControlMaster`, see ssh_config(5)): a script named `ssh`,
first on the PATH, sends the launcher's commands through it. Tunnels, which outlive the launch, get
connections of their own.

A user who is asked for a password or a code may share a login himself. That one is used where no
tunnel is wanted: `ssh -N -L` by way of a shared login ends at once, and the launcher gives up.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

CONNECT_TIMEOUT = 15
"""Seconds in which the host has to accept a connection, where ssh_config sets no ConnectTimeout."""

LOGIN_TIMEOUT = 60.0
"""Seconds for the whole login."""

POLL_INTERVAL = 0.01
"""Seconds between two looks at whether the login is made."""

COMMAND_TIMEOUT = 15.0
"""Seconds for one command of ours."""

TUNNELS_VARIABLE = "SEAMLESS_REMOTE_TUNNELS"
"""Names the file in which the script notes each tunnel and its monitor, for `tunnels`."""

# The temporary name that ssh gives the socket at first is 17 characters longer; a socket's path may
# have 107 (103 on macOS).
_LONGEST_SOCKET_PATH = 86

_SSH = ("ssh", "-o", "BatchMode=yes")

_SCRIPT = """\
#!/bin/sh
for word do
    if [ "$word" = -N ]; then
        [ -z "${variable}" ] || echo "$$ $PPID" >> "${variable}"
        exec {ssh} {tunnel_options} "$@"
    fi
done
exec {ssh} {command_options} "$@"
"""


class LoginError(Exception):
    """There is no way to log in without asking; the text is ssh's own."""


class Login:
    """A login to `host`, by the name that ssh knows it by. `close` ends it."""

    def __init__(self, host: str, *, for_tunnels: bool = False) -> None:
        self.host = host
        self._for_tunnels = for_tunnels
        self.environment = dict(os.environ)
        """The environment in which `ssh` means the script. What is started in it may outlive it."""
        self.is_open = False
        self._ssh = shutil.which("ssh")
        self._master: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    def open(self) -> None:
        """Log in. LoginError if that fails; a host that is silent is given up in time."""
        if self._ssh is None:
            raise LoginError("there is no ssh on the PATH")
        settings = self._settings()
        self._folder = _new_folder()
        is_shared = self._is_shared()
        if is_shared and not self._for_tunnels:
            self._write_script([], [])
            self.is_open = True
            return
        options = list(_SSH[1:])
        if settings.get("connecttimeout", "none") == "none":
            options += ["-o", f"ConnectTimeout={CONNECT_TIMEOUT}"]
        socket_path = self._folder / "login"
        # The user's own forwarded ports may be taken, by his other logins.
        no_ports = ["-o", "ClearAllForwardings=yes"]
        try:
            self._connect(options + no_ports, socket_path)
        except LoginError as exc:
            if not is_shared:
                raise
            raise LoginError(f"{exc}\nno tunnel goes through the shared login there is") from exc
        # A socket that is gone does no harm: ssh then connects by itself.
        through_it = ["-o", "ControlMaster=no", "-o", f"ControlPath={socket_path}"]
        alone = ["-o", "ControlMaster=no", "-o", "ControlPath=none"]
        if settings.get("serveraliveinterval", "0") == "0":
            # Without that, ssh would keep a tunnel whose path is lost for hours.
            alone += ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"]
        if settings.keys() & {"localforward", "remoteforward", "dynamicforward"}:
            # A tunnel takes the user's forwarded ports as well; only the first one gets them.
            alone += ["-o", "ExitOnForwardFailure=no"]
        self._write_script(options + no_ports + through_it, options + alone)
        self.is_open = True

    def run(self, command: str) -> subprocess.CompletedProcess[str] | None:
        """Run a command there, through the login (see `run_there`)."""
        return run_there(self.host, command, self.environment)

    def close(self) -> None:
        """Log out, and remove the script."""
        if self._master is not None:
            self._master.terminate()
            self._master.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _connect(self, options: list[str], socket_path: Path) -> None:
        assert self._ssh is not None
        # Or else it would go into the background, where nobody ends it.
        options = [*options, "-o", "ControlPersist=no"]
        words = socket_path.with_name("words")
        with words.open("wb") as stderr:
            self._master = subprocess.Popen(
                [self._ssh, *options, "-M", "-N", "-S", str(socket_path), self.host],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        give_up_at = time.monotonic() + LOGIN_TIMEOUT
        while not socket_path.exists():
            if self._master.poll() is not None:
                said = words.read_text(errors="replace").strip()
                raise LoginError(said or f"ssh ended with status {self._master.returncode}")
            if time.monotonic() > give_up_at:
                raise LoginError(f"no login within {LOGIN_TIMEOUT:g} s")
            time.sleep(POLL_INTERVAL)

    def _write_script(self, command_options: list[str], tunnel_options: list[str]) -> None:
        """Put the `ssh` that takes these options, too, in the way of whoever looks for `ssh`."""
        assert self._ssh is not None
        assert self._folder is not None
        script = self._folder / "bin" / "ssh"
        script.parent.mkdir()
        script.write_text(
            _SCRIPT.format(
                ssh=shlex.quote(self._ssh),
                variable=TUNNELS_VARIABLE,
                command_options=shlex.join(command_options),
                tunnel_options=shlex.join(tunnel_options),
            )
        )
        script.chmod(0o700)
        path = os.environ.get("PATH", os.defpath)
        self.environment["PATH"] = os.pathsep.join([str(script.parent), path])

    def _settings(self) -> dict[str, str]:
        """What ssh_config says of the host, by ssh's own reading; LoginError if it cannot be
        read."""
        assert self._ssh is not None
        try:
            asked = subprocess.run(
                [self._ssh, "-G", self.host],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMMAND_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LoginError(f"ssh -G {self.host} does not end") from None
        except OSError as exc:
            raise LoginError(f"{self._ssh} cannot be run: {exc}") from exc
        if asked.returncode:
            raise LoginError(asked.stderr.strip())
        pairs = (line.partition(" ") for line in asked.stdout.splitlines())
        return {name: value for name, _, value in pairs}

    def _is_shared(self) -> bool:
        """Whether the user shares a login to the host himself, and it lives."""
        with suppress(OSError, subprocess.SubprocessError):
            asked = subprocess.run(
                [self._ssh or "ssh", "-O", "check", self.host],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=COMMAND_TIMEOUT,
                check=False,
            )
            return asked.returncode == 0
        return False


def run_there(
    host: str, command: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str] | None:
    """Run a command at the host by an `ssh` that asks nothing.

    None if that cannot be, or has not ended within `COMMAND_TIMEOUT`.
    """
    try:
        return subprocess.run(
            [*_SSH, host, command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None


def ask_there(host: str, address: str, question: bytes) -> bytes:
    """The first bytes that a server at an address says to a question, asked from the host.

    Empty if there is no answer within `COMMAND_TIMEOUT`.
    """
    try:
        channel = subprocess.Popen(
            [*_SSH, "-W", address, host],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return b""
    with channel:
        assert channel.stdin is not None
        assert channel.stdout is not None
        try:
            # Not closed before the answer: servers take the end of a stream for that of the client.
            channel.stdin.write(question)
            answered, _, _ = select.select([channel.stdout], [], [], COMMAND_TIMEOUT)
            return os.read(channel.stdout.fileno(), 4096) if answered else b""
        except OSError:
            return b""
        finally:
            channel.kill()


def _new_folder() -> Path:
    """A folder of this user for a socket."""
    for parent in (tempfile.gettempdir(), "/tmp"):
        if len(parent) + len("/ssh-12345678/login") <= _LONGEST_SOCKET_PATH:
            return Path(tempfile.mkdtemp(prefix="ssh-", dir=parent))
    raise LoginError(f"the temporary folder, {tempfile.gettempdir()}, has too long a path")
