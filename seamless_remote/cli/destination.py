"""Destinations of a buffer: what a file and a stream have in common.

Either way the bytes are first collected in a temporary file, so that a reader of the destination
sees nothing until the whole buffer is verified.
"""

from __future__ import annotations

import errno
import tempfile
from abc import ABC, abstractmethod
from typing import IO, ClassVar

from .statuses import Failure, Status

_NO_SPACE = "free some space, or choose another location"
_NOT_WRITABLE = "choose a location that you may write to"
_HINTS = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EACCES: _NOT_WRITABLE,
    errno.EPERM: _NOT_WRITABLE,
    errno.EROFS: _NOT_WRITABLE,
}


class Destination(ABC):
    """Collects a buffer, then delivers it. Messages refer to the destination by `name`."""

    is_stream: ClassVar[bool]
    """Whether buffers go there one after the other, and take as long as the reader likes."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def check(self) -> None:
        """Failure if it is known already that nothing can be written there."""

    @abstractmethod
    def open(self) -> IO[bytes]:
        """Open the temporary file to collect the buffer in. Failure if that is impossible."""

    @abstractmethod
    def collecting_failure(self, error: OSError) -> Failure:
        """What an error of that file is to a user."""

    @abstractmethod
    def deliver(self) -> None:
        """Write the collected buffer to the destination. Failure if that is impossible."""

    @abstractmethod
    def discard(self) -> None:
        """Close and remove the temporary file, if it is still there. Safe to repeat."""

    @abstractmethod
    def abandon(self) -> None:
        """Remove the temporary file because the process is about to exit. Thread-safe, quick."""

    def failure(self, error: OSError, note: str = "") -> Failure:
        """What an error of writing to this destination is to a user."""
        return unwritable(self.name, error, note)


def unwritable(what: str, error: OSError, note: str = "") -> Failure:
    """A failure to write `what`, with a hint where there is one."""
    reason = error.strerror or str(error)
    parts = [f"cannot write {what}: {reason}", note, _HINTS.get(error.errno or 0, "")]
    return Failure(Status.UNWRITABLE_OUTPUT, "; ".join(part for part in parts if part))


def unwritable_temporary(error: OSError) -> Failure:
    """A failure to write a temporary file in the folder for those."""
    try:
        what = f"temporary files to {tempfile.gettempdir()}"
    except OSError:  # none of the usual folders can be written
        what = "temporary files"
    return unwritable(what, error, "set TMPDIR to use another folder")
