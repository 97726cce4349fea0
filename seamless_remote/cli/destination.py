"""Destinations of the buffer: a file that is replaced atomically, or a stream.

Either way the bytes are first collected in a temporary file, so that a reader of the destination
sees nothing until the whole buffer is verified.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import select
import stat
import tempfile
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import IO

from .statuses import Failure, Status

MEMORY_BYTES = 4 * 1024 * 1024
"""Up to this size, a buffer for a stream is collected in memory; beyond, in a temporary file."""

_PIECE_BYTES = 1024 * 1024
_SAMPLE_BYTES = 8 * 1024
# Control characters that text files do not contain. Missing from the list, because they do: BEL to
# CR (which include tab and newline), and ESC, which starts colors.
_CONTROL = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")
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

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def open(self) -> IO[bytes]:
        """Open the temporary file to collect the buffer in. Failure if that is impossible."""

    @abstractmethod
    def deliver(self) -> None:
        """Write the collected buffer to the destination. Failure if that is impossible."""

    @abstractmethod
    def discard(self) -> None:
        """Close and remove the temporary file, if it is still there. Safe to repeat."""

    @abstractmethod
    def abandon(self) -> None:
        """Remove the temporary file because the process is about to exit. Thread-safe, quick."""

    def failure(self, error: OSError, name: str | None = None) -> Failure:
        """Turn an error of writing to `name`, by default this destination, into a failure."""
        reason = error.strerror or str(error)
        hint = _HINTS.get(error.errno or 0)
        message = f"cannot write {name or self.name}: {reason}"
        return Failure(Status.UNWRITABLE_OUTPUT, f"{message}; {hint}" if hint else message)


class FileDestination(Destination):
    """A regular file. A temporary file in the same folder is renamed over it.

    As with `curl -o` and `cp`, a symbolic link is followed, and an existing file keeps its mode and
    must be writable. Unlike with those, other hard links of the file keep the old content.

    Before an existing file is replaced, the new content is synced to the disk, so that a crash of
    the machine leaves either the old content or the new. A new file is not synced.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._target = os.path.realpath(name)
        self._temporary: str | None = None
        self._replaces = False
        self._file: IO[bytes] | None = None

    def open(self) -> IO[bytes]:
        folder = os.path.dirname(self._target)
        if not os.path.isdir(folder):
            raise self.failure(OSError(errno.ENOENT, f"the folder {folder} does not exist"))
        path = os.path.join(folder, f".seamless-{secrets.token_hex(8)}.part")
        try:
            mode = self._mode_to_keep()
            self._replaces = mode is not None
            # Open it directly and not with `tempfile`, so that the kernel applies the umask and the
            # folder's default ACL to a new file.
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o666 if mode is None else 0o600)
            self._temporary = path
            # Closed by `deliver` or `discard`.
            self._file = open(descriptor, "w+b")  # noqa: SIM115
            if mode is not None:
                os.fchmod(descriptor, mode)
        except OSError as exc:
            self.discard()
            raise self.failure(exc) from exc
        return self._file

    def deliver(self) -> None:
        assert self._file is not None
        assert self._temporary is not None
        try:
            self._file.flush()
            if self._replaces:
                os.fsync(self._file.fileno())
            # Network file systems may report a full disk only on close.
            self._file.close()
            os.replace(self._temporary, self._target)
        except OSError as exc:
            raise self.failure(exc) from exc
        self._temporary = None

    def abandon(self) -> None:
        if self._temporary is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._temporary)

    def discard(self) -> None:
        self.abandon()
        if self._file is not None:
            # Closing flushes the bytes that a full disk has rejected, and fails again.
            with suppress(OSError):
                self._file.close()

    def _mode_to_keep(self) -> int | None:
        """The mode of the existing file, or None if there is none."""
        try:
            status = os.stat(self._target)
        except FileNotFoundError:
            return None
        if not os.access(self._target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return stat.S_IMODE(status.st_mode)


class StreamDestination(Destination):
    """Standard output, a pipe or a device: what has been written cannot be taken back.

    Writes to `descriptor`; if that is None, opens the path `name` once the buffer is complete.
    """

    def __init__(self, name: str, descriptor: int | None, *, refuse_binary: bool) -> None:
        super().__init__(name)
        self._descriptor = descriptor
        self._refuse_binary = refuse_binary
        self._spool: IO[bytes] | None = None

    def open(self) -> IO[bytes]:
        if self._descriptor is None and not os.access(self.name, os.W_OK):
            raise self.failure(PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
        # Closed by `discard`.
        self._spool = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115
        return self._spool

    def failure(self, error: OSError, name: str | None = None) -> Failure:
        spooling = f"temporary files to {tempfile.gettempdir()} (set TMPDIR to use another folder)"
        return super().failure(error, name or spooling)

    def deliver(self) -> None:
        spool = self._spool
        assert spool is not None
        try:
            spool.seek(0)
            start = spool.read(_SAMPLE_BYTES)
        except OSError as exc:
            raise self.failure(exc) from exc
        descriptor = self._open_stream()
        try:
            if self._refuse_binary and os.isatty(descriptor) and is_binary(start):
                raise Failure(
                    Status.BINARY_TO_TERMINAL,
                    "the buffer is binary and standard output is a terminal; write it to a file "
                    "with --output FILE, or force it to the terminal with --output -",
                )
            while start:
                _write_all(descriptor, start)
                start = spool.read(_PIECE_BYTES)
        except BrokenPipeError as exc:
            raise Failure(Status.CLOSED_PIPE, f"{self.name} was closed by its reader") from exc
        except OSError as exc:
            raise self.failure(exc, self.name) from exc
        finally:
            if descriptor != self._descriptor:
                os.close(descriptor)

    def abandon(self) -> None:
        """Nothing to do: the temporary file has no name."""

    def discard(self) -> None:
        if self._spool is not None:
            with suppress(OSError):
                self._spool.close()

    def _open_stream(self) -> int:
        if self._descriptor is not None:
            return self._descriptor
        try:
            return os.open(self.name, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as exc:
            raise self.failure(exc, self.name) from exc


def destination_for(output: str | None, standard_output: int | None) -> Destination:
    """The destination for the value of `--output`.

    `standard_output` is the descriptor of standard output, None if it is closed. Failure if the
    output is a folder, or standard output and closed.
    """
    if output is None or output == "-":
        return _standard(standard_output, refuse_binary=output is None)
    descriptor = _named_descriptor(output)
    if descriptor == 1:
        return _standard(standard_output, refuse_binary=False)
    if descriptor is not None:
        return StreamDestination(output, descriptor, refuse_binary=False)
    if output.endswith(os.sep) or os.path.isdir(output) or not output:
        raise Failure(
            Status.UNWRITABLE_OUTPUT,
            f"cannot write {output}: it is a folder; give the path of a file"
            if output
            else "cannot write the output: the file name is empty",
        )
    if os.path.exists(output) and not os.path.isfile(output):
        return StreamDestination(output, None, refuse_binary=False)
    return FileDestination(output)


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


def _standard(descriptor: int | None, *, refuse_binary: bool) -> Destination:
    if descriptor is None:
        raise Failure(Status.UNWRITABLE_OUTPUT, "standard output is closed; use --output FILE")
    return StreamDestination("standard output", descriptor, refuse_binary=refuse_binary)


def _named_descriptor(path: str) -> int | None:
    """The descriptor that a path such as `/dev/stdout` or `/dev/fd/3` refers to, or None.

    Such a path must be neither replaced nor opened: the descriptor of a redirected file has an
    offset, and a newly opened one would start at 0.
    """
    own = os.path.realpath("/proc/self/fd")
    # Follow links one at a time: `realpath` would resolve the descriptor as well, to its file. The
    # bound is for loops.
    for _ in range(8):
        folder, name = os.path.split(path)
        if os.path.realpath(folder or ".") == own:
            return int(name) if name.isdigit() and os.path.lexists(path) else None
        if not os.path.islink(path):
            return None
        path = os.path.join(folder, os.readlink(path))
    return None


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # A process that shares the descriptor may have made it non-blocking.
            select.select([], [descriptor], [])
