"""Taking a buffer in: pieces are decoded, hashed and stored as they come, in constant memory.

The event loop only moves pieces; from a few hundred kB on, the work on them is done in worker
threads, one batch while the next one arrives.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

import anyio

from ..errors import ProtocolError, WrongBytesError
from ..nursery.worker_threads import OFFLOAD_BYTES, offload
from .decoding import decoder_for

BATCH_BYTES = 2 * 1024 * 1024
"""How much is handed to a worker thread at once."""

BLOCKS = 3
"""How many such batches are in memory: one fills up, one waits for its turn, one is worked on."""

FREE_BYTES = 64 * 1024 * 1024
"""What may be taken into memory of a form that does not say for how many plain bytes it stands."""


Fill = Callable[[memoryview], Awaitable[int]]
"""Fills memory with the next bytes; how many, and fewer than it holds only at the end."""


class Target(Protocol):
    """Where the bytes of a buffer go: a file, or memory. What it is given changes afterwards."""

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

    def take(self, data: bytes | memoryview) -> None:
        """Take bytes in the encoded form. WrongBytesError: they are not of that form, or for
        too many bytes."""
        try:
            self._decoder.write(data)
        except ProtocolError as exc:
            raise WrongBytesError(str(exc)) from exc

    def finish(self) -> str:
        """The checksum of all plain bytes. WrongBytesError: they are cut short."""
        try:
            self._decoder.close()
        except ProtocolError as exc:
            raise WrongBytesError(str(exc)) from exc
        return self._hash.hexdigest()


def _blocks(size: int) -> Iterator[memoryview]:
    """Blocks of memory, made as they are needed, and then the same ones again."""
    blocks = []
    for _ in range(BLOCKS):
        blocks.append(bytearray(size))
        yield memoryview(blocks[-1])
    for block in itertools.cycle(blocks):
        yield memoryview(block)


async def take_all(intake: Intake, fill: Fill, size: int | None) -> str:
    """Feed to `intake` all that `fill` gives, `size` bytes if that is known; the checksum of the
    plain bytes.

    Errors of the intake (a malformed form, a full disk) and of the source come out as they are.
    """
    rooms = _blocks(BATCH_BYTES if size is None else min(size, BATCH_BYTES))
    room = next(rooms)
    first = room[: await fill(room)]
    if len(first) >= OFFLOAD_BYTES:
        return await _take_in_threads(intake, first, rooms, fill)

    def take() -> str:
        intake.take(first)
        return intake.finish()

    # A few compressed bytes may stand for many.
    return await offload(take) if intake.compressed else take()


async def _take_in_threads(
    intake: Intake, data: memoryview, rooms: Iterator[memoryview], fill: Fill
) -> str:
    worker = _Worker(intake)
    failure: Exception | None = None
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(worker.run)
        try:
            while data and worker.error is None:
                await worker.hand(data)
                room = next(rooms)
                data = room[: await fill(room)]
        except Exception as exc:
            # Outside the task group, which would wrap it, and after the work on what has come.
            failure = exc
        finally:
            worker.close()
    failure = worker.error or failure
    if failure is not None:
        try:
            raise failure
        finally:
            failure = None  # it refers to this frame, and so to the blocks
    return await offload(intake.finish)


class _Worker:
    """Works on one block in a thread; the next may wait for it."""

    def __init__(self, intake: Intake) -> None:
        self.error: Exception | None = None
        self._intake = intake
        self._send, self._receive = anyio.create_memory_object_stream[memoryview](BLOCKS - 2)

    async def hand(self, data: memoryview) -> None:
        """Give it the next block; waits while another one waits already."""
        await self._send.send(data)

    def close(self) -> None:
        """There are no more."""
        self._send.close()

    async def run(self) -> None:
        """Work until there are no more, or until one fails: see `error`."""
        with self._receive:
            async for data in self._receive:
                if self.error is None:
                    try:
                        await offload(self._intake.take, data)
                    except Exception as exc:
                        self.error = exc
