"""Tunnels through a proxy: opened to the byte, or refused in its own words."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scripted_server import Peer, Script, ScriptedServer

from seamless_remote.transport.dialing import dial
from seamless_remote.transport.proxy import open_tunnel

pytestmark = pytest.mark.anyio
Serve = Callable[..., ScriptedServer]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    here.setblocking(False)
    with here, there:
        yield here, there


def says(*pieces: bytes, then: Script = Peer.wait_for_end) -> Script:
    """A proxy that reads the request, answers, and does `then`."""

    def script(peer: Peer) -> None:
        peer.server.requests.append(peer.head())
        for piece in pieces:
            peer.send(piece)
        then(peer)

    return script


@pytest.mark.parametrize(
    ("host", "target"),
    [("example.org", b"example.org:443"), ("10.0.0.1", b"10.0.0.1:443"), ("::1", b"[::1]:443")],
)
async def test_a_proxy_is_asked_for_host_and_port(serve: Serve, host: str, target: bytes) -> None:
    server = serve(says(b"HTTP/1.1 200 Connection established\r\n\r\n"))
    with await dial("127.0.0.1", server.port) as sock:
        await open_tunnel(sock, "proxy", host, 443)
    assert server.requests == [b"CONNECT %s HTTP/1.1\r\nHost: %s" % (target, target)]


async def test_a_tunnel_is_open_in_both_directions(serve: Serve) -> None:
    def echo(peer: Peer) -> None:
        peer.send(peer.exactly(5))

    server = serve(says(b"HTTP/1.1 200 OK\r\n\r\n", then=echo))
    with await dial("127.0.0.1", server.port) as sock:
        await open_tunnel(sock, "proxy", "a", 1)
        sock.send(b"hello")
        await anyio.wait_readable(sock)
        assert sock.recv(100) == b"hello"


HEADERS = st.lists(st.sampled_from([b"Via: 1.1 x", b"X-Empty:", b"a: " + b"b" * 200]))


@given(
    headers=HEADERS,
    end=st.sampled_from([b"\r\n", b"\n"]),
    rest=st.binary(),
    cuts=st.sets(st.integers(0, 300), max_size=8),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_not_a_byte_of_the_server_is_lost_however_the_answer_comes_in_pieces(
    headers: list[bytes], end: bytes, rest: bytes, cuts: set[int]
) -> None:
    answer = end.join([b"HTTP/1.0 200 OK", *headers, b"", rest])
    starts = [0, *sorted(cuts)]
    here, there = socket.socketpair()
    here.setblocking(False)

    async def answer_in_pieces() -> None:
        for start, stop in zip(starts, [*starts[1:], len(answer)], strict=True):
            there.send(answer[start:stop])
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
        there.shutdown(socket.SHUT_WR)

    with here, there:
        async with anyio.create_task_group() as group:
            group.start_soon(answer_in_pieces)
            await open_tunnel(here, "proxy", "a", 1)
        received = b""
        while piece := here.recv(65536):
            received += piece
        assert received == rest


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\nno", "it answered 403 Forbidden"),
        (
            b"HTTP/1.0 407 Proxy  Authentication Required \r\nA: b\r\n\r\n",
            "407 Proxy Auth.* Required",
        ),
        (b"HTTP/1.1 502\r\n\r\n", "it answered 502"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", r"it answered b'SSH-2.0-OpenSSH\\r\\n"),
        (b"\r\n\r\n", "it answered b"),
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\n", "closed the connection within its answer"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 16384, "no end within 16384 bytes"),
    ],
)
async def test_a_refused_tunnel_says_what_the_proxy_said(
    pair: tuple[socket.socket, socket.socket], answer: bytes, told: str
) -> None:
    here, there = pair
    there.sendall(answer)
    there.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionError, match=f"^no tunnel to a:1 by proxy its-name: .*{told}"):
        await open_tunnel(here, "its-name", "a", 1)
    assert here.fileno() == -1


async def test_a_proxy_that_resets_the_connection_ends_the_wait(serve: Serve) -> None:
    def reset(peer: Peer) -> None:
        peer.wait()
        peer.head()
        peer.reset()

    async def fail(sock: socket.socket) -> None:
        with pytest.raises(ConnectionError, match="by proxy its-name: Connection reset by peer"):
            await open_tunnel(sock, "its-name", "a", 1)

    server = serve(reset)
    async with anyio.create_task_group() as group:
        group.start_soon(fail, await dial("127.0.0.1", server.port))
        await anyio.wait_all_tasks_blocked()
        server.release()


async def test_a_cancelled_tunnel_closes_the_socket(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, _ = pair
    async with anyio.create_task_group() as group:
        group.start_soon(open_tunnel, here, "proxy", "a", 1)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert here.fileno() == -1


async def test_a_proxy_that_does_not_read_is_waited_for(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pair
    filling = 0
    try:
        while True:
            filling += here.send(b"x" * 4096)
    except BlockingIOError:
        pass
    async with anyio.create_task_group() as group:
        group.start_soon(open_tunnel, here, "proxy", "a", 1)
        await anyio.wait_all_tasks_blocked()
        there.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while filling:
            filling -= len(there.recv(filling))
        assert await anyio.to_thread.run_sync(there.recv, 100) == (
            b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"
        )


@given(host=st.text())
@example("a b")
@example("a\r\nc: d")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_odd_hosts_give_an_oserror_or_the_request_that_was_meant(host: str) -> None:
    here, there = socket.socketpair()
    here.setblocking(False)
    there.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    with here, there:
        with contextlib.suppress(OSError):
            await open_tunnel(here, "proxy", host, 1)
        sent = b""
        # Reset, because the answer was left unread.
        with contextlib.suppress(ConnectionResetError, BlockingIOError):
            there.setblocking(False)
            sent = there.recv(1 << 16)
        assert sent.count(b"\n") == sent.count(b"\r") == (3 if sent else 0)
