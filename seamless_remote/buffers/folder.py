"""Reads buffers from a folder in the hashserver's layout, without a server.

The buffer with checksum `abcd...` is the file `ab/abcd...` (prefix layout) or `abcd...` (flat
layout). With the suffix `.zst` or `.gz` the file is compressed; `abcd....BUFFERLENGTH` beside it
then holds the uncompressed length. While `FILE.LOCK` exists, an external writer is writing FILE.
The layout is that of hashserver 1.1.0.
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
from .decoding import ENCODING_BY_SUFFIX
from .ingest import (
    BATCH_BYTES,
    UNKNOWN_LENGTH_LIMIT,
    BufferWriter,
    NullTarget,
    Target,
    TooLongError,
    ingest,
)
from .worker_threads import OFFLOAD_BYTES, offload

logger = logging.getLogger(__name__)

COMPRESSED_PIECE = 16 * 1024
"""Bytes of a compressed file to decompress before checking how many plain bytes came out."""

SUFFIXES = ("", *ENCODING_BY_SUFFIX)
"""Suffixes of a buffer's files, in order of preference."""


@dataclass(frozen=True, slots=True)
class BufferFile:
    """An open file that should hold a buffer. `size` is in bytes; `encoding` is None if plain."""

    file: FileIO
    path: str
    size: int
    encoding: str | None


class BufferFolder:
    """A folder of buffers.

    Every read is verified against the checksum. A file that cannot be read, or that holds wrong
    bytes, is logged and skipped; the buffer's other files are tried next.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory

    async def get(self, checksum: str) -> bytes | None:
        """The content of the buffer, or None if no file in this folder holds it.

        Small plain files are read in the event loop, others in a worker thread.
        """
        for found in self._candidates(checksum):
            try:
                with found.file:
                    content, actual = await _read(found, checksum)
            except WrongBytesError as exc:
                self._log_skipped(found, str(exc))
                continue
            if actual == checksum:
                return content
            self._log_skipped(found, f"their checksum is {actual}")
        return None

    async def copy(self, checksum: str, target: Target, restart: Callable[[], None]) -> bool:
        """Write the buffer to `target`, in constant memory. False if no file holds it.

        The target is written before the checksum is known; `restart` must empty it, and is called
        in a worker thread after a file with wrong bytes. Errors of the target pass through.
        """
        for found in self._candidates(checksum):
            try:
                with found.file:
                    actual, _ = await _ingest_file(found, target)
            except WrongBytesError as exc:
                self._log_skipped(found, str(exc))
            else:
                if actual == checksum:
                    return True
                self._log_skipped(found, f"their checksum is {actual}")
            await offload(restart)
        return False

    async def length(self, checksum: str) -> int | None:
        """The uncompressed length of the buffer in bytes, or None if no file holds it.

        Taken from the file's size or its `.BUFFERLENGTH`, without verification; a compressed file
        that lacks one is decompressed.
        """
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
                    return (await _ingest_file(found, NullTarget()))[1]
                except WrongBytesError as exc:
                    self._log_skipped(found, str(exc))
        return None

    def filename(self, checksum: str) -> str | None:
        """The path of the buffer's plain file, or None. The content is not verified."""
        for path in self._paths(checksum, ""):
            if os.path.isfile(path) and not _is_locked(path):
                return path
        return None

    def _candidates(self, checksum: str) -> Iterator[BufferFile]:
        for suffix in SUFFIXES:
            for path in self._paths(checksum, suffix):
                file = _open_regular(path)
                if file is not None:
                    size = os.fstat(file.fileno()).st_size
                    yield BufferFile(file, path, size, ENCODING_BY_SUFFIX.get(suffix))

    def _paths(self, checksum: str, suffix: str) -> tuple[str, str]:
        name = checksum + suffix
        return f"{self.directory}/{checksum[:2]}/{name}", f"{self.directory}/{name}"

    def _log_skipped(self, found: BufferFile, reason: str) -> None:
        if _is_locked(found.path):
            logger.info("skipping %s: it is still being written", found.path)
        else:
            logger.warning("skipping %s, which holds wrong bytes: %s", found.path, reason)


def _is_locked(path: str) -> bool:
    """Whether an external writer is still writing this file."""
    return os.path.exists(path + ".LOCK")


def _open_regular(path: str) -> FileIO | None:
    """Open a regular file for reading; None if there is none, or if it cannot be read (logged)."""
    try:
        # Non-blocking: opening a named pipe would otherwise wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        logger.warning("skipping %s, which cannot be read: %s", path, exc)
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        logger.warning("skipping %s, which is not a regular file", path)
        return None
    return open(descriptor, "rb", buffering=0)


async def _read(found: BufferFile, wanted: str) -> tuple[bytes, str]:
    """The plain bytes of a file and their checksum. Only valid if it is the `wanted` checksum.

    WrongBytesError if the file cannot be read or decompressed.
    """
    if found.encoding is None and found.size <= OFFLOAD_BYTES:
        content = _piece(found, -1)
        return content, hashlib.sha256(content).hexdigest()
    memory = io.BytesIO()
    if found.encoding is None:
        checksum, _ = await _ingest_file(found, memory)
        return memory.getvalue(), checksum
    try:
        checksum, _ = await _ingest_file(found, memory, UNKNOWN_LENGTH_LIMIT)
    except TooLongError:
        # A small file can expand to more bytes than there is memory. Hash it in constant memory
        # first, and give it memory only if it is the wanted buffer.
        memory.close()
        checksum, length = await _ingest_file(found, NullTarget())
        if checksum != wanted:
            return b"", checksum
        memory = io.BytesIO()
        checksum, _ = await _ingest_file(found, memory, length)
    return memory.getvalue(), checksum


async def _ingest_file(
    found: BufferFile, target: Target, limit: int | None = None
) -> tuple[str, int]:
    """Write a file's plain bytes to `target`, in constant memory; their checksum and number.

    WrongBytesError if the file cannot be read or decompressed, or if a compressed file expands to
    more than `limit` bytes. Errors of the target pass through.
    """
    found.file.seek(0)
    if found.encoding is None:
        # Hashing takes about as long as reading and writing, so do them in two threads at once: the
        # writer only hashes, and each block is written to the target as soon as it is read.
        writer = BufferWriter(NullTarget())

        async def copy(block: memoryview) -> int:
            return await offload(_copy_block, found, block, target)

        return await ingest(writer, copy, found.size), writer.length
    writer = BufferWriter(target, found.encoding, limit)
    while await offload(_feed_batch, found, writer):
        pass
    return writer.finish(), writer.length


def _copy_block(found: BufferFile, block: memoryview, target: Target) -> int:
    """Read the next bytes of a file into `block` as `_fill` does, and write them to `target`."""
    count = _fill(found, block)
    target.write(block[:count])
    return count


def _feed_batch(found: BufferFile, writer: BufferWriter) -> bool:
    """Feed the next batch of a file to `writer`. False at the end of the file.

    A batch is counted in plain bytes and fed in small pieces, because a few compressed bytes can
    expand to many, and cancellation has to wait for the end of the batch.
    """
    enough = writer.length + BATCH_BYTES
    while writer.length < enough:
        piece = _piece(found, COMPRESSED_PIECE)
        if not piece:
            return False
        writer.feed(piece)
    return True


def _fill(found: BufferFile, block: memoryview) -> int:
    """Fill `block` with the next bytes of the file and return their number.

    Fewer bytes than the block holds mean the end of the file. WrongBytesError if reading fails.
    """
    count = 0
    try:
        # A file system may return fewer bytes than requested before the end of the file.
        while count < len(block) and (more := found.file.readinto(block[count:])):
            count += more
        return count
    except OSError as exc:
        raise WrongBytesError(f"reading failed: {exc}") from exc


def _piece(found: BufferFile, size: int) -> bytes:
    """The next bytes of the file, up to `size` (-1: all). WrongBytesError if reading fails."""
    try:
        return found.file.read(size)
    except OSError as exc:
        raise WrongBytesError(f"reading failed: {exc}") from exc


def _length_beside(path: str) -> int | None:
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
