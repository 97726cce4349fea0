"""remote-http-launcher's record of a connection to a service on another machine.

The launcher writes it once it has reached the service, perhaps through a tunnel; programs that
start later take the address from it, without a login. It goes stale when the tunnel or the service
does. The launcher's own check of it knows one port only, and takes some signs of a stale record for
a fault of its own (0.4.5: a tunnel that closes, or that is silent). So the record is checked here,
and the launcher never sees a stale one.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..nursery import process
from .evidence import Evidence, ask, await_greeting
from .folders import Folders, are_same, is_written_the_same
from .launch_lock import launch_lock
from .tunnels import end_tunnels

logger = logging.getLogger(__name__)

CHECK_TIMEOUT = 10.0
"""Seconds that a service has to answer at the recorded address."""


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """The record of one service.

    `healthcheck` is the target of the service's healthcheck, None if it has none; `port_name` the
    entry with the port for that.
    """

    path: Path
    healthcheck: str | None
    port_name: str

    @classmethod
    def of(cls, launch_dict: dict[str, Any]) -> ClientRecord:
        """LauncherError for a launch dict that the launcher rejects."""
        import remote_http_launcher

        configuration = remote_http_launcher.Configuration.from_mapping(launch_dict)
        base = os.environ.get("REMOTE_HTTP_LAUNCHER_DIR")
        folder = Path(base) if base else Path("~/.remote-http-launcher/client")
        handshake = configuration.handshake
        target = None
        if handshake is not None:
            url = remote_http_launcher.build_handshake_url("host", 0, handshake)
            target = url.partition("://")[2].removeprefix("host:0")
        port_name = (handshake and handshake.port_name) or "port"
        return cls(folder.expanduser() / f"{configuration.key}.json", target, port_name)

    @property
    def tunnels(self) -> Path:
        """Where the tunnels to the service are noted (see `tunnels`)."""
        return self.path.with_suffix(".tunnels")

    @contextmanager
    def lock(self, patience: float) -> Iterator[None]:
        """Hold the lock of the service's launches from this machine (see `launch_lock`)."""
        with launch_lock(self.path.with_suffix(".lock"), patience):
            yield

    def content(self) -> dict[str, Any] | None:
        """What is recorded; None if there is nothing, or nothing that makes sense."""
        try:
            content = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(content, dict) or content.get("status") == "stale":
            return None
        sound = isinstance(content.get("hostname"), str) and all(
            type(content.get(name)) is int for name in ("port", self.port_name)
        )
        return content if sound else None

    def is_for(self, folders: Folders) -> bool:
        """Whether the recorded service serves these folders, as far as the record says."""
        found = (self.content() or {}).get("folders")
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            return True
        return are_same(tuple(found), folders, is_written_the_same)

    def answering(self) -> dict[str, Any] | None:
        """The content, if the service answers there. Blocks (see `evidence`)."""
        content = self.content()
        if content is None or self.evidence(content) is not Evidence.ANSWERS:
            return None
        return content

    def evidence(self, content: dict[str, Any]) -> Evidence:
        """What is said where the content leads to.

        Blocks, for two healthcheck timeouts at most (twice `CHECK_TIMEOUT` if the settings have
        none).
        """
        timeout = process.settings().healthcheck_timeout or CHECK_TIMEOUT
        host = content["hostname"]
        if self.healthcheck is None:
            return Evidence.ANSWERS
        found = ask(host, content[self.port_name], self.healthcheck, timeout)
        if found is Evidence.ANSWERS and self.port_name != "port":
            # A Dask scheduler's port has a tunnel of its own. Its loop turns: it has answered.
            found, _ = await_greeting(host, content["port"], timeout)
        return found

    def forget(self) -> None:
        """Remove the record, and end the tunnels that were built for it."""
        with suppress(FileNotFoundError):
            self.path.unlink()
            logger.info("the record of a connection, %s, was stale; it is removed", self.path)
        end_tunnels(self.tunnels)
