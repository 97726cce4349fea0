"""The length of an uncompressed buffer, wherever and in whatever form it is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from counting_proxy import CountingProxy
from registering import use_buffers
from services import Service
from stored_buffers import buffer_of, checksum_of, compress, fresh, path_of, put_file

from seamless_remote import buffer_remote
from seamless_remote.errors import ServiceError

pytestmark = pytest.mark.usefixtures("host")

EMPTY = checksum_of(b"")


async def test_a_stored_buffer_has_its_length_and_an_absent_one_none(
    shared_hashserver: Service,
) -> None:
    use_buffers(shared_hashserver)
    content, absent = fresh(100), checksum_of(fresh(99))
    checksum = checksum_of(content)
    await buffer_remote.write_buffer(checksum, buffer_of(content))
    assert await buffer_remote.get_buffer_lengths([checksum, absent]) == [100, None]
    assert await buffer_remote.get_buffer_lengths([]) == []


async def test_order_and_repetitions_are_kept(shared_hashserver: Service, tmp_path: Path) -> None:
    use_buffers(tmp_path, shared_hashserver)
    here = put_file(tmp_path, fresh(40))
    there = put_file(shared_hashserver.directory, fresh(50))
    absent = checksum_of(fresh(60))
    asked = [absent, there, here, there, absent, here, here]
    lengths = await buffer_remote.get_buffer_lengths(asked)
    assert lengths == [None, 50, 40, 50, None, 40, 40]


async def test_the_empty_buffer_has_length_0_wherever_it_is(
    shared_hashserver: Service, tmp_path: Path
) -> None:
    for sources in [(), (tmp_path,), (shared_hashserver,), (tmp_path, shared_hashserver)]:
        use_buffers(*sources)
        assert await buffer_remote.get_buffer_lengths([EMPTY]) == [0]
    await buffer_remote.write_buffer(EMPTY, buffer_of(b""))
    assert await buffer_remote.get_buffer_lengths([EMPTY]) == [0]


async def test_a_buffer_of_one_byte_is_no_promise(shared_hashserver: Service) -> None:
    use_buffers(shared_hashserver)
    checksum = checksum_of(b"1")
    await buffer_remote.write_buffer(checksum, buffer_of(b"1"))
    assert await buffer_remote.get_buffer_lengths([checksum]) == [1]


@pytest.mark.parametrize("suffix", ["", ".zst", ".gz"])
async def test_a_buffer_that_is_promised_and_stored_has_its_length(
    shared_hashserver: Service, suffix: str
) -> None:
    use_buffers(shared_hashserver)
    checksum = put_file(shared_hashserver.directory, fresh(300_000), suffix)
    await buffer_remote.promise(checksum)
    assert await buffer_remote.get_buffer_lengths([checksum]) == [300_000]


async def test_a_buffer_that_is_only_promised_has_none(shared_hashserver: Service) -> None:
    use_buffers(shared_hashserver)
    checksum = checksum_of(fresh(100))
    await buffer_remote.promise(checksum)
    assert await buffer_remote.get_buffer_lengths([checksum]) == [None]


@pytest.mark.parametrize("where", ["folder", "server"])
@pytest.mark.parametrize("suffix", [".zst", ".gz"])
async def test_a_buffer_that_is_only_stored_compressed_has_its_plain_length(
    shared_hashserver: Service, tmp_path: Path, suffix: str, where: str
) -> None:
    folder = tmp_path if where == "folder" else shared_hashserver.directory
    use_buffers(tmp_path if where == "folder" else shared_hashserver)
    checksum = put_file(folder, fresh(70_001), suffix)
    assert await buffer_remote.get_buffer_lengths([checksum]) == [70_001]


@pytest.mark.parametrize("suffix", [".zst", ".gz"])
async def test_compressed_forms_of_several_parts_are_measured_whole(
    tmp_path: Path, suffix: str
) -> None:
    use_buffers(tmp_path)
    content = fresh(600_000)
    parts = compress(content, suffix, parts=3)
    checksum = put_file(tmp_path, content, suffix, stored=parts)
    assert await buffer_remote.get_buffer_lengths([checksum]) == [600_000]


async def test_a_buffer_length_file_spares_the_decompression(tmp_path: Path) -> None:
    use_buffers(tmp_path)
    checksum = put_file(tmp_path, fresh(1000), ".zst", stored=b"never looked at")
    path_of(tmp_path, checksum, ".BUFFERLENGTH").write_text("1000\n")
    assert await buffer_remote.get_buffer_lengths([checksum]) == [1000]


@pytest.mark.parametrize(
    ("where", "text"),
    [
        *(("folder", text) for text in [b"", b"many", b"-5", b"1_0", b"1e3", b"\xff\xfe", b"7 8"]),
        *(("server", text) for text in [b"", b"many"]),
    ],
)
async def test_a_malformed_buffer_length_file_does_not_count(
    shared_hashserver: Service,
    tmp_path: Path,
    where: str,
    text: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path if where == "folder" else shared_hashserver.directory
    use_buffers(tmp_path if where == "folder" else shared_hashserver)
    checksum = put_file(folder, fresh(1234), ".zst")
    sidecar = path_of(folder, checksum, ".BUFFERLENGTH")
    sidecar.write_bytes(text)
    with caplog.at_level(logging.WARNING, "seamless_remote"):
        assert await buffer_remote.get_buffer_lengths([checksum]) == [1234]
    if where == "folder":
        assert str(sidecar) in caplog.text


async def test_files_that_hold_no_buffer_have_no_length(tmp_path: Path) -> None:
    use_buffers(tmp_path)
    garbage = put_file(tmp_path, fresh(100), ".zst", stored=b"garbage")
    locked = put_file(tmp_path, fresh(100), stored=b"half")
    path_of(tmp_path, locked, ".LOCK").touch()
    directory = checksum_of(fresh(100))
    path_of(tmp_path, directory).mkdir(parents=True)
    asked = [garbage, locked, directory]
    assert await buffer_remote.get_buffer_lengths(asked) == [None, None, None]


async def test_what_one_source_does_not_know_the_next_is_asked_for_and_only_that(
    shared_hashserver: Service, tmp_path: Path, proxy: Callable[[Service], CountingProxy]
) -> None:
    between = proxy(shared_hashserver)
    use_buffers(tmp_path, between)
    here = [put_file(tmp_path, fresh(size)) for size in range(20, 40)]
    assert await buffer_remote.get_buffer_lengths(here) == list(range(20, 40))
    assert not between.count("/buffer-length")
    there = put_file(shared_hashserver.directory, fresh(77))
    assert await buffer_remote.get_buffer_lengths([there, *here]) == [77, *range(20, 40)]
    assert between.count("/buffer-length") == 1


async def test_an_unreachable_server_is_an_error_only_where_a_length_is_missing(
    shared_hashserver: Service, nowhere: str
) -> None:
    use_buffers(nowhere, shared_hashserver)
    checksum = put_file(shared_hashserver.directory, fresh(55))
    assert await buffer_remote.get_buffer_lengths([checksum]) == [55]
    with pytest.raises(ServiceError, match="the lengths of 2 buffers"):
        await buffer_remote.get_buffer_lengths([checksum, checksum_of(fresh(56))])
