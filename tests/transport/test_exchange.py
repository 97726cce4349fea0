"""What one exchange promises of whole answers, over http and https."""

from __future__ import annotations

import anyio
import pytest
from exchanges import BIG, OK, Serve, ask, both_schemes, get, says, says_and_closes
from scripted_server import Peer

from seamless_remote.errors import ConnectError, ExchangeError, ProtocolError
from seamless_remote.transport import tls
from seamless_remote.transport.messages import Request
from seamless_remote.transport.transport import Transport

pytestmark = pytest.mark.anyio


@both_schemes
async def test_an_answer_comes_back_whole(serve: Serve, transport: Transport) -> None:
    server = serve()
    request = Request("PUT", "/a?b", (("X-One", "1"),), b"some bytes")
    response = await ask(transport, server, request)
    assert response.status == 200
    assert response.content_length == 10
    assert response.headers["CONTENT-LENGTH"] == "10"
    assert await response.read(100) == b"some bytes"
    assert server.requests[0].split(b"\r\n") == [
        b"PUT /a?b HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}".encode(),
        b"X-One: 1",
        b"Content-Length: 10",
    ]


@both_schemes
async def test_a_connection_serves_again_after_each_kind_of_whole_answer(
    serve: Serve, transport: Transport
) -> None:
    answers = {
        "/small": OK + b"Content-Length: 2\r\n\r\nab",
        "/empty": OK + b"Content-Length: 0\r\n\r\n",
        "/none": b"HTTP/1.1 204 No Content\r\n\r\n",
        "/same": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        "/chunked": OK + b"Transfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n",
        "/interim": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
        "/large": OK + b"Content-Length: 8388608\r\n\r\n" + BIG,
        "/moved": b"HTTP/1.1 302 Found\r\nLocation: /small\r\nContent-Length: 0\r\n\r\n",
    }
    bodies = {"/small": b"ab", "/chunked": b"abcde", "/interim": b"ab", "/large": BIG}

    def script(peer: Peer) -> None:
        while True:
            peer.send(answers[peer.request()[0].split()[1].decode()])

    server = serve(script)
    for _ in range(2):
        for path in answers:
            assert await get(transport, server, Request("GET", path)) == bodies.get(path, b"")
    assert server.accepted == 1


@both_schemes
async def test_redirects_are_not_followed_and_coded_bodies_come_as_they_are(
    serve: Serve, transport: Transport
) -> None:
    server = serve(
        says(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"),
        says(OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nzips"),
    )
    assert (await ask(transport, server)).status == 302
    transport.close_idle()
    assert await get(transport, server) == b"zips"


@both_schemes
@pytest.mark.parametrize(
    "head", [b"HTTP/1.0 200 OK\r\n", OK + b"Connection: close\r\n", OK], ids=["1.0", "close", "1.1"]
)
@pytest.mark.parametrize("body", [b"", b"abc", BIG], ids=["empty", "small", "big"])
async def test_a_body_until_the_end_of_the_stream_is_read_whole(
    serve: Serve, transport: Transport, head: bytes, body: bytes
) -> None:
    server = serve(says_and_closes(head + b"\r\n" + body))
    for count in (1, 2):
        response = await ask(transport, server)
        assert response.content_length is None
        assert await response.read(1 << 24) == body
        assert server.accepted == count


@both_schemes
@pytest.mark.parametrize(
    "head", [b"HTTP/1.0 200 OK", b"HTTP/1.1 200 OK\r\nConnection: close"], ids=["1.0", "close"]
)
async def test_a_connection_that_is_to_close_is_not_reused(
    serve: Serve, transport: Transport, head: bytes
) -> None:
    server = serve(says(head + b"\r\nContent-Length: 1\r\n\r\na"))
    for count in (1, 2):
        assert await get(transport, server) == b"a"
        assert server.accepted == count


async def test_nobody_listening_is_a_connect_error_with_the_cause(
    serve: Serve, transport: Transport
) -> None:
    server = serve()
    server.close()
    with pytest.raises(ConnectError, match=r"127\.0\.0\.1.*refused"):
        await get(transport, server)


@both_schemes
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_localhost_is_found_where_only_one_family_listens(
    serve: Serve, transport: Transport, host: str
) -> None:
    server = serve(host=host)
    server.origin = server.origin._replace(host="localhost")
    assert await get(transport, server) == b"hello"


async def test_https_to_a_server_that_speaks_http_is_a_connect_error_that_says_so(
    serve: Serve, transport: Transport
) -> None:
    server = serve(says_and_closes(OK))
    server.origin = server.origin._replace(scheme="https")

    def script(peer: Peer) -> None:
        peer.sock.recv(1)
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        peer.wait_for_end()

    server.scripts = (script,)
    with pytest.raises(ConnectError, match="is it http://"):
        await get(transport, server)


@pytest.mark.parametrize("scheme", ["https"], indirect=True)
async def test_a_certificate_that_nobody_known_has_signed_is_a_connect_error(
    serve: Serve, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.delenv("SSL_CERT_FILE")
    tls.forget_context()
    try:
        with pytest.raises(ConnectError, match="certificate is not accepted"):
            await get(transport, server)
    finally:
        tls.forget_context()
    assert not server.requests


@both_schemes
async def test_a_body_over_the_limit_is_a_protocol_error(
    serve: Serve, transport: Transport
) -> None:
    chunked = b"".join(b"5\r\nabcde\r\n" for _ in range(100_000)) + b"0\r\n\r\n"
    server = serve(
        says(OK + b"Content-Length: 3\r\n\r\nabc"),
        says(OK + b"Content-Length: 800000\r\n\r\n" + bytes(800_000)),
        says(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunked),
    )
    for limit in (2, 799_999, 499_999):
        with pytest.raises(ProtocolError, match=f"longer than {limit} bytes"):
            await (await ask(transport, server)).read(limit)
        transport.close_idle()


@both_schemes
async def test_an_unread_response_frees_its_place_when_closed(
    serve: Serve, transport: Transport
) -> None:
    server = serve(says(OK + b"Content-Length: 8388608\r\n\r\n" + BIG))
    for _ in range(10):
        async with await ask(transport, server, bound=1) as response:
            assert await response.fill(memoryview(bytearray(100))) == 100
    async with await ask(transport, server, bound=1) as response:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await response.read(1 << 24)
        assert scope.cancelled_caught
        (await ask(transport, server, bound=1)).abandon()
        with pytest.raises(ExchangeError):
            await response.read(1 << 24)


@both_schemes
@pytest.mark.parametrize("room", [1, 100, 65536, 1 << 20])
async def test_a_body_may_be_taken_in_rooms_of_any_size(
    serve: Serve, transport: Transport, room: int
) -> None:
    size = room * 50 + 7
    data = (BIG * (1 + size // len(BIG)))[:size]
    server = serve(
        says(OK + b"Content-Length: %d\r\n\r\n" % size + data),
        says(OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, data)),
        says_and_closes(OK + b"\r\n" + data),
    )
    for _ in range(3):
        transport.close_idle()
        taken = bytearray()
        async with await ask(transport, server) as response:
            place = memoryview(bytearray(room))
            while count := await response.fill(place):
                taken += place[:count]
        assert taken == data


@both_schemes
async def test_however_fast_a_body_comes_other_tasks_have_their_turns(
    serve: Serve, transport: Transport
) -> None:
    turns: list[int] = []

    async def count() -> None:
        while True:
            await anyio.lowlevel.checkpoint()
            turns.append(1)

    server = serve(says(OK + b"Content-Length: 33554432\r\n\r\n" + BIG * 4))
    async with anyio.create_task_group() as group:
        response = await ask(transport, server)
        group.start_soon(count)
        assert len(await response.read(1 << 26)) == 4 * len(BIG)
        group.cancel_scope.cancel()
    # It is read in pieces of a quarter of a megabyte.
    assert len(turns) > 100


@pytest.mark.parametrize("target", ["/a b", "/a\r\nX: y", "/a\nb", "/\u00e9"])
async def test_a_request_that_would_be_malformed_is_a_value_error(
    serve: Serve, transport: Transport, target: str
) -> None:
    server = serve()
    with pytest.raises(ValueError, match=r"characters|ordinal"):
        await ask(transport, server, Request("GET", target))
    with pytest.raises(ValueError, match="characters"):
        await ask(transport, server, Request("GET", "/", (("A", "b\r\nC: d"),)))


@both_schemes
async def test_the_counters_count_what_went_over_the_wire(
    serve: Serve, transport: Transport
) -> None:
    server = serve()
    await get(transport, server, Request("PUT", "/", body=b"x" * 1000))
    [pool] = transport.snapshot()
    sent = len(server.requests[0]) + 4 + 1000
    received = len(OK + b"Content-Length: 1000\r\n\r\n") + 1000
    assert (pool.bytes_sent, pool.bytes_received) == (sent, received)
    assert (pool.in_use, pool.idle, pool.opened) == (0, 1, 1)
    transport.close_idle()
    assert transport.snapshot()[0].idle == 0
