"""Reserves standard output for the buffer: nothing else in the process can write to it."""

from __future__ import annotations

import os
import sys

from .descriptors import is_open


def take_standard_output() -> int | None:
    """Redirect descriptor 1 to standard error; returns a new descriptor for standard output.

    The redirection is permanent and holds for all threads and child processes, so that nothing a
    recomputed transformation prints can end up in the data. Returns None if standard output was
    closed when the process started.
    """
    # Occupy closed standard descriptors, or the next file or socket to be opened would get one of
    # them and be written to as standard output.
    closed = [descriptor for descriptor in (0, 1, 2) if not is_open(descriptor)]
    for _ in closed:
        os.open(os.devnull, os.O_RDWR)
    taken = None if 1 in closed else os.dup(1)
    os.dup2(2, 1)
    if sys.stderr is not None:
        sys.stdout = sys.stderr
    return taken


def flush_standard_output() -> None:
    """Write out what `--help` or `--version` has printed. OSError if that is impossible."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        # Python would try once more at its end, and end with a status of its own.
        sys.stdout = None
        raise
