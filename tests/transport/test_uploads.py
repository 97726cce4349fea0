"""What sending a body promises: it arrives whole, and an early answer stops it."""

from __future__ import annotations

import pytest
from exchanges import BIG, Serve, ask, both_schemes, get, until
from scripted_server import Peer, echo

from seamless_remote.errors import ExchangeError
from seamless_remote.transport import connection
from seamless_remote.transport.messages import Request
from seamless_remote.transport.transport import Transport

pytestmark = [pytest.mark.anyio, both_schemes]


@pytest.mark.parametrize("kind", ["bytes", "view"])
@pytest.mark.parametrize("expect", [False, True], ids=["at once", "expect"])
@pytest.mark.parametrize("size", [0, 1, 16385, 65536, 65537, len(BIG)])
async def test_an_upload_arrives_whole(
    serve: Serve, transport: Transport, kind: str, expect: bool, size: int
) -> None:
    def script(peer: Peer) -> None:
        while True:
            head = peer.head()
            if expect:
                assert b"Expect: 100-continue" in head
                peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            peer.answer(peer.exactly(size))

    data = BIG[:size]
    body = memoryview(bytearray(data)) if kind == "view" else data
    server = serve(script)
    for _ in range(2):
        request = Request("PUT", "/", body=body, expect_continue=expect)
        assert await get(transport, server, request) == data
    assert server.accepted == 1


@pytest.mark.parametrize("status", ["201 Created", "413 Too Large"])
@pytest.mark.parametrize("end", ["stay", "close", "reset"])
async def test_an_answer_before_the_end_of_the_upload_is_delivered(
    serve: Serve, transport: Transport, status: str, end: str
) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.answer(b"early", status)
        if end == "stay":
            peer.wait()
        elif end == "reset":
            # Only after the client has had its chance: RST may overtake an answer.
            peer.wait()
            peer.reset()

    server = serve(script, echo)
    request = Request("PUT", "/", body=BIG * 8)
    try:
        response = await ask(transport, server, request)
    except ExchangeError:
        # Closing with unread bytes makes a RST, which may destroy the answer on its way.
        assert end == "close"
    else:
        assert response.status == int(status[:3])
        assert await response.read(9) == b"early"
    server.release()
    assert await get(transport, server, bound=1) == b"hello"
    assert server.accepted == 2


async def test_an_early_answer_stops_an_upload_at_once_though_the_server_takes_more(
    serve: Serve, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def script(peer: Peer) -> None:
        peer.head()
        peer.answer(b"", "413 Too Large")
        peer.server.reached.set()
        taken.append(len(peer.buffer) + peer.wait_for_end())

    async def wait_for_answer() -> None:
        await until(server.reached.is_set)

    server = serve(script)
    # After the first piece: the second one would be taken, too.
    monkeypatch.setattr(connection, "checkpoint", wait_for_answer)
    response = await ask(transport, server, Request("PUT", "/", body=bytes(1 << 20)))
    assert response.status == 413
    await until(lambda: taken)
    assert taken[0] < 1 << 19


async def test_an_early_answer_that_comes_in_pieces_is_seen(
    serve: Serve, transport: Transport
) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        for piece in (b"HTTP/1.1 413 Too", b" Large\r\nContent-", b"Length: 2\r\n\r", b"\nno"):
            peer.send(piece)
            # Takes some of the body, so that the client sends on.
            peer.exactly(1 << 20)
        peer.wait()

    server = serve(script)
    response = await ask(transport, server, Request("PUT", "/", body=BIG * 8))
    assert response.status == 413
    assert await response.read(9) == b"no"


@pytest.mark.parametrize("status", ["201 Created", "417 Expectation Failed"])
async def test_after_a_final_answer_instead_of_100_the_body_stays_here(
    serve: Serve, transport: Transport, status: str
) -> None:
    after: list[int] = []

    def script(peer: Peer) -> None:
        peer.head()
        peer.answer(b"no need", status)
        after.append(peer.wait_for_end())

    server = serve(script, echo)
    request = Request("PUT", "/", body=b"abcde", expect_continue=True)
    response = await ask(transport, server, request)
    assert response.status == int(status[:3])
    assert await response.read(9) == b"no need"
    await until(lambda: after)
    assert after == [0]
    assert await get(transport, server) == b"hello"


async def test_the_body_waits_for_100(serve: Serve, transport: Transport) -> None:
    early: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.head()
        early.append(peer.buffer)
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        peer.answer(peer.exactly(5))

    server = serve(script)
    request = Request("PUT", "/", body=b"abcde", expect_continue=True)
    assert await get(transport, server, request) == b"abcde"
    assert early == [b""]


@pytest.mark.parametrize("timeout", [0.1, 60, None])
async def test_a_server_that_knows_no_100_gets_the_body_all_the_same(
    serve: Serve, transport: Transport, timeout: float | None
) -> None:
    # With half of a short read timeout the server has the other half to answer: on a busy machine,
    # that may be too little.
    server = serve()
    request = Request("PUT", "/", body=b"abcde", expect_continue=True)
    try:
        response = await ask(transport, server, request, timeout=timeout)
        assert await response.read(9) == b"abcde"
    except ExchangeError:
        assert timeout == 0.1
        await until(lambda: server.bodies)
    assert server.bodies == [b"abcde"]
