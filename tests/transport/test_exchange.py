"""What one exchange promises, whatever the server does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import sniffio
import trio
from scripted_server import Peer, Script, ScriptedServer, echo
from trio.testing import MockClock

from seamless_remote.errors import ConnectError, ExchangeError, ProtocolError, ServiceTimeout
from seamless_remote.transport import Request, Response, StreamBody, Transport

pytestmark = pytest.mark.anyio
Serve = Callable[..., ScriptedServer]

BIG = b"0123456789abcdef" * (1 << 19)  # 8 MiB: more than the kernel's buffers take at once
GET = Request("GET", "/x")


async def ask(
    transport: Transport, server: ScriptedServer, request: Request = GET, timeout: float = 20
) -> Response:
    return await transport.send(request, server.origin, lane="test", read_timeout=timeout)


def says(data: bytes) -> Script:
    def script(peer: Peer) -> None:
        while True:
            peer.request()
            peer.send(data)

    return script


def says_and_closes(data: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(data)

    return script


def assert_nothing_in_use(transport: Transport) -> None:
    for pool in transport.statistics().pools.values():
        assert pool.in_use == 0
        assert pool.waiting == 0


async def test_an_answer_comes_back_whole(serve: Serve, transport: Transport) -> None:
    server = serve()
    response = await ask(
        transport, server, Request("PUT", "/a?b", (("X-One", "1"),), b"some bytes")
    )
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
    await transport.aclose()


async def test_a_connection_serves_again_after_each_kind_of_whole_answer(
    serve: Serve, transport: Transport
) -> None:
    answers = {
        "/small": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
        "/empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "/none": b"HTTP/1.1 204 No Content\r\n\r\n",
        "/same": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n",
        "/interim": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
        "/large": b"HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\n\r\n" + BIG,
        "/moved": b"HTTP/1.1 302 Found\r\nLocation: /small\r\nContent-Length: 0\r\n\r\n",
    }
    bodies = {"/small": b"ab", "/chunked": b"abcde", "/interim": b"ab", "/large": BIG}

    def script(peer: Peer) -> None:
        while True:
            peer.send(answers[peer.request()[0].split()[1].decode()])

    server = serve(script)
    for _ in range(2):
        for path in answers:
            response = await ask(transport, server, Request("GET", path))
            assert await response.read(1 << 24) == bodies.get(path, b"")
    assert server.accepted == 1
    await transport.aclose()


async def test_head_answers_have_no_body(serve: Serve, transport: Transport) -> None:
    server = serve(
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n"),
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    )
    for _ in range(3):
        response = await ask(transport, server, Request("HEAD", "/"))
        assert response.content_length == 5000000
        assert await response.read(0) == b""
    assert server.accepted == 1
    await transport.aclose()


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200 OK\r\nConnection: close\r\n", b"HTTP/1.1 200 OK\r\n"],
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
    await transport.aclose()


@pytest.mark.parametrize(
    "head", [b"HTTP/1.0 200 OK", b"HTTP/1.1 200 OK\r\nConnection: close"], ids=["1.0", "close"]
)
async def test_a_connection_that_is_to_close_is_not_reused(
    serve: Serve, transport: Transport, head: bytes
) -> None:
    server = serve(says(head + b"\r\nContent-Length: 1\r\n\r\na"))
    for count in (1, 2):
        assert await (await ask(transport, server)).read(9) == b"a"
        assert server.accepted == count
    await transport.aclose()


OK = b"HTTP/1.1 200 OK\r\n"
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
    "chunk size": OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nab\r\n",
    "chunk end": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n",
    "upgrade": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc",
    "bare 101": b"HTTP/1.1 101 Switching\r\n\r\n",
    "too many interim": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 30,
    "too long": OK + b"Content-Length: 2\r\n\r\nabc",
    "two answers": (OK + b"Content-Length: 0\r\n\r\n") * 2,
    "body of none": b"HTTP/1.1 204 No Content\r\n\r\nabc",
    "cut head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "cut body": OK + b"Content-Length: 5\r\n\r\nab",
    "cut chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    "no last chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
    "cut large body": OK + b"Content-Length: 500000\r\n\r\nab",
    "large body too long": OK + b"Content-Length: 100000\r\n\r\n" + b"a" * 100001,
    "oversized head": OK + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 990) for n in range(300)),
    "oversized header": OK + b"X: " + b"a" * 300000,
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_no_answer_of_the_announced_shape_is_a_protocol_error(
    serve: Serve, transport: Transport, data: bytes
) -> None:
    server = serve(says_and_closes(data), echo)
    with pytest.raises(ProtocolError) as caught:
        await (await ask(transport, server)).read(1 << 20)
    assert str(server.origin) in str(caught.value)
    assert_nothing_in_use(transport)
    assert await (await ask(transport, server)).read(9) == b"hello"
    assert server.accepted == 2
    await transport.aclose()


async def test_a_body_after_a_head_answer_is_a_protocol_error(
    serve: Serve, transport: Transport
) -> None:
    server = serve(says(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"))
    with pytest.raises(ProtocolError):
        await ask(transport, server, Request("HEAD", "/"))
    assert_nothing_in_use(transport)
    await transport.aclose()


@pytest.mark.parametrize("whole", [0, 1, 17, 40, 42], ids=lambda n: f"after-{n}-bytes")
async def test_an_answer_cut_anywhere_is_an_exchange_error(
    serve: Serve, transport: Transport, whole: int
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde"
    server = serve(says_and_closes(answer[:whole]), echo)
    with pytest.raises(ExchangeError):
        await ask(transport, server)
    assert_nothing_in_use(transport)
    await transport.aclose()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 2", OK + b"Content-Length: 9\r\n\r\nab"])
async def test_a_reset_is_an_exchange_error(
    serve: Serve, transport: Transport, sent: bytes
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(sent)
        peer.reset()

    server = serve(script)
    with pytest.raises(ExchangeError):
        await ask(transport, server)
    assert_nothing_in_use(transport)
    await transport.aclose()


async def test_nobody_listening_is_a_connect_error_with_the_cause(
    serve: Serve, transport: Transport
) -> None:
    server = serve()
    server.close()
    with pytest.raises(ConnectError, match=r"127\.0\.0\.1.*refused"):
        await ask(transport, server)
    assert_nothing_in_use(transport)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_localhost_is_found_where_only_one_family_listens(
    serve: Serve, transport: Transport, host: str
) -> None:
    server = serve(host=host)
    origin = server.origin._replace(host="localhost")
    response = await transport.send(GET, origin, lane="a", read_timeout=9)
    assert await response.read(9) == b"hello"
    await transport.aclose()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200",
        OK + b"Content-Length: 5\r\n\r\nab",
        OK + b"Content-Length: 500000\r\n\r\nab",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab",
    ],
)
async def test_silence_is_a_service_timeout(
    serve: Serve, transport: Transport, said: bytes
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(said)
        peer.wait_for_end()

    server = serve(script)
    with pytest.raises(ServiceTimeout, match=r"silent for 0\.05 s"):
        await (await ask(transport, server, timeout=0.05)).read(1 << 20)
    assert_nothing_in_use(transport)
    await transport.aclose()


def test_read_timeouts_hold_in_a_loop_that_is_asyncios_alone(serve: Serve) -> None:
    """Nothing tells libraries there which backend it is, in a callback of the loop least of all."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK + b"Content-Length: 5\r\n\r\nab")
        peer.wait_for_end()

    async def main(server: ScriptedServer) -> None:
        transport = Transport(connect_timeout=5, max_connections=4, idle_lifetime=60)
        with pytest.raises(ServiceTimeout, match=r"silent for 0\.05 s"):
            await ask(transport, server, timeout=0.05)
        await transport.aclose()

    asyncio.run(main(serve(script)))


@pytest.mark.parametrize(
    "said",
    [b"", OK + b"Content-Length: 5\r\n\r\nab", OK + b"Content-Length: 500000\r\n\r\nab", None],
    ids=["no head", "small body", "large body", "upload not read"],
)
async def test_one_task_keeps_the_timeouts_of_all_requests(
    serve: Serve, transport: Transport, said: bytes | None
) -> None:
    def silent(peer: Peer) -> None:
        if said is not None:
            peer.request()
            peer.send(said)
        peer.wait()

    def late(peer: Peer) -> None:
        peer.request()
        peer.server.reached.set()
        peer.wait()
        peer.answer(b"late")

    slow, server = serve(late), serve(silent, echo)
    answers: list[bytes] = []

    async def ask_slow() -> None:
        answers.append(await (await ask(transport, slow)).read(9))

    async with anyio.create_task_group() as group:
        group.start_soon(transport.keep_timeouts)
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as asking:
            asking.start_soon(ask_slow)
            while not slow.reached.is_set():
                await anyio.lowlevel.checkpoint()
            # A deadline sooner than the one that is slept for.
            request = Request("PUT", "/", body=BIG if said is None else b"x")
            with pytest.raises(ServiceTimeout, match=r"silent for 0\.05 s"):
                await (await ask(transport, server, request, 0.05)).read(1 << 20)
            slow.release()
        assert answers == [b"late"]
        assert await (await ask(transport, server)).read(9) == b"hello"
        assert_nothing_in_use(transport)
        group.cancel_scope.cancel()
    await transport.aclose()


class LoopTime:
    """The running loop's time, which a test can put forward. On trio its clock must be a mock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._forward = 0.0
        if sniffio.current_async_library() == "trio":
            self._clock: Any = trio.lowlevel.current_clock()
        else:
            loop = asyncio.get_running_loop()
            self._clock, time = None, loop.time
            monkeypatch.setattr(loop, "time", lambda: time() + self._forward)

    async def passes(self, seconds: float) -> None:
        """Let so much pass at once; what that brings about has happened when this returns."""
        if self._clock is not None:
            self._clock.jump(seconds)
        else:
            self._forward += seconds
        for _ in range(20):
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    "anyio_backend", ["asyncio", ("trio", {"clock": MockClock(rate=1.0)})], ids=["asyncio", "trio"]
)
@pytest.mark.parametrize("watched", [False, True])
async def test_the_time_that_a_stream_takes_is_not_the_servers_silence(
    serve: Serve, transport: Transport, watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeout = 20.0
    time = LoopTime(monkeypatch)

    async def slow() -> AsyncIterator[bytes]:
        yield b"abc"
        await time.passes(2 * timeout)
        yield b"def"

    server = serve()
    async with anyio.create_task_group() as group:
        if watched:
            group.start_soon(transport.keep_timeouts)
            await anyio.wait_all_tasks_blocked()
        request = Request("PUT", "/", body=StreamBody(6, slow))
        assert await (await ask(transport, server, request, timeout)).read(9) == b"abcdef"
        group.cancel_scope.cancel()
    await transport.aclose()


async def test_a_server_that_does_not_read_an_upload_is_a_service_timeout(
    serve: Serve, transport: Transport
) -> None:
    server = serve(lambda peer: peer.wait())
    with pytest.raises(ServiceTimeout, match="taking in the request"):
        await ask(transport, server, Request("PUT", "/", body=BIG), timeout=0.05)
    assert_nothing_in_use(transport)
    await transport.aclose()


async def chunks_of(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("kind", ["bytes", "view", "stream", "stream in one piece"])
@pytest.mark.parametrize("size", [0, 1, 65536, 65537, len(BIG)])
async def test_an_upload_arrives_whole(
    serve: Serve, transport: Transport, kind: str, size: int
) -> None:
    data = BIG[:size]
    step = 100_000 if kind == "stream" else len(BIG)
    parts = [data[start : start + step] for start in range(0, size, step)]
    body = {
        "bytes": data,
        "view": memoryview(bytearray(data)),
        "stream": StreamBody(size, lambda: chunks_of(*parts)),
        "stream in one piece": StreamBody(size, lambda: chunks_of(*parts)),
    }[kind]
    server = serve()
    for _ in range(2):
        response = await ask(transport, server, Request("PUT", "/", body=body))
        assert await response.read(len(BIG)) == (data or b"hello")
    assert server.bodies == [data, data]
    assert server.accepted == 1
    await transport.aclose()


@pytest.mark.parametrize("parts", [(b"abc",), (b"abcde", b"f"), ()])
async def test_a_stream_of_another_length_than_announced_is_a_value_error(
    serve: Serve, transport: Transport, parts: tuple[bytes, ...]
) -> None:
    server = serve()
    body = StreamBody(5, lambda: chunks_of(*parts))
    with pytest.raises(ValueError, match="5 bytes was announced"):
        await ask(transport, server, Request("PUT", "/", body=body))
    assert_nothing_in_use(transport)
    await transport.aclose()


async def test_an_error_of_the_stream_passes_through_as_it_is(
    serve: Serve, transport: Transport
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"abc"
        raise OSError("disk gone")

    server = serve()
    with pytest.raises(OSError, match="disk gone"):
        await ask(transport, server, Request("PUT", "/", body=StreamBody(9, broken)))
    assert_nothing_in_use(transport)
    await transport.aclose()


@pytest.mark.parametrize("status", ["201 Created", "413 Too Large"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("end", ["stay", "close", "reset"])
async def test_an_answer_before_the_end_of_the_upload_is_delivered(
    serve: Serve, transport: Transport, status: str, streamed: bool, end: str
) -> None:
    closed_generators = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            closed_generators.append(1)

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
    body = StreamBody(1 << 40, endless) if streamed else BIG * 8
    if end == "close":
        # Closing with unread bytes makes a RST, which may destroy the answer on its way.
        try:
            response = await ask(transport, server, Request("PUT", "/", body=body))
        except ExchangeError:
            response = None
    else:
        response = await ask(transport, server, Request("PUT", "/", body=body))
    if response is not None:
        assert response.status == int(status[:3])
        assert await response.read(9) == b"early"
    assert_nothing_in_use(transport)
    assert closed_generators == ([1] if streamed else [])
    server.release()
    assert await (await ask(transport, server)).read(9) == b"hello"
    assert server.accepted == 2
    await transport.aclose()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_body_waits_for_100_and_then_goes_out(
    serve: Serve, transport: Transport, streamed: bool
) -> None:
    early: list[bytes] = []

    def script(peer: Peer) -> None:
        while True:
            head = peer.head()
            assert b"Expect: 100-continue" in head
            early.append(peer.buffer)
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            peer.answer(peer.exactly(5))

    server = serve(script)
    body = StreamBody(5, lambda: chunks_of(b"ab", b"cde")) if streamed else b"abcde"
    for _ in range(2):
        response = await ask(
            transport, server, Request("PUT", "/", body=body, expect_continue=True)
        )
        assert await response.read(9) == b"abcde"
    assert early == [b"", b""]
    assert server.accepted == 1
    await transport.aclose()


@pytest.mark.parametrize("status", ["201 Created", "417 Expectation Failed"])
async def test_after_a_final_answer_instead_of_100_the_body_stays_here(
    serve: Serve, transport: Transport, status: str
) -> None:
    after: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.head()
        peer.answer(b"no need", status)
        after.append(peer.sock.recv(100))
        peer.server.reached.set()

    server = serve(script, echo)
    request = Request("PUT", "/", body=b"abcde", expect_continue=True)
    response = await ask(transport, server, request)
    assert response.status == int(status[:3])
    assert await response.read(9) == b"no need"
    assert server.reached.wait(20)
    assert after == [b""]
    assert await (await ask(transport, server)).read(9) == b"hello"
    await transport.aclose()


async def test_a_server_that_knows_no_100_gets_the_body_all_the_same(
    serve: Serve, transport: Transport
) -> None:
    server = serve()
    request = Request("PUT", "/", body=b"abcde", expect_continue=True)
    assert await (await ask(transport, server, request)).read(9) == b"abcde"
    await transport.aclose()


async def test_a_body_over_the_limit_is_a_protocol_error(
    serve: Serve, transport: Transport
) -> None:
    chunked = b"".join(b"5\r\nabcde\r\n" for _ in range(100000)) + b"0\r\n\r\n"
    server = serve(
        says(OK + b"Content-Length: 3\r\n\r\nabc"),
        says(OK + b"Content-Length: 800000\r\n\r\n" + bytes(800000)),
        says(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunked),
    )
    limits = [2, 799999, 499999]
    for limit in limits:
        with pytest.raises(ProtocolError, match=f"longer than {limit} bytes"):
            await (await ask(transport, server)).read(limit)
        assert_nothing_in_use(transport)
        await transport.aclose()
        transport = Transport(connect_timeout=5, max_connections=4, idle_lifetime=60)


async def test_an_unread_response_frees_its_place_when_closed(
    serve: Serve, transport: Transport
) -> None:
    server = serve(says(OK + b"Content-Length: 8388608\r\n\r\n" + BIG))
    for _ in range(10):
        async with await ask(transport, server) as response:
            assert await response.fill(memoryview(bytearray(100))) == 100
    assert_nothing_in_use(transport)
    async with await ask(transport, server) as response:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await response.read(1 << 24)
        assert_nothing_in_use(transport)
        with pytest.raises(ExchangeError):
            await response.read(1 << 24)
    await transport.aclose()


@pytest.mark.parametrize("target", ["/a b", "/a\r\nX: y", "/a\nb", "/\u00e9"])
async def test_a_request_that_would_be_malformed_is_a_value_error(
    serve: Serve, transport: Transport, target: str
) -> None:
    server = serve()
    with pytest.raises(ValueError, match=r"characters|ordinal"):
        await ask(transport, server, Request("GET", target))
    with pytest.raises(ValueError, match="characters"):
        await ask(transport, server, Request("GET", "/", (("A", "b\r\nC: d"),)))
    assert_nothing_in_use(transport)
    await transport.aclose()


async def cancel_when(event: threading.Event, scope: anyio.CancelScope) -> None:
    while not event.is_set():
        await anyio.lowlevel.checkpoint()
    scope.cancel()


@pytest.mark.parametrize(
    ("request_body", "said"),
    [
        (b"x", b""),
        (b"x", b"HTTP/1.1 200"),
        (b"x", OK + b"Content-Length: 5\r\n\r\nab"),
        (b"x", OK + b"Content-Length: 500000\r\n\r\nab"),
        (BIG * 4, None),
        (StreamBody(1 << 30, lambda: chunks_of(*[BIG] * 9)), None),
    ],
    ids=["head", "in head", "small body", "large body", "sending", "streaming"],
)
async def test_cancelling_at_any_stage_frees_the_place_and_drops_the_connection(
    serve: Serve, request_body: bytes | StreamBody, said: bytes | None
) -> None:
    def script(peer: Peer) -> None:
        if said is None:
            peer.head()
        else:
            peer.request()
            peer.send(said)
        peer.server.reached.set()
        peer.wait()

    transport = Transport(connect_timeout=5, max_connections=1, idle_lifetime=60)
    server = serve(script, echo)
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(cancel_when, server.reached, scope)
            request = Request("PUT", "/", body=request_body, safe=True)
            await (await ask(transport, server, request)).read(1 << 20)
    assert scope.cancelled_caught
    assert_nothing_in_use(transport)
    assert await (await ask(transport, server)).read(9) == b"hello"
    assert server.accepted == 2
    await transport.aclose()


@pytest.mark.parametrize(
    "request_", [Request("GET", "/"), Request("PUT", "/"), Request("PUT", "/", safe=True)]
)
async def test_a_cancelled_caller_sends_nothing_that_may_change_anything(
    request_: Request, serve: Serve, transport: Transport
) -> None:
    server = serve()
    await (await ask(transport, server)).read(9)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await ask(transport, server, request_)
    assert scope.cancelled_caught
    await (await ask(transport, server)).read(9)
    assert len(server.requests) == 2
    assert server.accepted == 1
    await transport.aclose()
