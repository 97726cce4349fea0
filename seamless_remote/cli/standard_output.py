"""Standard output is for the buffer alone: nothing else in this process can write to it."""

from __future__ import annotations

import os
import sys


def take_standard_output() -> int | None:
    """Take standard output away from the process; the descriptor that still leads to it.

    From here on descriptor 1 leads to standard error, for good and for all threads and child
    processes alike: what a recomputed transformation prints, whenever and from wherever it does,
    cannot end up among the data. None where standard output was closed from the beginning.
    """
    # Closed ones are occupied first, or the next file or socket would be standard output.
    closed = [descriptor for descriptor in (0, 1, 2) if not _is_open(descriptor)]
    for _ in closed:
        os.open(os.devnull, os.O_RDWR)
    taken = None if 1 in closed else os.dup(1)
    os.dup2(2, 1)
    if sys.stderr is not None:
        sys.stdout = sys.stderr
    return taken


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
