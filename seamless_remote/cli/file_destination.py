"""A regular file as the destination of a buffer."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from .attributes import drop_set_id, kept_mode, take_over
from .descriptors import write_all
from .destination import Destination, unwritable_temporary
from .location import Location
from .statuses import Failure

logger = logging.getLogger(__name__)

_PIECE_BYTES = 1024 * 1024

_MISSING = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""An operation that a file system lacks."""

_REFUSED = (*_MISSING, errno.EACCES, errno.EPERM, errno.EROFS)

_NO_ROOM_BESIDE = (*_REFUSED, errno.ENAMETOOLONG)
"""Why there may be no temporary file beside a file that can be written itself."""

_NOT_RENAMED = (*_REFUSED, errno.EBUSY, errno.EXDEV)
"""Why a file that can be written cannot be replaced: it is mounted, or its folder is sticky."""


class FileDestination(Destination):
    """A file. A temporary file in the same folder is renamed over it.

    As with `curl -o` and `cp`, a symbolic link is followed; an existing file must be writable, and
    keeps its owner, group, mode, ACL and extended attributes. Unlike with those, other hard links
    of the file keep the old content. Set-id bits and capabilities of another user's file are
    dropped with its content.

    Where renaming cannot do all that (the file is mounted, its owner is another one, its folder is
    not writable), the verified bytes are copied into the file itself; with `in_place`, always.

    Before an existing file is replaced, the new content is synced to the disk, so that a crash of
    the machine leaves either the old content or the new. A new file is not synced.
    """

    is_stream = False

    def __init__(self, name: str, *, in_place: bool = False) -> None:
        super().__init__(name)
        self._in_place = in_place
        self._location: Location | None = None
        self._before: os.stat_result | None = None
        """The file as it was at the start, if there was one."""
        self._part: str | None = None
        """The name of the temporary file; None if it has no name, or is gone."""
        self._file: IO[bytes] | None = None
        self._is_elsewhere = False
        """Whether the temporary file is in the folder for those."""

    def check(self) -> None:
        try:
            self._enter()
        finally:
            self.discard()

    def open(self) -> IO[bytes]:
        location = self._enter()
        try:
            self._file = self._open_beside(location)
        except OSError as exc:
            self.discard()
            raise self.failure(exc) from exc
        if self._file is None:
            try:
                # Closed by `deliver` or `discard`.
                self._file = tempfile.TemporaryFile()  # noqa: SIM115
            except OSError as exc:
                self.discard()
                raise unwritable_temporary(exc) from exc
            self._is_elsewhere = True
        return self._file

    def collecting_failure(self, error: OSError) -> Failure:
        return unwritable_temporary(error) if self._is_elsewhere else self.failure(error)

    def deliver(self) -> None:
        assert self._file is not None
        assert self._location is not None
        try:
            self._file.flush()
        except OSError as exc:
            raise self.collecting_failure(exc) from exc
        try:
            if self._part is None or not self._replace(self._location, self._part):
                self._write_in_place(self._location)
        except OSError as exc:
            raise self.failure(exc) from exc

    def abandon(self) -> None:
        part, location = self._part, self._location
        if part is None or location is None:
            return
        try:
            location.unlink(part)
        except FileNotFoundError:
            return
        except OSError as exc:
            # Not an error of its own: it would hide the one that led here.
            folder = os.path.dirname(self.name) or "the current folder"
            logger.warning("cannot remove %s from %s: %s", part, folder, exc.strerror)

    def discard(self) -> None:
        self.abandon()
        self._part = None
        if self._file is not None:
            # Closing flushes the bytes that a full disk has rejected, and fails again.
            with suppress(OSError):
                self._file.close()
        if self._location is not None:
            self._location.close()
            self._location = None

    def _enter(self) -> Location:
        """Find the file, and see whether it may be written."""
        try:
            self._location = location = Location.of(self.name)
        except (FileNotFoundError, NotADirectoryError) as exc:
            # Where a link leads to, perhaps.
            folder = f"the folder {exc.filename} does not exist"
            raise self.failure(OSError(exc.errno, folder)) from exc
        except OSError as exc:
            raise self.failure(exc) from exc
        try:
            self._before = location.status()
            if self._before is not None:
                location.require_writable()
        except OSError as exc:
            raise self.failure(exc) from exc
        return location

    def _open_beside(self, location: Location) -> IO[bytes] | None:
        """A temporary file in the same folder; None if there can be none, and need not be."""
        part = f".seamless-{secrets.token_hex(8)}.part"
        is_new = self._before is None
        try:
            if self._in_place and not is_new:
                anonymous = getattr(os, "O_TMPFILE", None)
                if anonymous is None:
                    return None
                descriptor = location.open(os.O_RDWR | anonymous, name=".")
            else:
                # Not with `tempfile`, so that the kernel applies the umask and the folder's default
                # ACL to a new file.
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
                descriptor = location.open(flags, 0o666 if is_new else 0o600, name=part)
                self._part = part
        except OSError as exc:
            if is_new or exc.errno not in (*_NO_ROOM_BESIDE, errno.EISDIR):
                raise
            return None
        return open(descriptor, "w+b")

    def _replace(self, location: Location, part: str) -> bool:
        """Rename the temporary file over the file; False if that cannot be, or would change it."""
        assert self._file is not None
        descriptor = self._file.fileno()
        status = location.status()
        if status is not None and stat.S_ISREG(status.st_mode):
            if not take_over(descriptor, location.proc_path, status):
                return False
            _sync(descriptor)
        elif self._before is not None:
            # The old file went away meanwhile.
            os.fchmod(descriptor, kept_mode(self._before))
        # Network file systems may report a full disk only on close.
        self._file.close()
        try:
            location.replace_by(part)
        except OSError as exc:
            if status is None or exc.errno not in _NOT_RENAMED:
                raise
            self._file = open(location.open(os.O_RDONLY, name=part), "rb")  # noqa: SIM115
            return False
        self._part = None
        return True

    def _write_in_place(self, location: Location) -> None:
        """Copy the temporary file into the file."""
        assert self._file is not None
        source = self._file.fileno()
        length = os.fstat(source).st_size
        target = location.open(os.O_WRONLY | os.O_NOFOLLOW)
        with _closing(target):
            status = os.fstat(target)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is no longer a regular file")
            drop_set_id(target, status)
            _reserve(target, length, status.st_size)
            try:
                os.lseek(source, 0, os.SEEK_SET)
                while piece := os.read(source, _PIECE_BYTES):
                    write_all(target, piece)
                os.ftruncate(target, length)
                _sync(target)
            except OSError as exc:
                note = "it was being written in place, and does not hold the buffer now"
                raise self.failure(exc, note) from exc


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    """Close a descriptor at the end. An error of that, after none before, is raised."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            os.close(descriptor)
        raise
    os.close(descriptor)


def _sync(descriptor: int) -> None:
    """Sync a file to the disk, if its file system can."""
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in _MISSING:
            raise


def _reserve(descriptor: int, length: int, before: int) -> None:
    """Make sure that a file can grow to `length` before its old content is overwritten."""
    if length <= before or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, before, length - before)
    except OSError as exc:
        if exc.errno in _MISSING:
            return
        os.ftruncate(descriptor, before)
        raise
