"""Standard output, a pipe or a device as the destination of buffers."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from typing import IO

from .descriptors import write_all
from .destination import Destination, unwritable_temporary
from .statuses import Failure, Status

MEMORY_BYTES = 4 * 1024 * 1024
"""Up to this size, a buffer is collected in memory; beyond, in a temporary file."""

_PIECE_BYTES = 1024 * 1024
_SAMPLE_BYTES = 8 * 1024
# Control characters that text files do not contain. Missing from the list, because they do: BEL to
# CR (which include tab and newline), and ESC, which starts colors.
_CONTROL = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")


class Stream:
    """What buffers are written to one after the other: a descriptor, or a path opened at first."""

    def __init__(self, name: str, descriptor: int | None, *, refuse_binary: bool) -> None:
        self.name = name
        self.refuse_binary = refuse_binary
        self._descriptor = descriptor
        self._is_open = descriptor is not None

    def check(self) -> None:
        """PermissionError if it is known already that nothing can be written."""
        if not self._is_open and not os.access(self.name, os.W_OK):
            os.close(os.open(self.name, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK))

    def descriptor(self) -> int:
        """The descriptor to write to. A pipe is waited for until somebody reads it."""
        if self._descriptor is None:
            self._descriptor = os.open(self.name, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
        return self._descriptor


class StreamDestination(Destination):
    """One buffer for a stream: what has been written cannot be taken back."""

    is_stream = True

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream.name)
        self._stream = stream
        self._spool: IO[bytes] | None = None

    def check(self) -> None:
        try:
            self._stream.check()
        except OSError as exc:
            raise self.failure(exc) from exc

    def open(self) -> IO[bytes]:
        # Closed by `discard`. It makes a file only when there is too much for the memory.
        self._spool = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115
        return self._spool

    def collecting_failure(self, error: OSError) -> Failure:
        return unwritable_temporary(error)

    def deliver(self) -> None:
        spool = self._spool
        assert spool is not None
        try:
            spool.seek(0)
            start = spool.read(_SAMPLE_BYTES)
        except OSError as exc:
            raise self.collecting_failure(exc) from exc
        try:
            descriptor = self._stream.descriptor()
            self._refuse_binary(descriptor, start)
            while start:
                write_all(descriptor, start)
                start = self._read(spool)
        except BrokenPipeError as exc:
            raise Failure(Status.CLOSED_PIPE, f"{self.name} was closed by its reader") from exc
        except OSError as exc:
            raise self.failure(exc) from exc

    def abandon(self) -> None:
        """Nothing to do: the temporary file has no name."""

    def discard(self) -> None:
        if self._spool is not None:
            with suppress(OSError):
                self._spool.close()

    def _read(self, spool: IO[bytes]) -> bytes:
        try:
            return spool.read(_PIECE_BYTES)
        except OSError as exc:
            raise self.collecting_failure(exc) from exc

    def _refuse_binary(self, descriptor: int, start: bytes) -> None:
        if self._stream.refuse_binary and os.isatty(descriptor) and is_binary(start):
            raise Failure(
                Status.BINARY_TO_TERMINAL,
                "the buffer is binary and standard output is a terminal; write it to a file "
                "with --output FILE, or force it to the terminal with --output -",
            )


def is_binary(start: bytes) -> bool:
    """Whether the first bytes of a buffer are not text: control characters, or invalid UTF-8."""
    if _CONTROL.search(start):
        return True
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as exc:
        # The end of the sample may cut a character in two.
        return not (exc.reason == "unexpected end of data" and len(start) == _SAMPLE_BYTES)
    return False
