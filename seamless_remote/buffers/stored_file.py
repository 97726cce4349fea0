"""One file of a buffer folder: opened, read, and told from what cannot be read.

The layout is that of hashserver 1.1.0: `NAME`, `NAME.zst` and `NAME.gz` hold a buffer, and
`NAME.BUFFERLENGTH` the uncompressed length of a compressed one. While `FILE.LOCK` exists, an
external writer is writing FILE.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from dataclasses import dataclass
from io import FileIO

logger = logging.getLogger(__name__)

_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_NOWAIT = getattr(os, "RWF_NOWAIT", None)


class NotNowError(Exception):
    """It would take a wait that was not allowed."""


class UnreadableError(Exception):
    """A file is there, or may be, and cannot be read; `reason` is why."""

    def __init__(self, path: str, reason: OSError) -> None:
        super().__init__(f"{path} cannot be read: {reason.strerror or reason}")
        self.path = path
        self.reason = reason


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An open file that should hold a buffer. `size` is in bytes; `encoding` is None if plain."""

    file: FileIO
    path: str
    size: int
    encoding: str | None

    def read_now(self) -> bytes:
        """All of it, if that takes no wait; else NotNowError, and nothing is lost."""
        if _NOWAIT is None:
            raise NotNowError
        room = bytearray(self.size)
        try:
            count = os.preadv(self.file.fileno(), [room], 0, _NOWAIT) if self.size else 0
        except OSError as exc:
            raise NotNowError from exc
        if count < self.size:
            raise NotNowError
        return bytes(room)

    def read_all(self) -> bytes:
        """All of it. UnreadableError if that fails."""
        try:
            return self.file.read()
        except OSError as exc:
            raise UnreadableError(self.path, exc) from exc

    def rewind(self) -> None:
        """Read from the start again."""
        self.file.seek(0)

    def piece(self, size: int) -> bytes:
        """The next bytes, up to `size`. UnreadableError if reading fails."""
        try:
            return self.file.read(size)
        except OSError as exc:
            raise UnreadableError(self.path, exc) from exc

    def fill(self, block: memoryview) -> int:
        """Fill `block` with the next bytes and return their number; fewer mean the end.

        UnreadableError if reading fails.
        """
        count = 0
        try:
            # A file system may return fewer bytes than requested before the end of the file.
            while count < len(block) and (more := self.file.readinto(block[count:])):
                count += more
        except OSError as exc:
            raise UnreadableError(self.path, exc) from exc
        return count


def open_stored(path: str, encoding: str | None, *, wait: bool = True) -> StoredFile | None:
    """Open a regular file; None if there is none.

    Raises:
        UnreadableError: it cannot be opened.
        NotNowError: without `wait`, if opening it may take one. With it, another program's lease of
            the file is waited for.
    """
    try:
        # Non-blocking: opening a named pipe would otherwise wait for a writer. A link may lead to a
        # slower file system.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if wait else os.O_NOFOLLOW)
        descriptor = os.open(path, flags)
    except OSError as exc:
        if exc.errno in _ABSENT:
            return None
        if not wait and exc.errno in (errno.ELOOP, errno.EWOULDBLOCK):
            raise NotNowError from exc
        if exc.errno == errno.ELOOP:
            logger.warning("skipping %s, which is a link without end", path)
            return None
        if exc.errno != errno.EWOULDBLOCK:
            raise UnreadableError(path, exc) from exc
        opened = _open_leased(path)
        if opened is None:
            return None
        descriptor = opened
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            return StoredFile(open(descriptor, "rb", buffering=0), path, status.st_size, encoding)
    except OSError as exc:
        os.close(descriptor)
        raise UnreadableError(path, exc) from exc
    os.close(descriptor)
    logger.warning("skipping %s, which is not a regular file", path)
    return None


def _open_leased(path: str) -> int | None:
    """Open a file of which another program (Samba, an NFS server) has a lease, when it gives it up.

    The kernel takes the lease from it after 45 seconds. None if the file is not a regular one.
    """
    try:
        held = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            # What is opened is what was looked at: no pipe can come in between.
            if not stat.S_ISREG(os.fstat(held).st_mode):
                return None
            return os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(held)
    except OSError as exc:
        if exc.errno in _ABSENT:
            return None
        raise UnreadableError(path, exc) from exc


def is_locked(path: str) -> bool:
    """Whether an external writer is still writing the file at this path."""
    return os.path.exists(path + ".LOCK")


def length_beside(path: str) -> int | None:
    """The content of the `.BUFFERLENGTH` file beside a compressed file; None if it has none.

    A malformed one is logged and counts as missing.
    """
    name = os.path.splitext(path)[0] + ".BUFFERLENGTH"
    try:
        with open(name, "rb") as file:
            text = file.read(40).strip()
    except FileNotFoundError:
        return None
    except OSError as exc:
        logger.warning("ignoring %s, which cannot be read: %s", name, exc)
        return None
    if not text.isdigit():
        logger.warning("ignoring %s: %r is not a length in bytes", name, text)
        return None
    return int(text)
