"""The status file of a service on this machine: where it is, as soon as it says so itself.

remote-http-launcher and the services that it launches share one, by the protocol of its README. It
holds, in this order:

- nothing, or what an earlier service has left there: `running`, if that one was killed.
- `starting`, with a new `pid`: the launcher has started the process.
- `running`, with its `port` as well: the service listens, or is about to; or `failed`.

The launcher looks at the file once a second, and then asks the service for its health. A service
takes half a second to start: who looks more often, and asks as well, knows of it a second earlier.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

HEALTHCHECK_TIMEOUT = 1.0
"""Seconds that a service may take to say that it is well; it is asked again."""

LOCK_PATIENCE = 60.0
"""Seconds that another process may take over a launch, as long as the launcher gives a service."""

LOCK_INTERVAL = 0.05
"""Seconds between two looks at whether it has finished."""


@dataclass(frozen=True, slots=True)
class Running:
    """A service that says that it is running: its process, and where it listens."""

    pid: int
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class StatusFile:
    """The status file at `path` of a service that tells its health at the URL path `healthcheck`.

    `host` is where it listens, unless the file names another.
    """

    path: Path
    healthcheck: str
    host: str

    @classmethod
    def of(cls, launch_dict: dict[str, Any]) -> StatusFile | None:
        """That of the service to be launched.

        None where it is on another machine, where its health is asked at a port of another name
        (a Dask scheduler's), for a launch dict that the launcher will refuse, and where the
        launcher's files have been put elsewhere.
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

    def running(self) -> Running | None:
        """The service that says here that it is running, if one does; it may be gone by now."""
        try:
            status = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(status, dict) or status.get("status") != "running":
            return None
        pid, port = status.get("pid"), status.get("port")
        host = status.get("network_interface", self.host)
        if isinstance(pid, int) and isinstance(port, int) and isinstance(host, str):
            return Running(pid, host, port)
        return None

    def answers(self, service: Running) -> bool:
        """Whether the service says that it is well. Blocks, for the healthcheck timeout at most."""
        connection = http.client.HTTPConnection(
            service.host, service.port, timeout=HEALTHCHECK_TIMEOUT
        )
        try:
            connection.request("GET", self.healthcheck)
            return 200 <= connection.getresponse().status < 300
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from launching the same service meanwhile; the thread waits for its
        turn.

        Two that found none running would start one each, and each would take its own for the one. A
        process that does not come to an end with its launch is passed over after `LOCK_PATIENCE`.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            logger.debug("no lock beside %s: %s", self.path, exc)
            yield
            return
        try:
            _acquire(lock, self.path)
            yield
        finally:
            with contextlib.suppress(OSError):
                # Closing it would not do: a child that was forked meanwhile holds it open.
                fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)


def _acquire(lock: int, path: Path) -> None:
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                logger.warning("another process does not finish the launch that has %s", path)
                return
            time.sleep(LOCK_INTERVAL)
        except OSError as exc:  # a file system without locks
            logger.debug("no lock beside %s: %s", path, exc)
            return
