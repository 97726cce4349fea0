"""Reads the status file of a service on this machine, and locks its launch.

remote-http-launcher and the service it launches share the file, by the protocol in the launcher's
README. During a launch its content is, in this order:

- missing, or left over from an earlier service (`running`, if that service was killed);
- status `starting` with the new `pid`: the launcher has started the process;
- status `running` with `port` as well: the service listens, or is about to; or status `failed`.

The launcher polls the file once a second, and a service takes half a second to start. Polling the
file and the healthcheck more often finds the service up to a second earlier.
"""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .evidence import Evidence, ask
from .launch_lock import launch_lock

HEALTHCHECK_TIMEOUT = 1.0
"""Seconds to wait for one answer to the healthcheck; the caller tries again."""

LOCK_PATIENCE = 60.0
"""Seconds to wait for a launch by another process, as long as the launcher waits for a service."""


@dataclass(frozen=True, slots=True)
class Running:
    """A service that has reported itself running: its process id and its address."""

    pid: int
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class StatusFile:
    """The status file of one service.

    `healthcheck` is the URL path of the service's healthcheck. `host` is the address it listens on,
    unless the file has another.
    """

    path: Path
    healthcheck: str
    host: str

    @classmethod
    def of(cls, launch_dict: dict[str, Any]) -> StatusFile | None:
        """The status file of the service that `launch_dict` describes, or None if unsupported.

        Unsupported are: a service on another machine; one whose healthcheck is on another port than
        `port` (a Dask scheduler); a launch dict that the launcher will reject; and a non-default
        directory for the launcher's files.
        """
        import remote_http_launcher

        handshake = launch_dict.get("handshake")
        if launch_dict.get("hostname") is not None or not isinstance(handshake, str):
            return None
        if "REMOTE_HTTP_LAUNCHER_DIR" in os.environ:
            return None
        try:
            configuration = remote_http_launcher.Configuration.from_mapping(launch_dict)
        except remote_http_launcher.LauncherError:
            return None
        folder = Path("~/.remote-http-launcher/server").expanduser()
        path = folder / f"{configuration.key}.json"
        return cls(path, f"/{handshake.lstrip('/')}", configuration.network_interface)

    def content(self) -> dict[str, Any]:
        """What the file says; nothing if it is missing, or cannot be read."""
        try:
            content = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def running(self) -> Running | None:
        """The service that the file reports as running, or None. It may have died since."""
        status = self.content()
        if status.get("status") != "running":
            return None
        pid, port = status.get("pid"), status.get("port")
        host = status.get("network_interface", self.host)
        if isinstance(pid, int) and isinstance(port, int) and isinstance(host, str):
            return Running(pid, host, port)
        return None

    def is_alive(self) -> bool:
        """Whether the process that the file tells of lives: the service starts, runs, or hangs."""
        pid = self.content().get("pid")
        return isinstance(pid, int) and _is_process_of(pid, f"/{self.path.name}")

    def answers(self, service: Running) -> bool:
        """Whether the service passes its healthcheck. Blocks, up to `HEALTHCHECK_TIMEOUT`."""
        found = ask(service.host, service.port, self.healthcheck, HEALTHCHECK_TIMEOUT)
        return found is Evidence.ANSWERS

    def lock(self) -> AbstractContextManager[None]:
        """The lock that serializes the launches of this service by several processes."""
        return launch_lock(self.path.with_suffix(".lock"), LOCK_PATIENCE)


def _is_process_of(pid: int, status_file: str) -> bool:
    """Whether a process lives that was started with this status file.

    Its number may be another process's by now. A system without `/proc` does not tell.
    """
    try:
        os.kill(pid, 0)
        # That of a process that has ended, and whose parent has not noticed, is empty.
        return status_file.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (ProcessLookupError, PermissionError, OverflowError):
        return False
    except OSError:
        return not Path("/proc/self").exists()
