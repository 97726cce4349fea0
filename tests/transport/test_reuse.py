"""When a connection serves again, when a request is sent again, and when idle ones are closed."""

from __future__ import annotations

import ssl

import anyio
import pytest
from exchanges import OK, Serve, ask, both_schemes, call_here, get, pool_of, quietly, until
from scripted_server import Peer, answer_when_released, echo

from seamless_remote import Settings
from seamless_remote.errors import ExchangeError
from seamless_remote.transport.dialing import dial
from seamless_remote.transport.messages import Request
from seamless_remote.transport.socket_io import SocketIO, Traffic
from seamless_remote.transport.tls import handshake
from seamless_remote.transport.transport import FORGET_AFTER, Transport

pytestmark = pytest.mark.anyio


@both_schemes
@pytest.mark.parametrize("how", ["close", "cut", "reset", "unasked bytes"])
async def test_a_stale_idle_connection_is_noticed_before_a_request_is_lost_on_it(
    serve: Serve, transport: Transport, how: str
) -> None:
    def stale(peer: Peer) -> None:
        peer.request()
        peer.answer(b"one")
        peer.wait()
        if how == "reset":
            peer.reset()
        elif how == "unasked bytes":
            peer.answer(b"another one")
            peer.server.reached.set()
            peer.wait_for_end()
        elif how == "cut":
            peer.cut()
        else:
            peer.say_goodbye()
            peer.cut()
        peer.server.reached.set()

    server = serve(stale, echo)
    assert await get(transport, server) == b"one"
    server.release()
    await until(server.reached.is_set)
    # Not `safe`: it would not be sent twice.
    assert await get(transport, server, Request("POST", "/", body=b"new")) == b"new"
    assert server.accepted == 2
    assert pool_of(transport).idle == 1


@both_schemes
async def test_an_answer_that_is_followed_by_unasked_bytes_ends_its_connection(
    serve: Serve, transport: Transport
) -> None:
    """They would be taken for the next answer. Over TLS they may be in the kernel no more."""
    large = OK + b"Content-Length: 70000\r\n\r\n" + bytes(70_000)

    def script(peer: Peer) -> None:
        peer.request()
        # The last record of TLS holds the end of this answer and all of the next one.
        peer.send(large + OK + b"Content-Length: 5\r\n\r\nwrong")
        peer.wait_for_end()

    server = serve(script, echo)
    async with await ask(transport, server) as response:
        room = memoryview(bytearray(70_000))
        assert await response.fill(room) == 70_000
    assert await get(transport, server) == b"hello"
    assert server.accepted == 2


@pytest.mark.parametrize("scheme", ["https"], indirect=True)
async def test_session_tickets_of_tls_do_not_make_a_connection_stale(serve: Serve) -> None:
    server = serve()
    secure = await handshake(await dial("127.0.0.1", server.port), "127.0.0.1")
    io = SocketIO(secure, Traffic())
    assert secure.version() == "TLSv1.3"
    # Two tickets come right after the handshake.
    await anyio.wait_readable(secure)
    assert not io.is_stale()
    assert isinstance(secure, ssl.SSLSocket)
    io.send(b"GET / HTTP/1.1\r\n\r\n")
    while (received := io.receive(1000)) is None:
        await anyio.wait_readable(secure)
    assert received.endswith(b"hello")
    assert not io.is_stale()
    io.close()


def closes_at_the_second_request(peer: Peer) -> None:
    peer.request()
    peer.answer(b"one")
    peer.request()


@both_schemes
async def test_a_safe_request_that_a_reused_connection_lost_is_sent_again(
    serve: Serve, transport: Transport
) -> None:
    server = serve(closes_at_the_second_request, echo)
    assert await get(transport, server) == b"one"
    request = Request("PUT", "/", body=b"x" * 500_000, safe=True)
    assert await get(transport, server, request) == b"x" * 500_000
    assert server.accepted == 2


@both_schemes
async def test_an_unsafe_request_that_a_reused_connection_lost_is_not_sent_again(
    serve: Serve, transport: Transport
) -> None:
    server = serve(closes_at_the_second_request, echo)
    assert await get(transport, server) == b"one"
    with pytest.raises(ExchangeError):
        await get(transport, server, Request("POST", "/", body=b"x"))
    assert server.accepted == 1
    assert await get(transport, server) == b"hello"


@both_schemes
async def test_a_safe_request_that_a_new_connection_lost_is_not_sent_again(
    serve: Serve, transport: Transport
) -> None:
    server = serve(lambda peer: peer.head())
    with pytest.raises(ExchangeError):
        await get(transport, server, Request("GET", "/", safe=True))
    assert server.accepted == 1


@both_schemes
async def test_an_answer_that_broke_off_is_not_asked_for_again(
    serve: Serve, transport: Transport
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.answer(b"one")
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n")

    server = serve(script, echo)
    await get(transport, server)
    with pytest.raises(ExchangeError):
        await get(transport, server, Request("GET", "/", safe=True))
    assert server.accepted == 1


async def test_idle_connections_are_closed_after_their_lifetime(
    serve: Serve, transport: Transport
) -> None:
    server = serve()
    no_time = call_here(Settings(idle_connection_lifetime=0))
    for count in (1, 2):
        response = await ask(transport, server, call=no_time)
        assert await response.read(9) == b"hello"
        assert server.accepted == count
    transport.expire(60)
    assert pool_of(transport).idle == 1
    transport.expire(0)
    assert pool_of(transport).idle == 0
    await until(lambda: server.ended == 2)


async def test_a_pool_that_nobody_uses_is_forgotten_with_its_connections(
    serve: Serve, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    await get(transport, server)
    [pool] = transport._pools.values()
    for lifetime, kept in ((FORGET_AFTER + 10, 1), (60, 0)):
        pool.used_at -= FORGET_AFTER + 1
        for connection in pool._idle:
            connection.idle_since = pool.used_at
        transport.expire(lifetime)
        assert len(transport.snapshot()) == kept
        pool.used_at += FORGET_AFTER + 1
    assert await get(transport, server) == b"hello"
    assert server.accepted == 2


async def test_no_connection_is_kept_when_nobody_looks_after_idle_ones(serve: Serve) -> None:
    attended = True
    server = serve()
    transport = Transport(lambda: attended)
    await get(transport, server)
    assert pool_of(transport).idle == 1
    async with await ask(transport, server) as response:
        attended = False
        await response.read(9)
    await get(transport, server)
    assert pool_of(transport).idle == 0
    await until(lambda: server.ended == server.accepted)
    attended = True
    await get(transport, server)
    assert pool_of(transport).idle == 1
    transport.close_idle()


@both_schemes
async def test_a_released_origin_finishes_its_requests_and_keeps_no_connection(
    serve: Serve, transport: Transport
) -> None:
    server = serve(answer_when_released)
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(lambda: get(transport, server, bound=2))
        await until(lambda: server.reached.is_set() and pool_of(transport).waiting == 1)
        transport.release([])
        server.release()
    assert pool_of(transport).idle == 0
    await until(lambda: server.ended == server.accepted)


async def test_a_released_origin_that_is_used_again_keeps_connections_again(
    serve: Serve, transport: Transport
) -> None:
    server = serve()
    await get(transport, server)
    transport.release([])
    assert pool_of(transport).idle == 0
    for _ in range(3):
        await get(transport, server)
    assert server.accepted == 2


async def test_release_keeps_the_connections_of_the_named_origins(
    serve: Serve, transport: Transport
) -> None:
    kept, dropped = serve(), serve()
    for _ in range(2):
        for server in (kept, dropped):
            await get(transport, server)
        transport.release([kept.origin])
    assert kept.accepted == 1
    assert dropped.accepted == 2


async def test_the_connection_that_was_used_last_is_used_first(
    serve: Serve, transport: Transport
) -> None:
    server = serve(answer_when_released, echo)
    async with anyio.create_task_group() as group:
        group.start_soon(quietly, transport, server)
        await until(server.reached.is_set)
        await get(transport, server)
        server.release()
    # Two are idle: the one that was released last.
    assert await get(transport, server) == b"late"
    assert pool_of(transport).idle == 2


@both_schemes
async def test_a_request_that_is_answered_cannot_be_aborted_any_more(
    serve: Serve, transport: Transport
) -> None:
    """Its connection may be somebody else's by then."""
    server = serve()
    for size in (5, 500_000):
        request = Request("PUT", "/", body=bytes(size))
        assert len(await get(transport, server, request)) == size
        assert request.abort is None
    assert server.accepted == 1


async def test_a_socket_is_closed_at_once_with_its_connection(
    serve: Serve, transport: Transport
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK + b"Content-Length: 500000\r\n\r\nab")
        peer.server.bodies.append(b"%d" % peer.wait_for_end())

    server = serve(script)
    response = await ask(transport, server)
    response.abandon()
    await until(lambda: server.bodies == [b"0"])
