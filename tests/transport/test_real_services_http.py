"""The real services, spoken to by this transport and nothing else."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from seamless_remote.errors import ConnectError, ServiceError
from seamless_remote.transport import Origin, Request, StreamBody, Transport

pytestmark = pytest.mark.anyio
JSON = (("Content-Type", "application/json"),)
BIG = b"0123456789abcdef" * (1 << 21)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def running(name: str, *arguments: str, port: int | None = None) -> Iterator[Origin]:
    port = port or free_port()
    command = [str(Path(sys.executable).with_name(name)), *arguments, "--port", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    ) as process:
        try:
            yield Origin("http", "127.0.0.1", port)
        finally:
            process.kill()


@pytest.fixture
def hashserver(tmp_path: Path) -> Iterator[Origin]:
    yield from running("hashserver", str(tmp_path), "--writable")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Origin]:
    yield from running(
        "seamless-database", str(tmp_path / "seamless.db"), "--writable", "--host", "127.0.0.1"
    )


async def ask(
    transport: Transport, origin: Origin, request: Request, limit: int = 1 << 26
) -> tuple[int, bytes]:
    response = await transport.send(request, origin, lane="test", read_timeout=60)
    return response.status, await response.read(limit)


async def is_up(transport: Transport, origin: Origin) -> None:
    with anyio.fail_after(30):
        while True:
            try:
                assert await ask(transport, origin, Request("GET", "/healthcheck")) == (200, b"OK")
            except ConnectError:
                await anyio.sleep(0.02)
            else:
                return


async def test_buffers_go_to_a_hashserver_and_come_back(
    hashserver: Origin, transport: Transport
) -> None:
    await is_up(transport, hashserver)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(BIG), 1 << 20):
            yield BIG[start : start + (1 << 20)]

    small = b"a small buffer"
    uploads: list[tuple[bytes, bytes | StreamBody]] = [
        (small, small),
        (BIG, StreamBody(len(BIG), pieces)),
        (BIG + b"!", BIG + b"!"),
    ]
    for expect in (False, True):
        for data, body in uploads:
            target = "/" + hashlib.sha256(data).hexdigest()
            put = Request("PUT", target, body=body, expect_continue=expect)
            status, _ = await ask(transport, hashserver, put)
            # 201: it is there already, said before the body has been read.
            assert status == (201 if expect else 200)
            assert await ask(transport, hashserver, Request("GET", target)) == (200, data)
    missing = Request("GET", "/" + "0" * 64)
    assert (await ask(transport, hashserver, missing))[0] == 404
    checksums = [hashlib.sha256(small).hexdigest(), "0" * 64]
    has = Request("GET", "/has", JSON, json.dumps(checksums).encode())
    assert json.loads((await ask(transport, hashserver, has))[1]) == [True, False]
    refused = Request("PUT", "/" + "0" * 64, body=small)
    assert (await ask(transport, hashserver, refused))[0] == 400
    assert (await ask(transport, hashserver, Request("DELETE", "/nothing")))[0] == 405
    await transport.aclose()


async def test_results_go_to_a_database_and_come_back(
    database: Origin, transport: Transport
) -> None:
    await is_up(transport, database)
    results = {f"{n:064x}": f"{n + 1:064x}" for n in range(100)}

    async def store_and_look_up(checksum: str, value: str) -> None:
        put = {"type": "transformation", "checksum": checksum, "value": value}
        request = Request("PUT", "/", JSON, json.dumps(put).encode())
        assert await ask(transport, database, request) == (200, b"OK")
        get = {"type": "transformation", "checksum": checksum}
        request = Request("GET", "/", JSON, json.dumps(get).encode())
        assert await ask(transport, database, request) == (200, value.encode())

    async with anyio.create_task_group() as group:
        for checksum, value in results.items():
            group.start_soon(store_and_look_up, checksum, value)
    pool = transport.statistics().pools[database, "test"]
    assert pool.idle == pool.open <= 4
    await transport.aclose()


async def test_a_killed_service_is_an_error_and_a_restarted_one_is_found_again(
    tmp_path: Path, transport: Transport
) -> None:
    (tmp_path / "store").mkdir()
    port = free_port()
    for _ in range(2):
        for origin in running("hashserver", str(tmp_path / "store"), "--writable", port=port):
            await is_up(transport, origin)
        with pytest.raises(ServiceError):
            await ask(transport, origin, Request("GET", "/healthcheck"))
    await transport.aclose()
