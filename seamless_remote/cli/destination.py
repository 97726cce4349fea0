"""Where the buffer goes: a file that is replaced at the end, or a stream that is fed at the end.

Either way the bytes are gathered first, and nobody sees one of them before all are verified.
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
"""How much of a buffer for a stream is gathered in memory; more goes to a temporary file."""

_PIECE_BYTES = 1024 * 1024
_LOOKED_AT = 8 * 1024
_CONTROL = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")
_HINTS = {
    errno.ENOSPC: "free some space, or choose another place",
    errno.EDQUOT: "free some space, or choose another place",
    errno.EACCES: "choose a place that you may write to",
    errno.EPERM: "choose a place that you may write to",
    errno.EROFS: "choose a place that you may write to",
}


class Destination(ABC):
    """Gathers a buffer, and then delivers or discards it. `where` names it in messages."""

    def __init__(self, where: str) -> None:
        self.where = where

    @abstractmethod
    def open(self) -> IO[bytes]:
        """The file that gathers the buffer. Failure: this destination cannot be written."""

    @abstractmethod
    def deliver(self) -> None:
        """Let the gathered buffer count. Failure: it cannot be written."""

    @abstractmethod
    def discard(self) -> None:
        """Leave nothing behind; after `deliver` that is what was gathered, not the buffer."""

    @abstractmethod
    def abandon(self) -> None:
        """Leave no file when the process ends on the spot. From any thread, without waiting."""

    def failure(self, error: OSError, where: str | None = None) -> Failure:
        """The failure that an error of writing here means."""
        reason = error.strerror or str(error)
        hint = _HINTS.get(error.errno or 0)
        message = f"cannot write {where or self.where}: {reason}"
        return Failure(Status.UNWRITABLE_OUTPUT, f"{message}; {hint}" if hint else message)


class FileDestination(Destination):
    """A regular file: gathered beside it, and renamed to it in one step.

    A symbolic link stays, and the file that it leads to is replaced, as with `curl -o` and `cp`; so
    does the mode of an existing file, and one without write permission is not replaced. Other hard
    links of the file keep the old content.

    An existing file is replaced only once the new content is on the disk, so that a crash of the
    machine leaves one or the other. A new file is written back by the kernel in its own time, as
    those of `curl -o` and `cp` are.
    """

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self._target = os.path.realpath(where)
        self._temporary: str | None = None
        self._replaces = False
        self._file: IO[bytes] | None = None

    def open(self) -> IO[bytes]:
        folder = os.path.dirname(self._target)
        if not os.path.isdir(folder):
            raise self.failure(OSError(errno.ENOENT, f"there is no folder {folder}"))
        path = os.path.join(folder, f".seamless-{secrets.token_hex(8)}.part")
        try:
            mode = self._mode_to_keep()
            self._replaces = mode is not None
            # The kernel applies the umask, and the folder's default ACL, as to any new file.
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o666 if mode is None else 0o600)
            self._temporary = path
            # It is closed by `deliver` or `discard`.
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
            # Network file systems may tell only here that there is no space left.
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
            # What a full disk did not take is written again on closing, and not needed any more.
            with suppress(OSError):
                self._file.close()

    def _mode_to_keep(self) -> int | None:
        """The mode of the file that is replaced; None for a new one."""
        try:
            status = os.stat(self._target)
        except FileNotFoundError:
            return None
        if not os.access(self._target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return stat.S_IMODE(status.st_mode)


class StreamDestination(Destination):
    """Standard output, a pipe or a device: what has been written there cannot be taken back.

    `descriptor` is written to, or else the file `where` is opened, once there is all to write.
    """

    def __init__(self, where: str, descriptor: int | None, *, refuse_binary: bool) -> None:
        super().__init__(where)
        self._descriptor = descriptor
        self._refuse_binary = refuse_binary
        self._spool: IO[bytes] | None = None

    def open(self) -> IO[bytes]:
        if self._descriptor is None and not os.access(self.where, os.W_OK):
            raise self.failure(PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
        # It is closed by `discard`.
        self._spool = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115
        return self._spool

    def failure(self, error: OSError, where: str | None = None) -> Failure:
        gathering = f"temporary files to {tempfile.gettempdir()} (TMPDIR names another folder)"
        return super().failure(error, where or gathering)

    def deliver(self) -> None:
        spool = self._spool
        assert spool is not None
        try:
            spool.seek(0)
            start = spool.read(_LOOKED_AT)
        except OSError as exc:
            raise self.failure(exc) from exc
        descriptor = self._open_stream()
        try:
            if self._refuse_binary and os.isatty(descriptor) and is_binary(start):
                raise Failure(
                    Status.BINARY_TO_TERMINAL,
                    "the buffer is binary, and standard output is a terminal; write it to a file "
                    "with --output FILE, or use --output - to have it shown all the same",
                )
            while start:
                _write_all(descriptor, start)
                start = spool.read(_PIECE_BYTES)
        except BrokenPipeError as exc:
            raise Failure(Status.CLOSED_PIPE, f"{self.where} has been closed") from exc
        except OSError as exc:
            raise self.failure(exc, self.where) from exc
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
            return os.open(self.where, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as exc:
            raise self.failure(exc, self.where) from exc


def destination_for(output: str | None, standard_output: int | None) -> Destination:
    """The destination that `--output` names (standard output by default).

    Failure: it is a folder, or standard output is closed.
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
            f"cannot write {output or 'to a file without a name'}: it is a folder; name a file",
        )
    if os.path.exists(output) and not os.path.isfile(output):
        return StreamDestination(output, None, refuse_binary=False)
    return FileDestination(output)


def is_binary(start: bytes) -> bool:
    """Whether a terminal would not show it as text: control characters, or not UTF-8."""
    if _CONTROL.search(start):
        return True
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as exc:
        # A character may be cut in two where the look ends.
        return not (exc.reason == "unexpected end of data" and len(start) == _LOOKED_AT)
    return False


def _standard(descriptor: int | None, *, refuse_binary: bool) -> Destination:
    if descriptor is None:
        raise Failure(
            Status.UNWRITABLE_OUTPUT, "standard output is closed; name a file with --output FILE"
        )
    return StreamDestination("standard output", descriptor, refuse_binary=refuse_binary)


def _named_descriptor(path: str) -> int | None:
    """The open descriptor that a path such as `/dev/stdout` or `/dev/fd/3` stands for."""
    own = os.path.realpath("/proc/self/fd")
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
            # Whoever shares it with us has made it non-blocking.
            select.select([], [descriptor], [])
