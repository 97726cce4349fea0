"""Ingesting a buffer: every byte once and in order, and errors reach the caller."""

from __future__ import annotations

import hashlib
import io
import random

import pytest

from seamless_remote.buffers.ingest import BATCH_BYTES, BufferWriter, Fill, ingest
from seamless_remote.buffers.worker_threads import OFFLOAD_BYTES

CONTENT = random.Random(1).randbytes(7 * BATCH_BYTES + 12345)

SIZES = [0, 1, OFFLOAD_BYTES - 1, OFFLOAD_BYTES, BATCH_BYTES, 3 * BATCH_BYTES, len(CONTENT)]


def giving(content: bytes) -> Fill:
    """A `Fill` that provides `content` from its start."""
    source = io.BytesIO(content)

    async def fill(room: memoryview) -> int:
        return source.readinto(room)

    return fill


def checksum_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.usefixtures("anyio_backend")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("known", [True, False])
async def test_a_target_gets_every_byte_in_order_though_memory_is_reused(
    size: int, known: bool
) -> None:
    content = CONTENT[:size]
    target = io.BytesIO()
    checksum = await ingest(BufferWriter(target), giving(content), size if known else None)
    assert checksum == checksum_of(content)
    assert target.getvalue() == content


@pytest.mark.usefixtures("anyio_backend")
async def test_a_writer_keeps_what_came_before_a_break_and_takes_the_rest_later() -> None:
    target = io.BytesIO()
    writer = BufferWriter(target)
    half = len(CONTENT) // 2

    async def broken(room: memoryview) -> int:
        if writer.length + len(room) > half:
            raise ConnectionError("broken off")
        return await first(room)

    first = giving(CONTENT)
    with pytest.raises(ConnectionError):
        await ingest(writer, broken, len(CONTENT))
    assert writer.length
    rest = CONTENT[writer.length :]
    assert await ingest(writer, giving(rest), len(rest)) == checksum_of(CONTENT)
    assert target.getvalue() == CONTENT


@pytest.mark.usefixtures("anyio_backend")
async def test_an_error_of_the_target_ends_the_ingest_and_passes_through() -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "no space left")

    fill = giving(CONTENT)
    given = 0

    async def counted(room: memoryview) -> int:
        nonlocal given
        given += 1
        return await fill(room)

    with pytest.raises(OSError, match="no space left"):
        await ingest(BufferWriter(Full()), counted, None)
    assert given < 7
