"""Taking a buffer in: every byte once and in order, and errors that reach whoever asked."""

from __future__ import annotations

import hashlib
import io
import random

import pytest

from seamless_remote.buffers.ingest import BATCH_BYTES, Fill, Intake, take_all
from seamless_remote.nursery.worker_threads import OFFLOAD_BYTES

CONTENT = random.Random(1).randbytes(7 * BATCH_BYTES + 12345)

SIZES = [0, 1, OFFLOAD_BYTES - 1, OFFLOAD_BYTES, BATCH_BYTES, 3 * BATCH_BYTES, len(CONTENT)]


def giving(content: bytes) -> Fill:
    """What fills memory with the content, from its start on."""
    source = io.BytesIO(content)

    async def fill(room: memoryview) -> int:
        return source.readinto(room)

    return fill


def checksum_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.usefixtures("anyio_backend")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("known", [True, False])
async def test_a_target_gets_every_byte_in_order_though_memory_is_used_again(
    size: int, known: bool
) -> None:
    content = CONTENT[:size]
    target = io.BytesIO()
    checksum = await take_all(Intake(target), giving(content), size if known else None)
    assert checksum == checksum_of(content)
    assert target.getvalue() == content


@pytest.mark.usefixtures("anyio_backend")
async def test_what_came_before_a_break_is_taken_in_and_the_rest_after_it() -> None:
    target = io.BytesIO()
    intake = Intake(target)
    half = len(CONTENT) // 2

    async def broken(room: memoryview) -> int:
        if intake.length + len(room) > half:
            raise ConnectionError("broken off")
        return await first(room)

    first = giving(CONTENT)
    with pytest.raises(ConnectionError):
        await take_all(intake, broken, len(CONTENT))
    assert intake.length
    rest = CONTENT[intake.length :]
    assert await take_all(intake, giving(rest), len(rest)) == checksum_of(CONTENT)
    assert target.getvalue() == CONTENT


@pytest.mark.usefixtures("anyio_backend")
async def test_an_error_of_the_target_ends_the_intake_and_comes_out_as_it_is() -> None:
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
        await take_all(Intake(Full()), counted, None)
    assert given < 7
