"""How much memory this process has needed (see proc(5), `clear_refs`)."""

from __future__ import annotations

import re
from pathlib import Path


def forget_peak() -> int:
    """The memory in use, in bytes; from here on `peak` counts anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """The most memory that was in use since then, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
