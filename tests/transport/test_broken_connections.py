"""A connection that breaks ends its exchange at once, in every loop, without any timeout's help.

On uvloop without epoll that takes care: libuv reports an error once, and then stops polling.
"""

from __future__ import annotations

import anyio
import pytest
from exchanges import BIG, OK, Serve, ask, both_schemes, get, until
from scripted_server import PATIENCE, Peer, Script, echo

from seamless_remote.errors import ExchangeError
from seamless_remote.transport.messages import Request, Response
from seamless_remote.transport.transport import Transport

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("poller_kind"), both_schemes]

SAID = {
    "nothing": b"",
    "part of the head": b"HTTP/1.1 2",
    "part of a small body": OK + b"Content-Length: 9\r\n\r\nab",
    "part of a large body": OK + b"Content-Length: 900000\r\n\r\n" + bytes(300_000),
    "a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
    "part of a body without length": OK + b"\r\n" + bytes(300_000),
}


def then_ends(said: bytes, how: str) -> Script:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(said)
        peer.server.reached.set()
        peer.wait()
        if how == "reset":
            peer.reset()
        else:
            peer.cut()

    return script


async def take_all(response: Response, room: memoryview) -> None:
    while await response.fill(room):
        pass


@pytest.mark.parametrize("said", SAID.values(), ids=SAID.keys())
@pytest.mark.parametrize("how", ["reset", "cut"])
async def test_a_reader_that_waits_gets_an_exchange_error(
    serve: Serve, transport: Transport, scheme: str, said: bytes, how: str
) -> None:
    server = serve(then_ends(said, how), echo)

    async def read() -> None:
        if how == "cut" and said == SAID["part of a body without length"] and scheme == "http":
            # The end of such a body cannot be told from its truncation.
            await (await ask(transport, server, timeout=None)).read(1 << 20)
            return
        with pytest.raises(ExchangeError):
            await (await ask(transport, server, timeout=None)).read(1 << 20)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await until(server.reached.is_set)
            await anyio.wait_all_tasks_blocked()
            server.release()
    assert await get(transport, server, bound=1) == b"hello"
    assert server.accepted == 2


@pytest.mark.parametrize("how", ["reset", "cut"])
async def test_a_reader_that_comes_later_gets_what_came_and_then_an_exchange_error(
    serve: Serve, transport: Transport, how: str
) -> None:
    server = serve(then_ends(SAID["part of a large body"], how))
    with anyio.fail_after(PATIENCE):
        async with await ask(transport, server, timeout=None) as response:
            room = memoryview(bytearray(1000))
            assert await response.fill(room) == 1000
            server.release()
            await until(lambda: server.ended)
            with pytest.raises(ExchangeError, match=r"broke off|before the end"):
                await take_all(response, room)


async def test_a_reset_while_a_reader_takes_its_time_is_seen_by_its_next_read(
    serve: Serve, transport: Transport
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK + b"Content-Length: 1000000000\r\n\r\n" + bytes(300_000))
        peer.server.reached.set()
        peer.wait()
        # There is room in the client's kernel, or is not: the rest of it stays in this one.
        peer.sock.setblocking(False)
        try:
            while True:
                peer.sock.send(bytes(10_000))
        except OSError:
            peer.reset()

    server = serve(script)
    with anyio.fail_after(PATIENCE):
        async with await ask(transport, server, timeout=None) as response:
            room = memoryview(bytearray(200_000))
            assert await response.fill(room) == 200_000
            server.release()
            await until(lambda: server.ended)
            for _ in range(20):  # turns in which the loop hears of it
                await anyio.lowlevel.checkpoint()
            with pytest.raises(ExchangeError):
                await take_all(response, room)


@pytest.mark.parametrize("how", ["reset", "cut"])
@pytest.mark.parametrize("waits", [True, False], ids=["blocked", "sending"])
async def test_an_upload_to_a_server_that_leaves_is_an_exchange_error(
    serve: Serve, transport: Transport, how: str, waits: bool
) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.server.reached.set()
        if waits:
            peer.wait()
        if how == "reset":
            peer.reset()
        else:
            peer.cut()

    server = serve(script, echo)

    async def upload() -> None:
        with pytest.raises(ExchangeError):
            await ask(transport, server, Request("PUT", "/", body=BIG * 4), timeout=None)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(upload)
            await until(server.reached.is_set)
            await anyio.wait_all_tasks_blocked()
            server.release()
    assert await get(transport, server, bound=1) == b"hello"


async def test_a_request_is_aborted_from_another_thread_at_any_stage(
    serve: Serve, transport: Transport
) -> None:
    server = serve(then_ends(b"", "cut"), then_ends(SAID["part of a large body"], "cut"), echo)

    async def fail(request: Request) -> None:
        with pytest.raises(ExchangeError):
            await (await ask(transport, server, request, timeout=None)).read(1 << 20)

    with anyio.fail_after(PATIENCE):
        for count in (1, 2):
            request = Request("GET", "/")
            async with anyio.create_task_group() as group:
                group.start_soon(fail, request)
                await until(lambda: server.accepted == count)  # noqa: B023
                await until(lambda: server.reached.is_set() and request.abort is not None)  # noqa: B023
                server.reached.clear()
                assert request.abort is not None
                await anyio.to_thread.run_sync(request.abort)
            assert request.abort is None
    server.release()
    assert await get(transport, server) == b"hello"
