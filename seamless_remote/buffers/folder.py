"""Reads buffers from a folder in the hashserver's layout, without a server.

The buffer with checksum `abcd...` is the file `ab/abcd...` (prefix layout) or `abcd...` (flat
layout), or one of those with the suffix of its compression (see `stored_file`).
"""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from ..errors import OwnLimitError, ServiceError, WrongBytesError
from .decoding import ENCODING_BY_SUFFIX
from .folder_pace import FolderPace
from .ingest import (
    BATCH_BYTES,
    UNKNOWN_LENGTH_LIMIT,
    BufferWriter,
    NullTarget,
    Target,
    TooLongError,
    ingest,
)
from .stored_file import (
    NotNowError,
    StoredFile,
    UnreadableError,
    is_locked,
    length_beside,
    open_stored,
)
from .worker_threads import OFFLOAD_BYTES, offload

logger = logging.getLogger(__name__)

COMPRESSED_PIECE = 16 * 1024
"""Bytes of a compressed file to decompress before checking how many plain bytes came out."""

LENGTHS_AT_ONCE = 500
"""How many lengths a thread looks up before a cancellation may end that."""

SUFFIXES = ("", *ENCODING_BY_SUFFIX)
"""Suffixes of a buffer's files, in order of preference."""

T = TypeVar("T")

_Path = tuple[str, "str | None"]
"""Of a file, with its content coding."""

_OWN_LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class BufferFolder:
    """A folder of buffers.

    Every read is verified against the checksum. A file that holds wrong bytes is logged and
    skipped; the buffer's other files are tried next. What cannot be read (no descriptors left, a
    failing disk, a time-out of NFS) is a ServiceError, unless another file has the buffer: the
    buffer may be there all the same. No read stops the caller's loop.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._pace = FolderPace(directory)
        self._is_troubled = False

    async def get(self, checksum: str) -> bytes | None:
        """The content of the buffer, or None if no file in this folder holds it.

        ServiceError: not all files could be read, and no other one holds it.
        """
        search = _Search(self.directory, checksum)
        try:
            while (found := await self._next(search)) is not None:
                if isinstance(found, bytes):
                    return found
                content = await search.verified(found, _into_memory(found, checksum))
                if content is not None:
                    return content
        finally:
            search.close()
        self._conclude(search)
        return None

    async def copy(self, checksum: str, target: Target, restart: Callable[[], None]) -> bool:
        """Write the buffer to `target`, in constant memory. False if no file holds it.

        The target is written before the checksum is known; `restart` must empty it, and is called
        in a worker thread after a file with wrong bytes. Errors of the target pass through.
        ServiceError as of `get`.
        """
        search = _Search(self.directory, checksum, reads=False)
        try:
            while (found := await self._next(search)) is not None:
                assert isinstance(found, StoredFile)
                if await search.verified(found, _into(found, checksum, target)) is not None:
                    return True
                await offload(restart)
        finally:
            search.close()
        self._conclude(search)
        return False

    async def lengths(self, checksums: Sequence[str]) -> tuple[dict[str, int], ServiceError | None]:
        """The uncompressed lengths in bytes of those buffers that files in this folder hold, and
        why others may be there as well.

        Taken from the file's size or its `.BUFFERLENGTH`, without verification; a compressed file
        that lacks one is decompressed.
        """
        known: dict[str, int] = {}
        unsure: _Search | None = None
        for start in range(0, len(checksums), LENGTHS_AT_ONCE):
            part = checksums[start : start + LENGTHS_AT_ONCE]
            searches = [_Search(self.directory, each, reads=False) for each in part]
            await self._pace.elsewhere(_look_lengths_up, searches, known)
            for search in searches:
                if search.checksum not in known:
                    # Over already, but for files that have to be decompressed.
                    length = await self._measured(search)
                    if length is not None:
                        known[search.checksum] = length
                    elif search.failure is not None:
                        unsure = unsure or search
        if unsure is None:
            return known, None
        self._note(unsure)
        return known, unsure.error()

    async def filename(self, checksum: str) -> str | None:
        """The path of the buffer's plain file, or None. The content is not verified."""
        search = _Search(self.directory, checksum, reads=False)
        return await self._pace.elsewhere(search.plain_file)

    async def _next(self, search: _Search) -> bytes | StoredFile | None:
        if self._pace.is_quick:
            try:
                return self._pace.here(search.next, wait=False)
            except NotNowError:
                logger.debug("reading %s takes a wait: left to a thread", search.checksum)
        return await self._pace.elsewhere(search.next)

    async def _measured(self, search: _Search) -> int | None:
        """The length of a buffer of which there are only compressed files that do not tell it."""
        try:
            while not search.is_over and (found := await self._next(search)) is not None:
                assert isinstance(found, StoredFile)
                if not await offload(is_locked, found.path):
                    length = await search.verified(found, _into(found, None, NullTarget()))
                    if length is not None:
                        return length
        finally:
            search.close()
        return None

    def _conclude(self, search: _Search) -> None:
        """Nothing was found: raise if that is not sure."""
        self._note(search)
        if search.failure is not None:
            raise search.error()

    def _note(self, search: _Search) -> None:
        """Log once when the folder's state changes."""
        is_troubled = search.failure is not None
        if is_troubled is not self._is_troubled:
            self._is_troubled = is_troubled
            if is_troubled:
                logger.warning("the buffer folder %s: %s", self.directory, search.failure)
            else:
                logger.info("the buffer folder %s can be read again", self.directory)


class _Search:
    """A look through the files of a folder that may hold one buffer. Its steps may block."""

    def __init__(self, directory: str, checksum: str, *, reads: bool = True) -> None:
        self.checksum = checksum
        self.failure: UnreadableError | None = None
        """The first file that could not be read."""
        self._directory = directory
        self._reads = reads
        self._left = _paths(directory, checksum)
        self._next: _Path | None = next(self._left, None)
        self._file: StoredFile | None = None
        self._stale: set[str] = set()

    @property
    def is_over(self) -> bool:
        """Whether all files have been looked at."""
        return self._next is None

    def next(self, *, wait: bool = True) -> bytes | StoredFile | None:
        """The next file, or the buffer itself if it is small, plain and right; None at the end.

        Without `wait`, NotNowError if that may take one; the next call begins at the same file.
        """
        self.close()
        while self._next is not None:
            path, encoding = self._next
            try:
                found = self._file = open_stored(path, encoding, wait=wait)
                if found is not None and self._reads and _is_small(found):
                    content = found.read_all() if wait else found.read_now()
                    self.close()
                    found = None
                    if hashlib.sha256(content).hexdigest() == self.checksum:
                        return content
                    _log_skipped(path, "they have another checksum")
            except UnreadableError as exc:
                found = None
                self._note(exc)
                if self._is_tried_again(exc):
                    continue
            self._next = next(self._left, None)
            if found is not None:
                return found
        return None

    async def verified(self, found: StoredFile, reading: Awaitable[T]) -> T | None:
        """The outcome of reading a file; None if it cannot be read, or holds wrong bytes."""
        try:
            return await reading
        except UnreadableError as exc:
            self._note(exc)
            if self._is_tried_again(exc):
                self.put_back(found)
        except WrongBytesError as exc:
            await offload(_log_skipped, found.path, str(exc))
        return None

    def put_back(self, found: StoredFile) -> None:
        """Have this file next."""
        following = () if self._next is None else (self._next,)
        self._left = itertools.chain(following, self._left)
        self._next = (found.path, found.encoding)

    def plain_file(self) -> str | None:
        """The path of the plain file, if it is there and nobody writes it."""
        for path, encoding in _paths(self._directory, self.checksum):
            if encoding is None and os.path.isfile(path) and not is_locked(path):
                return path
        return None

    def error(self) -> ServiceError:
        """What a caller gets to see of the failure."""
        assert self.failure is not None
        kind = OwnLimitError if self.failure.reason.errno in _OWN_LIMITS else ServiceError
        return kind(
            f"the buffer folder {self._directory} could not be asked for {self.checksum}: "
            f"{self.failure}. See whether this machine can read it"
        )

    def close(self) -> None:
        """Close the file that was found last."""
        found, self._file = self._file, None
        if found is not None:
            found.file.close()

    def _note(self, failure: UnreadableError) -> None:
        self.failure = self.failure or failure

    def _is_tried_again(self, failure: UnreadableError) -> bool:
        """Whether this file deserves one more look: it was replaced on another machine (NFS)."""
        if failure.reason.errno != errno.ESTALE or failure.path in self._stale:
            return False
        self._stale.add(failure.path)
        if self.failure is failure:
            self.failure = None
        return True


def _paths(directory: str, checksum: str) -> Iterator[_Path]:
    for suffix in SUFFIXES:
        encoding = ENCODING_BY_SUFFIX.get(suffix)
        yield f"{directory}/{checksum[:2]}/{checksum}{suffix}", encoding
        yield f"{directory}/{checksum}{suffix}", encoding


def _look_lengths_up(searches: Sequence[_Search], known: dict[str, int]) -> None:
    """Find the lengths that need no decompression; the searches go on at the files that do."""
    for search in searches:
        while (found := search.next()) is not None:
            assert isinstance(found, StoredFile)
            if is_locked(found.path):
                continue
            length = found.size if found.encoding is None else length_beside(found.path)
            if length is not None:
                known[search.checksum] = length
            else:
                search.put_back(found)
            break
        search.close()


def _is_small(found: StoredFile) -> bool:
    return found.encoding is None and found.size <= OFFLOAD_BYTES


def _log_skipped(path: str, reason: str) -> None:
    if is_locked(path):
        logger.info("skipping %s: it is still being written", path)
    else:
        logger.warning("skipping %s, which holds wrong bytes: %s", path, reason)


async def _into_memory(found: StoredFile, wanted: str) -> bytes:
    """The plain bytes of a file. UnreadableError, WrongBytesError."""
    limit = None if found.encoding is None else UNKNOWN_LENGTH_LIMIT
    memory = io.BytesIO()
    try:
        await _into(found, wanted, memory, limit)
    except TooLongError:
        # A small file can expand to more bytes than there is memory. Hash it in constant memory
        # first, and give it memory only if it is the wanted buffer.
        memory.close()
        length = await _into(found, wanted, NullTarget())
        memory = io.BytesIO()
        await _into(found, wanted, memory, length)
    return memory.getvalue()


async def _into(
    found: StoredFile, wanted: str | None, target: Target, limit: int | None = None
) -> int:
    """Write a file's plain bytes to `target`, in constant memory; returns their number.

    UnreadableError. WrongBytesError if the file cannot be decompressed, or expands to more than
    `limit` bytes, or if its checksum is not the wanted one. Errors of the target pass through.
    """
    found.rewind()
    if found.encoding is None:
        # Hashing takes about as long as reading and writing, so do them in two threads at once: the
        # writer only hashes, and each block is written to the target as soon as it is read.
        writer = BufferWriter(NullTarget())

        async def copy(block: memoryview) -> int:
            return await offload(_copy_block, found, block, target)

        actual = await ingest(writer, copy, found.size)
    else:
        writer = BufferWriter(target, found.encoding, limit)
        while await offload(_feed_batch, found, writer):
            pass
        actual = writer.finish()
    if wanted not in (None, actual):
        raise WrongBytesError(f"their checksum is {actual}")
    return writer.length


def _copy_block(found: StoredFile, block: memoryview, target: Target) -> int:
    """Read the next bytes of a file into `block`, and write them to `target`."""
    count = found.fill(block)
    target.write(block[:count])
    return count


def _feed_batch(found: StoredFile, writer: BufferWriter) -> bool:
    """Feed the next batch of a file to `writer`. False at the end of the file.

    A batch is counted in plain bytes and fed in small pieces, because a few compressed bytes can
    expand to many, and cancellation has to wait for the end of the batch.
    """
    enough = writer.length + BATCH_BYTES
    while writer.length < enough:
        piece = found.piece(COMPRESSED_PIECE)
        if not piece:
            return False
        writer.feed(piece)
    return True
