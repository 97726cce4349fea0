"""Standard error for the whole process: what cannot be written there is dropped.

Python itself ends with status 120 where a last flush of it fails.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from .descriptors import write_all

_DESCRIPTOR = 2


def guard_standard_error() -> None:
    """Make `sys.stderr` a stream that never fails, unless it is closed or somebody else's."""
    is_own = sys.stderr is sys.__stderr__
    if sys.stderr is None or not is_own:
        return
    encoding = sys.stderr.encoding
    sys.stderr = io.TextIOWrapper(
        _Dropping(), encoding=encoding, errors="backslashreplace", write_through=True
    )


class _Dropping(io.RawIOBase):
    """Writes to standard error; after a failure (a full device, a closed pipe) it drops all."""

    _has_failed = False

    def write(self, data: Any, /) -> int:
        piece = bytes(data)
        if not self._has_failed:
            try:
                write_all(_DESCRIPTOR, piece)
            except OSError:
                self._has_failed = True
        return len(piece)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return _DESCRIPTOR

    def isatty(self) -> bool:
        return os.isatty(_DESCRIPTOR)
