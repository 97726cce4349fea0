"""The log of a launched service on this machine: what the service itself has printed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .launch import LaunchDict

TAIL = 64 * 1024
"""How many bytes at the end of a log are looked at."""


@dataclass(frozen=True, slots=True)
class ServiceLog:
    """Where a launched service's output goes."""

    path: Path

    @classmethod
    def of(cls, launch_dict: LaunchDict) -> ServiceLog | None:
        """The log of the service that `launch_dict` describes; None if it is on another machine."""
        if launch_dict.get("hostname") is not None or "REMOTE_HTTP_LAUNCHER_DIR" in os.environ:
            return None
        import remote_http_launcher

        try:
            key = remote_http_launcher.Configuration.from_mapping(launch_dict).key
        except remote_http_launcher.LauncherError:
            return None
        return cls(Path("~/.remote-http-launcher/server").expanduser() / f"{key}.log")

    def last_lines(self, since: float, count: int) -> list[str]:
        """Its last `count` lines; none if it was last written to before `since` (Unix time)."""
        try:
            with self.path.open("rb") as log:
                if os.fstat(log.fileno()).st_mtime < since:
                    return []
                log.seek(max(0, os.fstat(log.fileno()).st_size - TAIL))
                text = log.read().decode(errors="replace")
        except OSError:
            return []
        return text.splitlines()[-count:]
