"""Buffers written to hashservers and read back: what True, False, None and each error stand for."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
import seamless
from counting_proxy import CountingProxy
from made_up_service import Answer, MadeUpService, always
from registering import use_buffers
from services import Service
from stored_buffers import buffer_of, checksum_of, fresh, incompressible, path_of, put_file

import seamless_remote
from seamless_remote import buffer_remote
from seamless_remote.errors import AnswerError, RefusedError, ServiceError, WrongBytesError

pytestmark = pytest.mark.usefixtures("host")

SIZES = [16, 100, 70_000, 1_500_000]
LARGE = 3_000_000


@pytest.mark.parametrize("size", SIZES)
async def test_a_written_buffer_is_on_the_servers_disk_and_can_be_read(
    shared_hashserver: Service, size: int
) -> None:
    use_buffers(shared_hashserver)
    content = fresh(size)
    checksum = checksum_of(content)
    assert await buffer_remote.get_buffer(checksum) is None
    assert await buffer_remote.write_buffer(checksum, buffer_of(content)) is True
    assert path_of(shared_hashserver.directory, checksum).read_bytes() == content
    found = await buffer_remote.get_buffer(checksum)
    assert found is not None
    assert found.content == content
    assert found.get_checksum() == checksum


async def test_checksums_may_be_given_as_text_or_bytes(shared_hashserver: Service) -> None:
    use_buffers(shared_hashserver)
    content = fresh(10)
    checksum = checksum_of(content)
    assert await buffer_remote.write_buffer(checksum.hex(), buffer_of(content))
    found = await buffer_remote.get_buffer(checksum.bytes())
    assert found is not None
    assert found.content == content
    with pytest.raises(ValueError, match="'abc' is not a checksum"):
        await buffer_remote.get_buffer("abc")


async def test_the_empty_buffer_is_written_and_read(shared_hashserver: Service) -> None:
    use_buffers(shared_hashserver)
    checksum = checksum_of(b"")
    assert await buffer_remote.write_buffer(checksum, buffer_of(b""))
    found = await buffer_remote.get_buffer(checksum)
    assert found is not None
    assert found.content == b""


@pytest.mark.parametrize("size", [1000, LARGE])
async def test_a_second_write_is_true_and_a_large_body_is_not_sent_again(
    shared_hashserver: Service, proxy: Callable[[Service], CountingProxy], size: int
) -> None:
    between = proxy(shared_hashserver)
    use_buffers(between)
    content = incompressible(size)
    checksum = checksum_of(content)
    assert await buffer_remote.write_buffer(checksum, buffer_of(content))
    assert between.body_bytes_received == size
    sent = _bytes_sent()
    assert await buffer_remote.write_buffer(checksum, buffer_of(content))
    assert between.answers_to(checksum.hex()) == [200, 201]
    if size == LARGE:
        # What is sent is the question how long the server's file is.
        question = json.dumps([checksum.hex()])
        assert between.body_bytes_received == size + len(question)
        assert _bytes_sent() == sent + len(question)


def _bytes_sent() -> int:
    nursery = seamless_remote.current_nursery()
    assert nursery is not None
    (service,) = nursery.snapshot().services
    (client,) = service.clients
    return client.bytes_sent


async def test_the_snapshot_counts_requests_and_bytes(shared_hashserver: Service) -> None:
    use_buffers(shared_hashserver)
    content = fresh(100_000)
    checksum = checksum_of(content)
    await buffer_remote.write_buffer(checksum, buffer_of(content))
    await buffer_remote.get_buffer(checksum)
    nursery = seamless_remote.current_nursery()
    assert nursery is not None
    (service,) = nursery.snapshot().services
    (client,) = service.clients
    assert client.url == shared_hashserver.url
    assert client.health == "up"
    assert client.requests >= 2  # there may have been a ping
    assert client.retries == client.in_flight == 0
    assert client.bytes_sent == 100_000
    assert client.bytes_received >= 100_000


async def test_bytes_with_another_checksum_are_refused_and_nothing_is_sent(
    shared_hashserver: Service, proxy: Callable[[Service], CountingProxy]
) -> None:
    between = proxy(shared_hashserver)
    use_buffers(between)
    for size in (100, LARGE):
        content = fresh(size)
        wrong = checksum_of(content + b"!")
        with pytest.raises(WrongBytesError, match=checksum_of(content).hex()):
            await buffer_remote.write_buffer(wrong, buffer_of(content))
        assert await buffer_remote.get_buffer(wrong) is None
    assert "PUT" not in between.methods()


async def test_only_buffers_can_be_written(shared_hashserver: Service) -> None:
    use_buffers(shared_hashserver)
    with pytest.raises(TypeError, match="not bytes"):
        await buffer_remote.write_buffer(checksum_of(b"x"), b"x")  # type: ignore[arg-type]


async def test_a_read_only_server_refuses_at_once(
    readonly_hashserver: Service, proxy: Callable[[Service], CountingProxy]
) -> None:
    between = proxy(readonly_hashserver)
    use_buffers(between)
    content = fresh(100)
    with pytest.raises(RefusedError) as refusal:
        await buffer_remote.write_buffer(checksum_of(content), buffer_of(content))
    assert refusal.value.status == 405
    assert between.url in str(refusal.value)
    with pytest.raises(RefusedError):
        await buffer_remote.promise(checksum_of(content))
    assert between.methods()["PUT"] == 2


async def test_without_a_write_server_nothing_happens_and_it_is_false(
    shared_hashserver: Service, proxy: Callable[[Service], CountingProxy], tmp_path: Path
) -> None:
    between = proxy(shared_hashserver)
    content = fresh(100)
    for sources in [(), (tmp_path,), (between, tmp_path)]:
        use_buffers(*sources, readonly=True)
        assert not buffer_remote.has_write_server()
        assert await buffer_remote.write_buffer(checksum_of(content), buffer_of(content)) is False
        await buffer_remote.promise(checksum_of(content))
    assert "PUT" not in between.methods()
    assert list(tmp_path.glob("*")) in ([], [shared_hashserver.directory])


async def test_without_any_client_a_buffer_is_nowhere() -> None:
    use_buffers()
    assert not buffer_remote.has_read_server()
    checksum = checksum_of(fresh(9))
    assert await buffer_remote.get_buffer(checksum) is None
    assert await buffer_remote.get_buffer_lengths([checksum]) == [None]
    assert await buffer_remote.get_filename(checksum) is None


async def test_folders_are_asked_before_servers_and_servers_in_order(
    shared_hashserver: Service,
    second_hashserver: Service,
    proxy: Callable[[Service], CountingProxy],
    tmp_path: Path,
) -> None:
    first, second = proxy(shared_hashserver), proxy(second_hashserver)
    folder = tmp_path / "folder"
    use_buffers(first, second, folder, readonly=True)
    in_folder, nowhere = fresh(50), checksum_of(fresh(51))
    found = await buffer_remote.get_buffer(put_file(folder, in_folder))
    assert found is not None
    assert found.content == in_folder
    assert first.requests == second.requests == [] or not first.methods()["PUT"]
    assert await buffer_remote.get_buffer(nowhere) is None
    assert first.count(nowhere.hex()) == second.count(nowhere.hex()) == 1


async def test_a_dead_server_is_passed_over_and_is_an_error_only_where_nobody_knows(
    shared_hashserver: Service, nowhere: str
) -> None:
    use_buffers(nowhere, shared_hashserver)
    content = fresh(100)
    checksum = put_file(shared_hashserver.directory, content)
    found = await buffer_remote.get_buffer(checksum)
    assert found is not None
    assert found.content == content
    with pytest.raises(ServiceError, match=nowhere) as error:
        await buffer_remote.get_buffer(checksum_of(fresh(101)))
    assert isinstance(error.value, ConnectionError)
    assert "hashserver" in str(error.value)


async def test_a_refusing_server_is_passed_over_and_is_an_error_only_where_nobody_knows(
    shared_hashserver: Service, made_up: Callable[[Answer], MadeUpService]
) -> None:
    refusing = made_up(always(403, b"who are you?"))
    use_buffers(refusing, shared_hashserver)
    content = fresh(100)
    checksum = put_file(shared_hashserver.directory, content)
    found = await buffer_remote.get_buffer(checksum)
    assert found is not None
    assert found.content == content
    with pytest.raises(RefusedError, match="who are you"):
        await buffer_remote.get_buffer(checksum_of(fresh(101)))
    assert await buffer_remote.get_buffer_lengths([checksum]) == [100]


async def test_answers_that_make_no_sense_are_errors_that_quote_them(
    made_up: Callable[[Answer], MadeUpService],
) -> None:
    checksum = checksum_of(fresh(10))
    for nonsense in [b"<html>hello", b"{}", b"[1, 2]", b"[null]", b'["7"]', b"[-1]", b"[false]"]:
        use_buffers(made_up(always(200, nonsense)))
        with pytest.raises(AnswerError, match="hashserver at http://127"):
            await buffer_remote.get_buffer_lengths([checksum])


# Several write servers.


async def test_a_write_goes_to_all_servers_at_once(
    shared_hashserver: Service,
    second_hashserver: Service,
    proxy: Callable[[Service], CountingProxy],
) -> None:
    services = [shared_hashserver, second_hashserver]
    proxies = [proxy(service) for service in services]
    use_buffers(*proxies)
    content = fresh(1000)
    checksum = checksum_of(content)
    outcome: list[bool] = []

    async def write() -> None:
        outcome.append(await buffer_remote.write_buffer(checksum, buffer_of(content)))

    async with anyio.create_task_group() as task_group:
        with contextlib.ExitStack() as stack:
            for each in proxies:
                stack.enter_context(each.hold("PUT"))
            task_group.start_soon(write)
            # None has been answered when the last one is asked.
            for each in proxies:
                await anyio.to_thread.run_sync(each.wait_for_held)
            assert not outcome
    assert outcome == [True]
    for service in services:
        assert path_of(service.directory, checksum).read_bytes() == content


async def test_a_dead_server_keeps_no_other_from_being_written_and_is_logged(
    shared_hashserver: Service,
    second_hashserver: Service,
    nowhere: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    use_buffers(nowhere, shared_hashserver, second_hashserver)
    content = fresh(1000)
    checksum = checksum_of(content)
    with caplog.at_level(logging.ERROR, "seamless_remote"):
        assert await buffer_remote.write_buffer(checksum, buffer_of(content)) is True
    for service in (shared_hashserver, second_hashserver):
        assert path_of(service.directory, checksum).read_bytes() == content
    assert any(nowhere in record.getMessage() for record in caplog.records)


async def test_where_all_servers_are_dead_a_write_is_an_error(nowhere: str) -> None:
    use_buffers(nowhere, f"{nowhere}/other")
    content = fresh(1000)
    with pytest.raises(ConnectionError, match="the upload of"):
        await buffer_remote.write_buffer(checksum_of(content), buffer_of(content))
    with pytest.raises(ConnectionError, match="the promise of"):
        await buffer_remote.promise(checksum_of(content))


async def test_a_promise_reaches_all_servers_and_reads_wait_for_the_upload(
    shared_hashserver: Service,
    second_hashserver: Service,
    proxy: Callable[[Service], CountingProxy],
) -> None:
    services = [shared_hashserver, second_hashserver]
    proxies = [proxy(service) for service in services]
    use_buffers(*proxies)
    content = fresh(1000)
    checksum = checksum_of(content)
    await buffer_remote.promise(checksum)
    for each in proxies:
        assert each.count(f"PUT /promise/{checksum.hex()}") == 1
    found: list[seamless.Buffer | None] = []

    async def read() -> None:
        found.append(await buffer_remote.get_buffer(checksum))

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(read)
        first = proxies[0]
        await anyio.to_thread.run_sync(
            first.wait_for, lambda: first.count(f"GET /{checksum.hex()}") == 1
        )
        assert await buffer_remote.write_buffer(checksum, buffer_of(content))
    (buffer,) = found
    assert buffer is not None
    assert buffer.content == content


async def test_one_client_can_be_promised_to_by_itself(shared_hashserver: Service) -> None:
    use_buffers(shared_hashserver)
    content = fresh(500)
    checksum = checksum_of(content)
    (client,) = buffer_remote._write_server_clients
    await client.promise(checksum)
    assert await buffer_remote.write_buffer(checksum, buffer_of(content))


async def test_get_filename_names_the_plain_file_of_a_read_folder(
    shared_hashserver: Service, tmp_path: Path
) -> None:
    prefix, flat = tmp_path / "prefix", tmp_path / "flat"
    use_buffers(prefix, flat, shared_hashserver)
    content, other, packed = fresh(10), fresh(11), fresh(12)
    checksum = put_file(prefix, content)
    assert await buffer_remote.get_filename(checksum) == str(path_of(prefix, checksum))
    checksum = put_file(flat, other, layout="flat")
    filename = await buffer_remote.get_filename(checksum)
    assert filename == str(path_of(flat, checksum, layout="flat"))
    assert await buffer_remote.get_filename(put_file(prefix, packed, ".zst")) is None
    on_server = put_file(shared_hashserver.directory, fresh(13))
    assert await buffer_remote.get_filename(on_server) is None
    locked = put_file(prefix, fresh(14))
    path_of(prefix, locked, ".LOCK").touch()
    assert await buffer_remote.get_filename(locked) is None
