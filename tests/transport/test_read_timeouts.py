"""How long a server may be silent. In every loop, without anybody's help."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
import trio
from exchanges import BIG, OK, Serve, ask, both_schemes, pool_of, until
from scripted_server import PATIENCE, Peer, answer_when_released
from virtual_time import Clock, in_virtual_time

from seamless_remote.errors import ServiceTimeout
from seamless_remote.transport.messages import Request
from seamless_remote.transport.transport import Transport

pytestmark = pytest.mark.anyio

SAID = {
    "nothing": b"",
    "part of the head": b"HTTP/1.1 200",
    "part of a small body": OK + b"Content-Length: 5\r\n\r\nab",
    "part of a large body": OK + b"Content-Length: 500000\r\n\r\nab",
    "a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab",
    "part of a body without length": OK + b"\r\nab",
}


@both_schemes
@pytest.mark.parametrize("said", SAID.values(), ids=SAID.keys())
async def test_silence_is_a_service_timeout(
    serve: Serve, transport: Transport, said: bytes
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(said)
        peer.wait_for_end()

    server = serve(script)
    with pytest.raises(ServiceTimeout, match=r"silent for 0\.05 s while answering"):
        await (await ask(transport, server, timeout=0.05)).read(1 << 20)


@both_schemes
async def test_a_server_that_does_not_read_an_upload_is_a_service_timeout(
    serve: Serve, transport: Transport
) -> None:
    server = serve(lambda peer: peer.wait())
    with pytest.raises(ServiceTimeout, match="while taking in the request"):
        await ask(transport, server, Request("PUT", "/", body=BIG), timeout=0.05)


Main = Callable[[], Coroutine[Any, Any, None]]


def on_asyncio(main: Main) -> None:
    asyncio.run(main())


def on_uvloop(main: Main) -> None:
    pytest.importorskip("uvloop").run(main())


@pytest.mark.parametrize("run", [on_asyncio, trio.run, on_uvloop])
def test_it_is_noticed_in_a_loop_that_runs_nothing_else(
    serve: Serve, transport: Transport, run: Callable[[Main], None]
) -> None:
    server = serve(lambda peer: peer.wait())

    async def main() -> None:
        with pytest.raises(ServiceTimeout, match=r"silent for 0\.05 s"):
            await ask(transport, server, timeout=0.05)

    run(main)


MOVING = {
    "a small body": OK + b"Content-Length: 5\r\n\r\nabcde",
    "a large body": OK + b"Content-Length: 500000\r\n\r\n" + b"a" * 500_000,
    "chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n",
    "a body without length": OK + b"\r\nabcde",
    "interim answers": b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + OK + b"Content-Length: 0\r\n\r\n",
}


@in_virtual_time
@both_schemes
@pytest.mark.parametrize("answer", MOVING.values(), ids=MOVING.keys())
async def test_a_server_that_moves_is_never_timed_out(
    serve: Serve, transport: Transport, answer: bytes
) -> None:
    told: queue.Queue[bytes] = queue.Queue()

    def script(peer: Peer) -> None:
        peer.request()
        while data := told.get(timeout=PATIENCE):
            peer.send(data)

    server = serve(script)
    clock = Clock()
    timeout = 20.0

    async def read() -> None:
        response = await ask(transport, server, timeout=timeout, call=clock.call)
        await response.read(1 << 20)

    step = len(answer) // 9 + 1
    async with anyio.create_task_group() as group:
        group.start_soon(read)
        sent = 0
        for start in range(0, len(answer), step):
            piece = answer[start : start + step]
            await clock.passes(0.8 * timeout)
            told.put(piece)
            sent += len(piece)
            await until(lambda: received_by(transport) >= sent)  # noqa: B023
        told.put(b"")


def received_by(transport: Transport) -> int:
    return sum(pool.bytes_received for pool in transport.snapshot())


def sent_by(transport: Transport) -> int:
    return sum(pool.bytes_sent for pool in transport.snapshot())


@in_virtual_time
@both_schemes
async def test_a_server_that_takes_an_upload_in_slowly_is_never_timed_out(
    serve: Serve, transport: Transport
) -> None:
    told: queue.Queue[int] = queue.Queue()

    def script(peer: Peer) -> None:
        while size := told.get(timeout=PATIENCE):
            peer.exactly(size)

    server = serve(script)
    clock = Clock()
    timeout = 20.0

    async def upload() -> None:
        request = Request("PUT", "/", body=BIG * 8)
        await ask(transport, server, request, timeout=timeout, call=clock.call)

    async with anyio.create_task_group() as group:
        group.start_soon(upload)
        await until(lambda: sent_by(transport) > 0)
        for _ in range(5):
            before = sent_by(transport)
            await clock.passes(0.8 * timeout)
            told.put(1 << 22)
            await until(lambda: sent_by(transport) > before)  # noqa: B023
        group.cancel_scope.cancel()
    told.put(0)


@in_virtual_time
@both_schemes
async def test_waiting_for_a_connection_is_no_silence(serve: Serve, transport: Transport) -> None:
    server = serve(answer_when_released)
    clock = Clock()
    bodies: list[bytes] = []

    async def read(timeout: float | None) -> None:
        response = await ask(transport, server, bound=1, timeout=timeout, call=clock.call)
        bodies.append(await response.read(9))

    async with anyio.create_task_group() as group:
        group.start_soon(read, None)
        await until(server.reached.is_set)
        group.start_soon(read, 20.0)
        await until(lambda: pool_of(transport).waiting == 1)
        await clock.passes(100)
        server.release()
    assert bodies == [b"late", b"late"]
