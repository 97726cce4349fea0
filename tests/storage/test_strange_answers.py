"""An answer with status 200 is not enough: what it says has to be what the service says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_service import Answer, MadeUpService
from registering import use_buffers, use_databases
from services import Service
from stored_buffers import buffer_of, checksum_of, fresh, incompressible, path_of

from seamless_remote import (
    AnswerError,
    DamagedBufferError,
    ServiceError,
    buffer_remote,
    database_remote,
)

pytestmark = pytest.mark.usefixtures("host")

PAGE = b"<!DOCTYPE html>\n<html><body>Please log in to the network.</body></html>\n"
ONE, TWO = checksum_of(b"one"), checksum_of(b"two")

WRITES: dict[str, Callable[[], Awaitable[Any]]] = {
    "a buffer": lambda: buffer_remote.write_buffer(ONE, buffer_of(b"one")),
    "a promise": lambda: buffer_remote.promise(ONE),
    "a result": lambda: database_remote.set_transformation_result(ONE, TWO),
    "a record": lambda: database_remote.set_execution_record(ONE, TWO, {"schema_version": 1}),
    "a probe": lambda: database_remote.set_bucket_probe("node", "n", ONE, {}, "2026-01-01"),
}


@pytest.mark.parametrize("body", [PAGE, b"", b'{"status": "OK"}'], ids=["page", "empty", "json"])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_page_of_somebody_else_is_no_confirmation(
    made_up: Callable[[Answer], MadeUpService], write: Callable[[], Awaitable[Any]], body: bytes
) -> None:
    service = made_up(lambda method, path, _: (200, b"OK" if "health" in path else body))
    use_buffers(service)
    use_databases(service)
    with pytest.raises(AnswerError, match="something else than this service answers there"):
        await write()
    assert len([each for each in service.requests if each[0] == "PUT"]) == 1


READS: dict[str, Callable[[], Awaitable[Any]]] = {
    "a buffer": lambda: buffer_remote.get_buffer(ONE),
    "a result": lambda: database_remote.get_transformation_result(ONE),
    "a record": lambda: database_remote.get_execution_record(ONE),
    "transformations": lambda: database_remote.get_rev_transformations(ONE),
}


@pytest.mark.parametrize("body", [PAGE, b"", b'{"detail": "Not Found"}'])
@pytest.mark.parametrize("read", READS.values(), ids=READS)
async def test_a_404_of_somebody_else_does_not_mean_unknown(
    made_up: Callable[[Answer], MadeUpService], read: Callable[[], Awaitable[Any]], body: bytes
) -> None:
    service = made_up(lambda method, path, _: (404, body))
    use_buffers(service)
    use_databases(service)
    with pytest.raises(AnswerError):
        await read()


async def test_a_page_is_no_good_health(made_up: Callable[[Answer], MadeUpService]) -> None:
    service = made_up(lambda method, path, _: (200, PAGE))
    use_buffers(service)
    (client,) = buffer_remote._read_server_clients
    with pytest.raises(ServiceError, match="'OK' is due"):
        client.ensure_initialized_sync()


@pytest.mark.parametrize("size", [1000, 500_000])
@pytest.mark.parametrize("left", [0, 999])
async def test_a_damaged_file_of_the_server_is_not_taken_for_the_buffer(
    shared_hashserver: Service, size: int, left: int
) -> None:
    use_buffers(shared_hashserver)
    content = incompressible(size)
    checksum = checksum_of(content)
    assert await buffer_remote.write_buffer(checksum, buffer_of(content))
    assert await buffer_remote.write_buffer(checksum, buffer_of(content))
    path = path_of(Path(shared_hashserver.directory), checksum)
    path.chmod(0o644)
    path.write_bytes(content[:left])
    with pytest.raises(DamagedBufferError, match=f"{left} bytes of it instead of {size}"):
        await buffer_remote.write_buffer(checksum, buffer_of(content))
    path.unlink()
    assert await buffer_remote.write_buffer(checksum, buffer_of(content))
    assert path.read_bytes() == content


@pytest.mark.parametrize("length", ["12", "null", "false", "-1", '"<html>"'])
async def test_only_a_number_says_that_a_file_is_damaged(
    made_up: Callable[[Answer], MadeUpService], length: str
) -> None:
    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        return (201, b"") if method == "PUT" else (200, f"[{length}]".encode())

    use_buffers(made_up(answer))
    kind = DamagedBufferError if length == "12" else AnswerError
    with pytest.raises(kind):
        await buffer_remote.write_buffer(ONE, buffer_of(b"one"))


async def test_the_empty_buffer_can_be_written_again(shared_hashserver: Service) -> None:
    use_buffers(shared_hashserver)
    for _ in range(2):
        assert await buffer_remote.write_buffer(checksum_of(b""), buffer_of(b""))


async def test_where_expect_is_refused_the_body_goes_without_it(
    made_up: Callable[[Answer], MadeUpService],
) -> None:
    statuses: list[int] = []

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if method != "PUT":
            return 200, b"OK"
        statuses.append(200 if statuses else 417)
        return statuses[-1], b"OK"

    use_buffers(made_up(answer))
    for _ in range(2):
        content = incompressible(200_000)
        assert await buffer_remote.write_buffer(checksum_of(content), buffer_of(content))
    # Once is enough to know.
    assert statuses == [417, 200, 200]


@pytest.mark.parametrize(
    ("status", "header"),
    [
        ("203 Non-Authoritative Information", ""),
        ("200 OK", "Content-Encoding: identity\r\n"),
        ("200 OK", "Content-Encoding: Identity\r\n"),
        ("200 OK", "Content-Encoding:\r\n"),
    ],
)
async def test_a_buffer_that_a_proxy_has_passed_on_is_taken(
    made_up: Callable[[Answer], MadeUpService],
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    header: str,
) -> None:
    content = fresh(1000)
    service = made_up(lambda method, path, body: (int(status[:3]), content))
    handler = service._server.RequestHandlerClass
    really = handler.end_headers  # type: ignore[attr-defined]

    def end_headers(self: Any) -> None:
        if header:
            name, _, value = header.strip().partition(":")
            self.send_header(name, value.strip())
        really(self)

    monkeypatch.setattr(handler, "end_headers", end_headers)
    use_buffers(service)
    buffer = await buffer_remote.get_buffer(checksum_of(content))
    assert buffer is not None
    assert buffer.content == content
