"""Ingesting a buffer: decode, hash and store its bytes as they arrive, in constant memory.

Small buffers are handled in the event loop. From `OFFLOAD_BYTES` on, worker threads do the work,
one block while the event loop receives the next.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Protocol

from ..errors import ProtocolError, WrongBytesError
from .decoding import decoder_for
from .worker_threads import OFFLOAD_BYTES, SideThread, offload

BATCH_BYTES = 2 * 1024 * 1024
"""The size of one block, the unit of work for a worker thread."""

BLOCKS = 2
"""Blocks in memory for one buffer: one being filled, one in a worker thread."""

UNKNOWN_LENGTH_LIMIT = 64 * 1024 * 1024
"""Bytes to accept, at most, of a buffer whose uncompressed length is unknown."""

Fill = Callable[[memoryview], Awaitable[int]]
"""Fills a block with the next bytes and returns their number.

Fewer bytes than the block holds mean the end of the data.
"""


class Target(Protocol):
    """Where the bytes of a buffer are stored: a file, or memory."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Store the next bytes. `data` is only valid during the call: its memory is reused."""
        ...


class NullTarget:
    """A target for a buffer that is only hashed and measured."""

    def write(self, data: bytes | memoryview, /) -> None:
        """Drop the bytes."""


class TooLongError(WrongBytesError):
    """The buffer is longer than its limit."""


class BufferWriter:
    """Decodes and hashes one buffer, and writes it to a target.

    `encoding` is the content coding in which the bytes arrive: `zstd`, `gzip`, or None for plain
    bytes. `limit` bounds the plain bytes. Synchronous, for one thread at a time; errors of the
    target pass through.
    """

    def __init__(
        self, target: Target, encoding: str | None = None, limit: int | None = None
    ) -> None:
        self.length = 0
        """Plain bytes written so far."""
        self.compressed = encoding is not None
        self._limit = limit
        self._target = target
        self._hash = hashlib.sha256()
        self._decoder = decoder_for(encoding, self)

    def feed(self, data: bytes | memoryview) -> None:
        """Decode and write the next bytes.

        WrongBytesError if they are malformed. TooLongError if the plain bytes exceed the limit.
        """
        try:
            self._decoder.write(data)
        except ProtocolError as exc:
            raise WrongBytesError(str(exc)) from exc

    def write(self, data: bytes | memoryview) -> None:
        """Write decoded bytes; called by the decoder."""
        if self._limit is not None and self.length + len(data) > self._limit:
            raise TooLongError(f"the buffer is longer than {self._limit} bytes")
        self._hash.update(data)
        self._target.write(data)
        self.length += len(data)

    def finish(self) -> str:
        """End the buffer and return the checksum of its plain bytes.

        WrongBytesError if the encoded bytes are truncated.
        """
        try:
            self._decoder.close()
        except ProtocolError as exc:
            raise WrongBytesError(str(exc)) from exc
        return self._hash.hexdigest()


async def ingest(writer: BufferWriter, fill: Fill, size: int | None) -> str:
    """Feed everything that `fill` provides to `writer`; returns the checksum of the plain bytes.

    `size` is the number of encoded bytes, if it is known. Errors of the writer (malformed or
    truncated data, a full disk) and of `fill` pass through; the writer keeps what it was fed. On
    cancellation, the worker thread finishes its block first.
    """
    blocks = _blocks(BATCH_BYTES if size is None else min(size, BATCH_BYTES))
    block = next(blocks)
    first = block[: await fill(block)]
    if len(first) >= OFFLOAD_BYTES:
        return await _ingest_in_threads(writer, first, blocks, fill)

    def feed() -> str:
        writer.feed(first)
        return writer.finish()

    # A few compressed bytes can expand to many plain ones.
    return await offload(feed) if writer.compressed else feed()


def _blocks(size: int) -> Iterator[memoryview]:
    """`BLOCKS` blocks of memory in turn, for ever; each is allocated on first use."""
    blocks = []
    for _ in range(BLOCKS):
        blocks.append(bytearray(size))
        yield memoryview(blocks[-1])
    for block in itertools.cycle(blocks):
        yield memoryview(block)


async def _ingest_in_threads(
    writer: BufferWriter, data: memoryview, blocks: Iterator[memoryview], fill: Fill
) -> str:
    thread = SideThread()
    try:
        while data:
            await thread.put(writer.feed, data)
            block = next(blocks)
            data = block[: await fill(block)]
        await thread.finish()
    except Exception:
        # What arrived is written first (a download resumes from there); an error of that counts
        # more than one of the source.
        await thread.finish()
        raise
    except GeneratorExit:
        raise
    except BaseException:
        with suppress(Exception):
            await thread.finish()
        raise
    finally:
        thread.close()
    return await offload(writer.finish)
