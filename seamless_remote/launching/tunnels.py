"""The tunnels to one launched service that were built from here, noted so that they can be ended.

remote-http-launcher starts `ssh -N -L` for each port of a service, and a monitor process for each
tunnel, and forgets their process ids. They outlive the program that launched the service, and other
programs use them. A tunnel whose path is lost stays, too, until `ssh` notices.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

PS_TIMEOUT = 10.0
"""Seconds that `ps` may take."""


def end_tunnels(noted: Path) -> None:
    """End the tunnels that are noted in the file, with their monitors, and forget them.

    Each line has the process ids of a tunnel and of its monitor (see `ssh_login`). Blocks.
    """
    try:
        lines = noted.read_text().splitlines()
        noted.unlink()
    except (OSError, ValueError):
        return
    for line in lines:
        ids = [int(word) for word in line.split() if word.isdigit()]
        for pid in reversed(ids):
            # The number may be another process's by now.
            if _is_of_a_tunnel(pid):
                logger.debug("ending process %d of a tunnel that is replaced", pid)
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)


def _is_of_a_tunnel(pid: int) -> bool:
    """Whether a process is a tunnel, or the monitor of one."""
    try:
        found = subprocess.run(
            ["ps", "-ww", "-o", "args=", "-p", str(pid)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PS_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        logger.debug("cannot tell what process %d is: %s", pid, exc)
        return False
    words = found.stdout.split()
    return ("-N" in words and "-L" in words) or "--status-path" in words
