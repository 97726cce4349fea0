"""How far a launch came, by remote-http-launcher's own log of it.

The `log_file` of a launch dict is begun anew at each launch, and has a line for each phase, such as
`   1.2s wait_for_start: waiting` (read off remote-http-launcher 0.4.5).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PHASE = re.compile(r"^ *[0-9.]+s ([a-z_]+): ", re.MULTILINE)

STAGES = {
    "local_check": "looking for a record of an earlier launch",
    "connect": "asking what is installed there",
    "remote_check": "looking for a service that runs there",
    "remote_validate": "checking the service that runs there",
    "stale_cleanup": "removing what an earlier service left there",
    "conda_setup": "checking the conda environment",
    "launch": "starting the service",
    "wait_for_start": "waiting for the service to start",
    "tunnel_setup": "building the tunnel",
    "local_validate": "reaching the service from here",
}
"""The launcher's phases, in words."""


@dataclass(frozen=True, slots=True)
class LauncherReport:
    """The phases of a launch, in order, as the launcher names them."""

    phases: Sequence[str]

    @classmethod
    def of(cls, launch_dict: dict[str, Any]) -> LauncherReport:
        """Of the last launch of this launch dict. Without phases if there is no log of it."""
        name = launch_dict.get("log_file")
        if not isinstance(name, str):
            return cls(())
        try:
            text = Path(name).expanduser().read_text(errors="replace")
        except OSError:
            return cls(())
        return cls([phase for phase in _PHASE.findall(text) if phase in STAGES])

    @property
    def stage(self) -> str | None:
        """What the launch was at; None if that is not known."""
        return STAGES[self.phases[-1]] if self.phases else None

    @property
    def has_started_service(self) -> bool:
        """Whether a process was started, so that the service's log is of this launch."""
        return "launch" in self.phases


def too_long(launch_dict: dict[str, Any], timeout: float, stage: str = "") -> str:
    """What there is to say of a launch that was not done in time; `stage`: what it was at."""
    stage = stage or LauncherReport.of(launch_dict).stage or "an unknown stage"
    return (
        f"it was not done within {timeout:.0f} s; it was at: {stage}. "
        "SEAMLESS_REMOTE_LAUNCH_TIMEOUT gives it more"
    )
