"""Buffers in every form in which a folder or a server may hold them, and files that are wrong."""

from __future__ import annotations

import io
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_service import Answer, MadeUpService, always
from registering import use_buffers
from seamless import Checksum
from services import Service
from stored_buffers import checksum_of, compress, fresh, incompressible, path_of, put_file

from seamless_remote import buffer_remote
from seamless_remote.buffers import folder as buffer_folder
from seamless_remote.errors import RefusedError, ServiceError

pytestmark = pytest.mark.usefixtures("host")

COMPRESSED = [".zst", ".gz"]
SIZES = [0, 1000, 3_000_000]


async def content_of(checksum: Checksum) -> bytes | None:
    buffer = await buffer_remote.get_buffer(checksum)
    return None if buffer is None else buffer.content


@pytest.fixture(params=["folder", "server"])
def source(
    request: pytest.FixtureRequest, shared_hashserver: Service, tmp_path: Path
) -> tuple[Path, Path | Service]:
    """A folder of buffers, and from where it is read: the folder itself, or a server on it."""
    if request.param == "folder":
        return tmp_path, tmp_path
    return shared_hashserver.directory, shared_hashserver


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("suffix", COMPRESSED)
async def test_a_buffer_that_is_stored_compressed_only_is_read(
    source: tuple[Path, Path | Service], suffix: str, size: int
) -> None:
    folder, reader = source
    use_buffers(reader)
    content = fresh(size)
    assert await content_of(put_file(folder, content, suffix)) == content


@pytest.mark.parametrize("suffix", COMPRESSED)
async def test_several_frames_or_members_in_a_row_are_read_whole(
    source: tuple[Path, Path | Service], suffix: str
) -> None:
    folder, reader = source
    use_buffers(reader)
    for content, parts in ((fresh(100), 2), (incompressible(1_000_000), 5)):
        stored = compress(content, suffix, parts=parts)
        assert await content_of(put_file(folder, content, suffix, stored=stored)) == content


def damages(content: bytes, suffix: str) -> dict[str, bytes]:
    whole = compress(content, suffix)
    return {
        "truncated": whole[: len(whole) // 2],
        "cut short by one byte": whole[:-1],
        "empty": b"",
        "garbage": random.Random(0).randbytes(500),
        "followed by garbage": whole + b"garbage",
        "another buffer": compress(content + b"!", suffix),
        "with a byte changed": bytes([*whole[:-20], whole[-20] ^ 255, *whole[-19:]]),
    }


@pytest.mark.parametrize("damage", damages(bytes(100), "").keys())
@pytest.mark.parametrize("suffix", COMPRESSED)
async def test_a_damaged_compressed_file_is_logged_and_the_next_source_is_tried(
    source: tuple[Path, Path | Service],
    second_hashserver: Service,
    suffix: str,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, reader = source
    content = incompressible(2000)
    checksum = put_file(folder, content, suffix, stored=damages(content, suffix)[damage])
    use_buffers(reader)
    with caplog.at_level(logging.WARNING, "seamless_remote"):
        assert await content_of(checksum) is None
    assert str(folder) in caplog.text or getattr(reader, "url", "?") in caplog.text
    assert checksum.hex() in caplog.text
    put_file(second_hashserver.directory, content)
    use_buffers(reader, second_hashserver)
    assert await content_of(checksum) == content


class _Halting(io.FileIO):
    """A file of a file system that gives less at once than is asked for."""

    def readinto(self, room: Any) -> int:
        return super().readinto(memoryview(room)[: 1 << 19])


async def test_a_file_that_comes_bit_by_bit_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        buffer_folder, "open", lambda file, mode, buffering: _Halting(file, mode), raising=False
    )
    content = incompressible(5_000_000)
    checksum = put_file(tmp_path, content)
    use_buffers(tmp_path)
    assert await content_of(checksum) == content


@pytest.mark.parametrize("size", [100, 2_000_000])
async def test_a_plain_file_with_wrong_bytes_is_logged_and_the_next_source_is_tried(
    source: tuple[Path, Path | Service],
    second_hashserver: Service,
    size: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, reader = source
    content = fresh(size)
    checksum = put_file(folder, content, stored=damages(content, "")["with a byte changed"])
    use_buffers(reader)
    with caplog.at_level(logging.WARNING, "seamless_remote"):
        assert await content_of(checksum) is None
    assert checksum.hex() in caplog.text
    put_file(second_hashserver.directory, content)
    use_buffers(reader, second_hashserver)
    assert await content_of(checksum) == content


async def test_within_a_folder_a_sound_form_is_found_beside_a_wrong_one(tmp_path: Path) -> None:
    use_buffers(tmp_path)
    content = fresh(5000)
    checksum = put_file(tmp_path, content, stored=b"wrong")
    put_file(tmp_path, content, ".zst", stored=b"wrong too")
    put_file(tmp_path, content, ".gz")
    assert await content_of(checksum) == content
    content = fresh(5001)
    checksum = put_file(tmp_path, content, stored=b"wrong")
    put_file(tmp_path, content, layout="flat")
    assert await content_of(checksum) == content


async def test_a_server_that_sends_wrong_bytes_is_named_and_the_next_is_asked(
    shared_hashserver: Service,
    made_up: Callable[[Answer], MadeUpService],
    caplog: pytest.LogCaptureFixture,
) -> None:
    liar = made_up(always(200, b"not what was asked for"))
    content = fresh(1000)
    checksum = put_file(shared_hashserver.directory, content)
    use_buffers(liar, shared_hashserver)
    with caplog.at_level(logging.WARNING, "seamless_remote"):
        assert await content_of(checksum) == content
    assert f"{liar.url} sent wrong bytes for {checksum.hex()}" in caplog.text


async def test_a_server_that_fails_is_passed_over(
    shared_hashserver: Service, made_up: Callable[[Answer], MadeUpService]
) -> None:
    failing = made_up(always(500, b"out of order"))
    content = fresh(1000)
    checksum = put_file(shared_hashserver.directory, content)
    use_buffers(failing, shared_hashserver)
    assert await content_of(checksum) == content
    with pytest.raises(ServiceError, match="out of order"):
        await content_of(checksum_of(fresh(1001)))


async def test_a_file_that_is_still_being_written_is_passed_over(
    tmp_path: Path, shared_hashserver: Service, caplog: pytest.LogCaptureFixture
) -> None:
    use_buffers(tmp_path, shared_hashserver)
    content = fresh(1000)
    checksum = put_file(tmp_path, content, stored=content[:500])
    path_of(tmp_path, checksum, ".LOCK").touch()
    with caplog.at_level(logging.INFO, "seamless_remote"):
        assert await content_of(checksum) is None
    assert "is still being written" in caplog.text
    put_file(shared_hashserver.directory, content)
    assert await content_of(checksum) == content


async def test_a_lock_beside_a_file_that_is_whole_does_not_matter(tmp_path: Path) -> None:
    use_buffers(tmp_path)
    content = fresh(1000)
    checksum = put_file(tmp_path, content)
    path_of(tmp_path, checksum, ".LOCK").touch()
    assert await content_of(checksum) == content


def directory(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def unreadable(path: Path) -> None:
    path.touch(mode=0)


@pytest.mark.parametrize(
    "make", [directory, fifo, link_to_itself, link_to_nothing, link_to_a_device, unreadable]
)
async def test_what_is_no_readable_file_is_passed_over(
    tmp_path: Path, shared_hashserver: Service, make: Callable[[Path], None]
) -> None:
    use_buffers(tmp_path)
    content = fresh(1000)
    checksum = checksum_of(content)
    path = path_of(tmp_path, checksum)
    path.parent.mkdir()
    make(path)
    assert await content_of(checksum) is None
    if make is not unreadable or os.geteuid() != 0:
        assert await buffer_remote.get_buffer_lengths([checksum]) == [None]
    put_file(shared_hashserver.directory, content)
    use_buffers(tmp_path, shared_hashserver)
    assert await content_of(checksum) == content
    put_file(tmp_path, content, ".zst")
    use_buffers(tmp_path)
    assert await content_of(checksum) == content


async def test_a_directory_under_a_buffers_name_on_a_server_is_passed_over(
    shared_hashserver: Service, second_hashserver: Service
) -> None:
    content = fresh(1000)
    checksum = checksum_of(content)
    path_of(shared_hashserver.directory, checksum).mkdir(parents=True)
    use_buffers(shared_hashserver)
    with pytest.raises(RefusedError, match="is not a file"):
        await content_of(checksum)
    put_file(second_hashserver.directory, content)
    use_buffers(shared_hashserver, second_hashserver)
    assert await content_of(checksum) == content


async def test_a_link_to_a_buffer_is_followed(tmp_path: Path) -> None:
    use_buffers(tmp_path)
    content = fresh(1000)
    checksum = checksum_of(content)
    (tmp_path / "elsewhere").write_bytes(content)
    path_of(tmp_path, checksum, layout="flat").symlink_to("elsewhere")
    assert await content_of(checksum) == content


async def test_a_folder_that_is_missing_or_no_folder_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    use_buffers(tmp_path / "missing", tmp_path / "file")
    checksum = checksum_of(fresh(10))
    assert await content_of(checksum) is None
    assert await buffer_remote.get_buffer_lengths([checksum]) == [None]
    assert await buffer_remote.get_filename(checksum) is None


@pytest.mark.parametrize("suffix", ["", *COMPRESSED])
@pytest.mark.parametrize("layout", ["prefix", "flat"])
async def test_both_layouts_are_read_from_a_folder(
    tmp_path: Path, layout: str, suffix: str
) -> None:
    use_buffers(tmp_path)
    content = fresh(2000)
    assert await content_of(put_file(tmp_path, content, suffix, layout=layout)) == content


@pytest.mark.parametrize("suffix", ["", *COMPRESSED])
async def test_the_flat_layout_is_read_through_a_server(
    flat_hashserver: Service, suffix: str
) -> None:
    use_buffers(flat_hashserver)
    content = fresh(2000)
    checksum = put_file(flat_hashserver.directory, content, suffix, layout="flat")
    assert await content_of(checksum) == content
