"""The log of a launched service on this machine: what the service itself has printed.

remote-http-launcher begins it anew at each launch. The `log_file` of a launch dict is another one:
the launcher's own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TAIL = 64 * 1024
"""How many bytes at the end of a log are looked at."""

LONGEST_LINE = 500
"""Characters of a line that are shown."""

SHOWN_LINES = 10
"""How many lines an error quotes, at most."""


@dataclass(frozen=True, slots=True)
class ServiceLog:
    """Where a launched service's output goes."""

    path: Path

    @classmethod
    def of(cls, launch_dict: dict[str, Any]) -> ServiceLog | None:
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
        """Its last `count` lines with anything in them, shortened if they are long.

        Empty if it cannot be read, or was last written to before `since` (Unix time).
        """
        try:
            with self.path.open("rb") as log:
                status = os.fstat(log.fileno())
                if status.st_mtime < since:
                    return []
                log.seek(max(0, status.st_size - TAIL))
                text = log.read(TAIL).decode(errors="replace")
        except OSError:
            return []
        return last_lines(text, count)

    def shown(self, since: float = 0.0) -> str:
        """A sentence for an error: where the log is, and what `last_lines` gives, indented."""
        return quoted(str(self.path), self.last_lines(since, SHOWN_LINES))


def last_lines(text: str, count: int) -> list[str]:
    """The last `count` lines with anything in them, shortened if they are long."""
    lines = [line.rstrip() for line in text.splitlines()]
    return [line[:LONGEST_LINE] for line in lines if line][-count:]


def quoted(place: str, lines: Sequence[str]) -> str:
    """A sentence for an error: where a service's log is, and the end of it, indented."""
    if not lines:
        return f"Its log is {place}"
    return "\n".join((f"Its log, {place}, ends with:", *(f"    {line}" for line in lines)))
