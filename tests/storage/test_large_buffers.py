"""Buffers of many megabytes: the right bytes, and a caller's loop that goes on turning."""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
import zstandard
from registering import use_buffers
from services import Service
from stored_buffers import buffer_of, checksum_of, incompressible, path_of, put_file

from seamless_remote import buffer_remote

pytestmark = pytest.mark.usefixtures("host")

T = TypeVar("T")

LARGE = 64 << 20
TURNS = 10
"""A loop that stands still during the hashing, decoding or copying has but a few turns in all."""


async def turning(work: Callable[[], Awaitable[T]]) -> T:
    """Do the work, and see that a neighbour in the same loop got its turns meanwhile."""
    turns = 0
    done = False

    async def neighbour() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await anyio.sleep(0.001)

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(neighbour)
        result = await work()
        done = True
    assert turns >= TURNS
    return result


@pytest.fixture(scope="module")
def content() -> bytes:
    return incompressible(LARGE)


@pytest.fixture(scope="module")
def forms(content: bytes) -> dict[str, bytes]:
    return {
        "": content,
        ".zst": zstandard.ZstdCompressor(level=1).compress(content),
        ".gz": gzip.compress(content, compresslevel=1),
    }


async def test_a_large_buffer_is_written_and_read_while_the_callers_loop_turns(
    shared_hashserver: Service, content: bytes
) -> None:
    use_buffers(shared_hashserver)
    checksum = checksum_of(content)
    path = path_of(shared_hashserver.directory, checksum)
    try:
        assert await turning(lambda: buffer_remote.write_buffer(checksum, buffer_of(content)))
        found = await turning(lambda: buffer_remote.get_buffer(checksum))
        assert found is not None
        assert found.content == content
    finally:
        path.unlink()


@pytest.mark.parametrize("suffix", ["", ".zst", ".gz"])
async def test_a_large_buffer_is_read_from_a_folder_while_the_callers_loop_turns(
    tmp_path: Path, content: bytes, forms: dict[str, bytes], suffix: str
) -> None:
    use_buffers(tmp_path)
    checksum = put_file(tmp_path, content, suffix, stored=forms[suffix])
    try:
        found = await turning(lambda: buffer_remote.get_buffer(checksum))
        assert found is not None
        assert found.content == content
    finally:
        path_of(tmp_path, checksum, suffix).unlink()


@pytest.mark.parametrize("where", ["folder", "server"])
async def test_a_few_compressed_bytes_that_stand_for_many_are_decoded_off_the_loop(
    shared_hashserver: Service, tmp_path: Path, where: str
) -> None:
    use_buffers(shared_hashserver if where == "server" else tmp_path)
    content = bytes(2 * LARGE)
    folder = shared_hashserver.directory if where == "server" else tmp_path
    checksum = put_file(folder, content, ".zst")
    found = await turning(lambda: buffer_remote.get_buffer(checksum))
    assert found is not None
    assert found.content == content
