"""What is no whole HTTP answer is a typed error that names the server, whatever it is."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest
from exchanges import OK, Serve, ask, both_schemes, get, says_and_closes
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import Peer, echo

from seamless_remote.errors import ExchangeError, ProtocolError
from seamless_remote.nursery.event_loops import running_loop
from seamless_remote.transport.connection import Connection, State
from seamless_remote.transport.messages import Request
from seamless_remote.transport.own_socket import OwnSocket
from seamless_remote.transport.parsing import MAX_HEAD, AnswerParser
from seamless_remote.transport.socket_io import SocketIO, Traffic
from seamless_remote.transport.transport import Transport
from seamless_remote.transport.urls import Origin

pytestmark = pytest.mark.anyio

CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
MALFORMED = {
    "no http": b"SSH-2.0-OpenSSH_9.6\r\n",
    "garbage": bytes(range(256)),
    "http/2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status": b"HTTP/1.1 20x OK\r\n\r\n",
    "one length too many": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nab",
    "negative length": OK + b"Content-Length: -2\r\n\r\nab",
    "huge length": OK + b"Content-Length: 99999999999999999999999\r\n\r\nab",
    "length and chunks": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    "header": OK + b"no colon here\r\n\r\n",
    "folded header": OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "chunk size": CHUNKED + b"xyz\r\nab\r\n",
    "chunk end": CHUNKED + b"2\r\nabcd\r\n",
    "upgrade": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc",
    "bare 101": b"HTTP/1.1 101 Switching\r\n\r\n",
    "too many interim": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 30,
    "too long": OK + b"Content-Length: 2\r\n\r\nabc",
    "two answers": (OK + b"Content-Length: 0\r\n\r\n") * 2,
    "body of none": b"HTTP/1.1 204 No Content\r\n\r\nabc",
    "cut head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "cut body": OK + b"Content-Length: 5\r\n\r\nab",
    "cut chunk": CHUNKED + b"5\r\nab",
    "no last chunk": CHUNKED + b"2\r\nab\r\n",
    "cut large body": OK + b"Content-Length: 500000\r\n\r\nab",
    "large body too long": OK + b"Content-Length: 100000\r\n\r\n" + b"a" * 100_001,
    "oversized head": OK + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 990) for n in range(300)),
    "oversized header": OK + b"X: " + b"a" * 300_000,
}
INTERIM = b"HTTP/1.1 103 Early Hints\r\n\r\n"
WITHOUT_END = {
    "interim answers": (INTERIM, INTERIM),
    "head": (OK, b"X-Header: 1\r\n"),
    "trailers": (CHUNKED + b"2\r\nab\r\n0\r\n", b"X-Trailer: 1\r\n"),
    "chunk extension": (CHUNKED + b"2;x=", b"y"),
}


@both_schemes
@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_no_answer_of_the_announced_shape_is_a_protocol_error(
    serve: Serve, transport: Transport, data: bytes
) -> None:
    server = serve(says_and_closes(data), echo)
    with pytest.raises(ProtocolError) as caught:
        await get(transport, server)
    assert str(server.origin) in str(caught.value)
    assert await get(transport, server, None, bound=1) == b"hello"
    assert server.accepted == 2


@both_schemes
@pytest.mark.parametrize(("begin", "go_on"), WITHOUT_END.values(), ids=WITHOUT_END.keys())
async def test_an_answer_that_goes_on_for_ever_without_a_body_is_a_protocol_error(
    serve: Serve, transport: Transport, begin: bytes, go_on: bytes
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(begin)
        while True:
            peer.send(go_on * 1000)

    with pytest.raises(ProtocolError):
        await get(transport, serve(script))


@both_schemes
@pytest.mark.parametrize("whole", [0, 1, 17, 40, 42], ids=lambda n: f"after-{n}-bytes")
async def test_an_answer_cut_anywhere_is_an_exchange_error(
    serve: Serve, transport: Transport, whole: int
) -> None:
    answer = OK + b"Content-Length: 5\r\n\r\nabcde"
    server = serve(says_and_closes(answer[:whole]), echo)
    with pytest.raises(ExchangeError):
        await ask(transport, server)


@pytest.mark.parametrize("scheme", ["https"], indirect=True)
@pytest.mark.parametrize("body", [b"", b"abc", b"a" * 500_000], ids=["empty", "small", "big"])
async def test_a_body_that_ends_with_the_stream_and_without_tls_goodbye_was_cut(
    serve: Serve, transport: Transport, body: bytes
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK + b"\r\n" + body)
        peer.cut()

    with pytest.raises(ExchangeError, match="broke off in the answer"):
        await get(transport, serve(script))


# Any bytes: without a network, and through a connection.

PARTS = st.sampled_from(
    [*MALFORMED.values(), OK, b"\r\n", b"\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", CHUNKED]
) | st.sampled_from([b"Content-Length: 3\r\n", b"0\r\n\r\n", b"abc", b"HTTP/1.", b"\xff\x00"])
ANSWERS = st.lists(PARTS | st.binary(max_size=40), max_size=6).map(b"".join) | st.binary()


@given(data=ANSWERS, steps=st.lists(st.integers(1, 300), min_size=1, max_size=5))
@settings(deadline=None)
def test_whatever_the_parser_is_fed_its_only_error_is_a_protocol_error(
    data: bytes, steps: list[int]
) -> None:
    parser = AnswerParser()
    place = turn = 0
    try:
        while place < len(data) and not parser.complete:
            piece = data[place : place + steps[turn % len(steps)]]
            if parser.bypassed:
                parser.pass_over(len(piece))
            else:
                parser.feed(piece)
            place, turn = place + len(piece), turn + 1
        if not parser.complete:
            parser.end()
    except ProtocolError:
        pass
    else:
        assert 200 <= parser.status <= 999
        assert parser.head_complete
    finally:
        parser.discard()


async def answer_of(here: OwnSocket, ended: list[Connection]) -> bytes:
    connection = Connection(SocketIO(here, Traffic()), Origin("http", "host", 80), ended.append)
    response = await connection.exchange(Request("GET", "/"), running_loop(), 60)
    if response.has_all:
        ended.append(connection)
    return await response.read(1 << 20)


@given(data=ANSWERS)
@settings(deadline=None, max_examples=60)
async def test_whatever_a_server_says_is_an_answer_or_an_exchange_error(data: bytes) -> None:
    here, there = socket.socketpair()
    own = OwnSocket(fileno=here.detach())
    own.setblocking(False)
    ended: list[Connection] = []
    with own, there:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
        there.sendall(data)
        there.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ExchangeError):
            await answer_of(own, ended)
        for connection in ended:
            assert connection.state in (State.IDLE, State.CLOSED)
            connection.close()


def parse(head: bytes, step: int = 1 << 20) -> Any:
    parser = AnswerParser()
    for start in range(0, len(head), step):
        parser.feed(head[start : start + step])
    parser.discard()
    return parser


TOKEN = st.text("!#$%&'*+-.^_`|~0123456789abcXYZ", min_size=1, max_size=20)
VALUE = st.binary(max_size=60).map(lambda raw: bytes(b for b in raw if b == 9 or 32 <= b != 127))


LAST = (b"Content-Length", b"0")


@given(headers=st.lists(st.tuples(TOKEN.map(str.encode), VALUE), max_size=20))
@settings(deadline=None)
def test_headers_come_in_order_with_any_bytes_in_their_values(
    headers: list[tuple[bytes, bytes]],
) -> None:
    framing = (b"content-length", b"transfer-encoding", b"connection", b"upgrade")
    sent = [(name, value) for name, value in headers if name.lower() not in framing]
    head = OK + b"".join(b"%b: %b\r\n" % each for each in sent) + b"Content-Length: 0\r\n\r\n"
    received = [(name, value.strip(b" \t")) for name, value in parse(head).headers]
    assert received == [*((name, value.strip(b" \t")) for name, value in sent), LAST]


@pytest.mark.parametrize("step", [1, 7, 1000, 1 << 20])
def test_a_head_of_the_longest_length_is_taken_however_it_is_cut(step: int) -> None:
    longest = OK + b"X: " + b"a" * (MAX_HEAD - len(OK) - 30) + b"\r\nContent-Length: 0\r\n\r\n"
    assert parse(longest, step).complete
