"""Taking a buffer in: pieces are decoded, hashed and stored as they come, in constant memory.

The event loop only moves pieces; from a few hundred kB on, the work on them is done in worker
threads, one batch while the next one arrives.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Protocol

import anyio

from .errors import ProtocolError, WrongBytesError
from .nursery.offload import OFFLOAD_BYTES, offload
from .transport.decoding import decoder_for

BATCH_BYTES = 2 * 1024 * 1024
"""How much is handed to a worker thread at once."""

FREE_BYTES = 64 * 1024 * 1024
"""What may be taken into memory of a form that does not say for how many plain bytes it stands."""


class Target(Protocol):
    """Where the bytes of a buffer go: a file, or memory."""

    def write(self, data: bytes | memoryview, /) -> object: ...


class Nowhere:
    """A target for bytes that are only counted and hashed."""

    def write(self, data: bytes | memoryview, /) -> None:
        """Drop them."""


class TooLongError(WrongBytesError):
    """More plain bytes come of a body than its intake may take."""


class Intake:
    """Takes the pieces of one buffer, in the form in which they are stored or sent.

    `encoding` is that form (`zstd`, `gzip`, or None for plain bytes); more than `limit` plain
    bytes are not taken. Plain synchronous code, for one thread at a time.
    """

    def __init__(
        self, target: Target, encoding: str | None = None, limit: int | None = None
    ) -> None:
        self.length = 0
        self._limit = limit
        self.compressed = encoding is not None
        self._target = target
        self._hash = hashlib.sha256()
        self._decoder = decoder_for(encoding, self)

    def write(self, data: bytes | memoryview) -> None:
        """Take plain bytes (what the decoder gives). TooLongError: there are more than may be."""
        if self._limit is not None and self.length + len(data) > self._limit:
            raise TooLongError(f"more than {self._limit} bytes come of it")
        self._hash.update(data)
        self._target.write(data)
        self.length += len(data)

    def take(self, pieces: list[bytes]) -> None:
        """Take pieces in the encoded form. WrongBytesError: they are not of that form, or for
        too many bytes."""
        try:
            for piece in pieces:
                self._decoder.write(piece)
        except ProtocolError as exc:
            raise WrongBytesError(str(exc)) from exc

    def finish(self) -> str:
        """The checksum of all plain bytes. WrongBytesError: the encoded form is cut short."""
        try:
            self._decoder.close()
        except ProtocolError as exc:
            raise WrongBytesError(str(exc)) from exc
        return self._hash.hexdigest()


async def take_all(intake: Intake, pieces: AsyncIterator[bytes]) -> str:
    """Feed all `pieces` to `intake`; the checksum of the plain bytes.

    Errors of the intake (a malformed form, a full disk) and of the source come out as they are.
    """
    batch: list[bytes] = []
    size = 0
    async for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= OFFLOAD_BYTES:
            return await _take_in_threads(intake, batch, pieces)

    def take() -> str:
        intake.take(batch)
        return intake.finish()

    # A few compressed bytes may stand for many.
    return await offload(take) if intake.compressed else take()


async def _take_in_threads(intake: Intake, batch: list[bytes], pieces: AsyncIterator[bytes]) -> str:
    worker = _Worker(intake)
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(worker.run)
        try:
            size = 0
            async for piece in pieces:
                batch.append(piece)
                size += len(piece)
                if size >= BATCH_BYTES:
                    await worker.hand(batch)
                    if worker.error is not None:
                        break
                    batch, size = [], 0
            else:
                await worker.hand(batch)
        except Exception as exc:
            worker.error = worker.error or exc
        finally:
            worker.close()
    if worker.error is not None:
        raise worker.error
    return await offload(intake.finish)


class _Worker:
    """Works on one batch in a thread while the next is put together; at most two are in memory."""

    def __init__(self, intake: Intake) -> None:
        self.error: Exception | None = None
        self._intake = intake
        self._send, self._receive = anyio.create_memory_object_stream[list[bytes]](0)

    async def hand(self, batch: list[bytes]) -> None:
        await self._send.send(batch)

    def close(self) -> None:
        self._send.close()

    async def run(self) -> None:
        with self._receive:
            async for batch in self._receive:
                if self.error is None:
                    try:
                        await offload(self._intake.take, batch)
                    except Exception as exc:
                        self.error = exc
