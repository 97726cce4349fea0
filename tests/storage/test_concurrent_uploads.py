"""An upload that meets another upload of the same buffer: True only when it is stored."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import pytest
from counting_proxy import CountingProxy
from hosts import Host
from registering import use_buffers
from services import Service, wait_until
from stored_buffers import buffer_of, checksum_of, fresh, path_of

from seamless_remote import buffer_remote

SIZE = 200_000


class HalfUpload:
    """Somebody else's upload, of which the server has half."""

    def __init__(self, service: Service, content: bytes) -> None:
        self._socket = socket.create_connection(("127.0.0.1", service.port))
        self._rest = content[len(content) // 2 :]
        head = f"PUT /{checksum_of(content).hex()} HTTP/1.1\r\nHost: somebody\r\n"
        head += f"Content-Length: {len(content)}\r\n\r\n"
        self._socket.sendall(head.encode() + content[: len(content) // 2])

    def complete(self) -> int:
        """Send the rest; the status of the answer."""
        self._socket.sendall(self._rest)
        return int(self._socket.recv(65536).split()[1])

    def drop(self) -> None:
        self._socket.close()


@contextmanager
def half_upload(service: Service, content: bytes) -> Iterator[HalfUpload]:
    upload = HalfUpload(service, content)
    try:
        yield upload
    finally:
        upload.drop()


@pytest.mark.parametrize("completed", [True, False], ids=["completed", "dropped"])
def test_a_write_beside_another_upload_is_true_only_when_it_is_stored(
    host: Host,
    shared_hashserver: Service,
    proxy: Callable[[Service], CountingProxy],
    completed: bool,
) -> None:
    between = proxy(shared_hashserver)
    content = fresh(SIZE)
    checksum = checksum_of(content)
    path = path_of(shared_hashserver.directory, checksum)
    outcome: list[bool] = []

    async def write() -> None:
        outcome.append(await buffer_remote.write_buffer(checksum, buffer_of(content)))
        assert path.read_bytes() == content

    async def main() -> None:
        use_buffers(between)
        with half_upload(shared_hashserver, content) as other:
            await anyio.to_thread.run_sync(_until_under_way, shared_hashserver, checksum.hex())
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(write)
                await anyio.to_thread.run_sync(between.wait_for, lambda: _asks(between))
                assert between.answers_to(checksum.hex()) == [202]
                assert not outcome
                assert not path.exists()
                if completed:
                    assert await anyio.to_thread.run_sync(other.complete) == 200
                else:
                    other.drop()
        assert outcome == [True]
        assert between.answers_to(checksum.hex()) == [202, 201 if completed else 200]

    host.run(main)


def _asks(between: CountingProxy) -> bool:
    """Whether the writer has found out about the other upload, and asks when it has ended."""
    return between.count("GET /buffer-length") == 1


def _until_under_way(service: Service, checksum: str) -> None:
    """Wait until the server counts the upload as present, as it does once it has begun."""
    wait_until(lambda: _has(service, checksum))


def _has(service: Service, checksum: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    try:
        connection.request(
            "GET", "/has-now", json.dumps([checksum]), {"Content-Type": "application/json"}
        )
        return json.loads(connection.getresponse().read()) == [True]
    finally:
        connection.close()


def test_many_writes_of_one_buffer_at_once_are_all_true_when_it_is_stored(
    host: Host, shared_hashserver: Service
) -> None:
    content = fresh(1_500_000)
    checksum = checksum_of(content)
    path = path_of(shared_hashserver.directory, checksum)

    async def write() -> None:
        assert await buffer_remote.write_buffer(checksum, buffer_of(content))
        assert path.read_bytes() == content

    async def main() -> None:
        use_buffers(shared_hashserver)
        async with anyio.create_task_group() as task_group:
            for _ in range(12):
                task_group.start_soon(write)

    host.run(main)


def test_a_cancelled_upload_can_be_repeated(
    host: Host, shared_hashserver: Service, proxy: Callable[[Service], CountingProxy]
) -> None:
    between = proxy(shared_hashserver)
    content = fresh(SIZE)
    checksum = checksum_of(content)

    async def main() -> None:
        use_buffers(between)
        with between.hold("PUT"):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(buffer_remote.write_buffer, checksum, buffer_of(content))
                await anyio.to_thread.run_sync(between.wait_for_held)
                task_group.cancel_scope.cancel()
            await anyio.to_thread.run_sync(between.wait_for_abandoned)
        assert await buffer_remote.write_buffer(checksum, buffer_of(content))

    host.run(main)
    assert path_of(shared_hashserver.directory, checksum).read_bytes() == content
