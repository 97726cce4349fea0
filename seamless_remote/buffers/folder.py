"""A folder of buffers, as the hashserver lays it out: found, read and measured without a server.

A buffer with checksum `abcd...` is the file `ab/abcd...` or `abcd...`, or its compressed form with
`.zst` or `.gz` at the end; `abcd....BUFFERLENGTH` holds the plain length where no plain file is.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO

from ..errors import WrongBytesError
from .ingest import BATCH_BYTES, FREE_BYTES, Intake, Nowhere, Target, TooLongError, take_all
from ..nursery.event_loops import inside_trio_task, running_loop
from ..nursery.worker_threads import OFFLOAD_BYTES, offload
from .decoding import suffix_encoding

logger = logging.getLogger(__name__)

COMPRESSED_PIECE = 16 * 1024
"""Bytes of a compressed file that are decompressed without a look at what comes of them."""

SUFFIXES = ("", *suffix_encoding)


@dataclass(frozen=True, slots=True)
class Found:
    """An open file that should hold a buffer: its path, its size in bytes, and its form."""

    file: FileIO
    path: str
    size: int
    encoding: str | None


class BufferFolder:
    """A folder of buffers; every read is verified, and a wrong file is logged and passed over."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    async def get(self, checksum: str) -> bytes | None:
        """The buffer, or None where no file of this folder holds it.

        Small plain files are read right here, others in a worker thread.
        """
        for found in self._candidates(checksum):
            try:
                with found.file:
                    content, actual = await _read(found, checksum)
            except WrongBytesError as exc:
                self._pass_over(found, str(exc))
                continue
            if actual == checksum:
                return content
            self._pass_over(found, f"its bytes have checksum {actual}")
        return None

    async def copy(self, checksum: str, target: Target, restart: Callable[[], None]) -> bool:
        """Write the buffer to `target`, in constant memory; False where no file holds it.

        `restart` empties the target after a file that turned out wrong.
        """
        for found in self._candidates(checksum):
            try:
                with found.file:
                    actual, _ = await _take(found, target)
            except WrongBytesError as exc:
                self._pass_over(found, str(exc))
            else:
                if actual == checksum:
                    return True
                self._pass_over(found, f"its bytes have checksum {actual}")
            await offload(restart)
        return False

    async def length(self, checksum: str) -> int | None:
        """The length of the uncompressed buffer in bytes, or None where no file holds it."""
        for found in self._candidates(checksum):
            with found.file:
                if _is_locked(found.path):
                    continue
                if found.encoding is None:
                    return found.size
                known = _length_beside(found.path)
                if known is not None:
                    return known
                try:
                    return (await _take(found, Nowhere()))[1]
                except WrongBytesError as exc:
                    self._pass_over(found, str(exc))
        return None

    def filename(self, checksum: str) -> str | None:
        """The path of the file that holds the uncompressed buffer, by its name; or None."""
        for path in self._paths(checksum, ""):
            if os.path.isfile(path) and not _is_locked(path):
                return path
        return None

    def _candidates(self, checksum: str) -> Iterator[Found]:
        for suffix in SUFFIXES:
            for path in self._paths(checksum, suffix):
                file = _open_regular(path)
                if file is not None:
                    size = os.fstat(file.fileno()).st_size
                    yield Found(file, path, size, suffix_encoding.get(suffix))

    def _paths(self, checksum: str, suffix: str) -> tuple[str, str]:
        name = checksum + suffix
        return f"{self.directory}/{checksum[:2]}/{name}", f"{self.directory}/{name}"

    def _pass_over(self, found: Found, reason: str) -> None:
        if _is_locked(found.path):
            logger.info("%s is still being written; it is passed over", found.path)
        else:
            logger.warning("%s holds wrong bytes and is passed over: %s", found.path, reason)


def _is_locked(path: str) -> bool:
    """Whether somebody is still writing this file."""
    return os.path.exists(path + ".LOCK")


def _open_regular(path: str) -> FileIO | None:
    """Open a regular file for reading; None where there is none that can be read."""
    try:
        # Without blocking, for a pipe under a buffer's name would hold the reader up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        logger.warning("%s cannot be read: %s; it is passed over", path, exc)
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        logger.warning("%s is no regular file; it is passed over", path)
        return None
    return open(descriptor, "rb", buffering=0)


async def _read(found: Found, wanted: str) -> tuple[bytes, str]:
    """The plain bytes of a file, if they are the wanted ones, and their checksum.

    WrongBytesError: it cannot be read or decompressed.
    """
    if found.encoding is None and found.size <= OFFLOAD_BYTES:
        content = _piece(found, -1)
        return content, hashlib.sha256(content).hexdigest()
    memory = io.BytesIO()
    if found.encoding is None:
        checksum, _ = await _take(found, memory)
        return memory.getvalue(), checksum
    try:
        checksum, _ = await _take(found, memory, FREE_BYTES)
    except TooLongError:
        # A few bytes may stand for more than there is memory: what they are is found out in
        # constant memory, before memory is given to as much as that.
        memory.close()
        checksum, length = await _take(found, Nowhere())
        if checksum != wanted:
            return b"", checksum
        memory = io.BytesIO()
        checksum, _ = await _take(found, memory, length)
    return memory.getvalue(), checksum


async def _take(found: Found, target: Target, limit: int | None = None) -> tuple[str, int]:
    """Take in a file in constant memory (see `Intake`); its plain bytes' checksum and number.

    WrongBytesError: the file cannot be read or decompressed, or more than `limit` bytes come of it.
    """
    found.file.seek(0)
    # In a loop inside a trio task there are no task groups of anyio's.
    if found.encoding is None and not inside_trio_task(running_loop()):
        # One thread hashes, while another reads and writes, which takes as long.
        intake = Intake(Nowhere())

        async def copy(room: memoryview) -> int:
            return await offload(_copy, found, room, target)

        return await take_all(intake, copy, found.size), intake.length
    intake = Intake(target, found.encoding, limit)
    while await offload(_take_batch, found, intake):
        pass
    return intake.finish(), intake.length


def _copy(found: Found, room: memoryview, target: Target) -> int:
    """Write the next bytes of a file to `target`, and leave them in `room`; how many (see `_fill`).

    Errors of the target come out as they are.
    """
    count = _fill(found, room)
    target.write(room[:count])
    return count


def _take_batch(found: Found, intake: Intake) -> bool:
    """Take in the next batch of a file; False at its end.

    A few compressed bytes may stand for many: they are read in smaller pieces, for a cancellation
    waits for the end of a batch.
    """
    enough = intake.length + BATCH_BYTES
    while intake.length < enough:
        piece = _piece(found, COMPRESSED_PIECE)
        if not piece:
            return False
        intake.take(piece)
    return True


def _fill(found: Found, room: memoryview) -> int:
    """Fill `room` with the next bytes of the file; how many, and fewer than it holds only at the
    end.

    WrongBytesError: they cannot be read.
    """
    count = 0
    try:
        # Some file systems give less at once than is asked for.
        while count < len(room) and (more := found.file.readinto(room[count:])):
            count += more
        return count
    except OSError as exc:
        raise WrongBytesError(f"it cannot be read: {exc}") from exc


def _piece(found: Found, size: int) -> bytes:
    """Up to `size` bytes, all that are left for -1. WrongBytesError: they cannot be read."""
    try:
        return found.file.read(size)
    except OSError as exc:
        raise WrongBytesError(f"it cannot be read: {exc}") from exc


def _length_beside(path: str) -> int | None:
    """What the `.BUFFERLENGTH` file beside a compressed file says, if it is there and a number."""
    name = os.path.splitext(path)[0] + ".BUFFERLENGTH"
    try:
        with open(name, "rb") as file:
            text = file.read(40).strip()
    except FileNotFoundError:
        return None
    except OSError as exc:
        logger.warning("%s cannot be read: %s", name, exc)
        return None
    if not text.isdigit():
        logger.warning("%s does not hold a length, but %r", name, text)
        return None
    return int(text)
