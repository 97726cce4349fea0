"""The real services, spoken to by this transport and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import anyio
import pytest
from exchanges import call_here, pool_of
from services import HOST, Service

from seamless_remote.errors import ServiceError
from seamless_remote.transport.messages import Request
from seamless_remote.transport.transport import Transport
from seamless_remote.transport.urls import Origin

pytestmark = pytest.mark.anyio
JSON = (("Content-Type", "application/json"),)
BIG = b"0123456789abcdef" * (1 << 21)

Starter = Callable[[], Service]


def origin_of(service: Service) -> Origin:
    return Origin("http", HOST, service.port)


async def ask(
    transport: Transport, origin: Origin, request: Request, limit: int = 1 << 26
) -> tuple[int, bytes]:
    call = call_here()
    response = await transport.send(call, request, origin, lane="x", read_timeout=60, bound=4)
    return response.status, await response.read(limit)


async def check_up(transport: Transport, origin: Origin) -> None:
    assert await ask(transport, origin, Request("GET", "/healthcheck")) == (200, b"OK")


async def test_buffers_go_to_a_hashserver_and_come_back(
    hashserver: Starter, transport: Transport
) -> None:
    origin = origin_of(hashserver())
    await check_up(transport, origin)
    small = b"a small buffer"
    uploads: list[tuple[bytes, bytes | memoryview]] = [
        (small, small),
        (BIG, BIG),
        (BIG + b"!", memoryview(BIG + b"!")),
    ]
    for expect in (False, True):
        for data, body in uploads:
            target = "/" + hashlib.sha256(data).hexdigest()
            put = Request("PUT", target, body=body, expect_continue=expect)
            status, _ = await ask(transport, origin, put)
            # 201: it is there already, said before the body has been read.
            assert status == (201 if expect else 200)
            assert await ask(transport, origin, Request("GET", target)) == (200, data)
    missing = Request("GET", "/" + "0" * 64)
    assert (await ask(transport, origin, missing))[0] == 404
    checksums = [hashlib.sha256(small).hexdigest(), "0" * 64]
    has = Request("GET", "/has", JSON, json.dumps(checksums).encode())
    assert json.loads((await ask(transport, origin, has))[1]) == [True, False]
    refused = Request("PUT", "/" + "0" * 64, body=small)
    assert (await ask(transport, origin, refused))[0] == 400
    assert (await ask(transport, origin, Request("DELETE", "/nothing")))[0] == 405


async def test_results_go_to_a_database_and_come_back(
    database: Starter, transport: Transport
) -> None:
    origin = origin_of(database())
    await check_up(transport, origin)
    results = {f"{n:064x}": f"{n + 1:064x}" for n in range(100)}

    async def store_and_look_up(checksum: str, value: str) -> None:
        put = {"type": "transformation", "checksum": checksum, "value": value}
        request = Request("PUT", "/", JSON, json.dumps(put).encode())
        assert await ask(transport, origin, request) == (200, b"OK")
        get = {"type": "transformation", "checksum": checksum}
        request = Request("GET", "/", JSON, json.dumps(get).encode())
        assert await ask(transport, origin, request) == (200, value.encode())

    async with anyio.create_task_group() as group:
        for checksum, value in results.items():
            group.start_soon(store_and_look_up, checksum, value)
    assert 1 <= pool_of(transport).idle == pool_of(transport).opened <= 4


async def test_a_killed_service_is_an_error_and_a_restarted_one_is_found_again(
    hashserver: Starter, transport: Transport
) -> None:
    service = hashserver()
    origin = origin_of(service)
    for _ in range(2):
        await check_up(transport, origin)
        service.kill()
        with pytest.raises(ServiceError):
            await check_up(transport, origin)
        service.restart()
    await check_up(transport, origin)
