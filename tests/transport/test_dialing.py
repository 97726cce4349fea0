"""Dialing: the first address that answers, and no socket left behind."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import anyio
import pytest
from scripted_server import Peer, ScriptedServer, open_sockets

from seamless_remote.transport import dialing
from seamless_remote.transport.dialing import dial
from seamless_remote.transport.name_lookup import Address
from seamless_remote.transport.own_socket import OwnSocket

pytestmark = pytest.mark.anyio
Serve = Callable[..., ScriptedServer]
V4, V6 = socket.AF_INET, socket.AF_INET6


def quiet(peer: Peer) -> None:
    peer.wait_for_end()


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says which addresses every name has."""

    def to(*addresses: Address) -> None:
        async def look_up(host: str, port: int) -> Sequence[Address]:
            await anyio.lowlevel.checkpoint()
            return addresses

        monkeypatch.setattr(dialing, "look_up", look_up)

    return to


@pytest.fixture
def refusing() -> Iterator[int]:
    """A port at which nobody listens, and nobody will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


class Silent:
    """A listener whose queue is full: it leaves further connections unanswered."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port: int = self.listener.getsockname()[1]
        self.queued = socket.create_connection(("127.0.0.1", self.port))

    def refuse(self) -> None:
        """Go away: the kernel's next attempt to connect, within a second, is refused."""
        self.queued.close()
        self.listener.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    silent = Silent()
    yield silent
    silent.refuse()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_dialed_socket_is_ready_for_requests(serve: Serve, host: str) -> None:
    server = serve(quiet, host=host)
    with await dial(host, server.port) as sock:
        assert sock.getpeername()[:2] == (host, server.port)
        assert not sock.getblocking()
        assert not sock.get_inheritable()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_localhost_is_either_loopback_address(serve: Serve, refusing: int) -> None:
    server = serve(quiet)
    with await dial("localhost", server.port) as sock:
        assert sock.getpeername() == ("127.0.0.1", server.port)
    # Nobody listens at that port of 127.0.0.1.
    with (
        socket.create_server(("::1", refusing), family=V6),
        await dial("localhost", refusing) as sock,
    ):
        assert sock.getpeername()[:2] == ("::1", refusing)


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="the platform has none")
async def test_a_vanished_peer_is_noticed_after_two_minutes(serve: Serve) -> None:
    with await dial("127.0.0.1", serve(quiet).port) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, interval, count = (
            sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        )
        assert idle + interval * count == 120


async def test_where_nobody_listens_the_connection_is_refused(refusing: int) -> None:
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(ConnectionRefusedError) as caught:
            await dial(host, refusing)
        assert caught.value.strerror == "Connection refused"


@pytest.mark.parametrize("names", [1, 2])
async def test_a_refusal_that_comes_late_ends_the_wait(
    silent: Silent, resolve: Callable[..., None], names: int
) -> None:
    addresses = [(V4, (f"127.0.0.{1 + number}", silent.port)) for number in range(names)]
    resolve(*addresses)
    refused: list[OSError] = []

    async def be_refused() -> None:
        with pytest.raises(ConnectionRefusedError) as caught:
            await dial("name", silent.port)
        refused.append(caught.value)

    async with anyio.create_task_group() as group:
        group.start_soon(be_refused)
        await anyio.wait_all_tasks_blocked()
        assert not refused
        silent.refuse()
    assert refused


async def test_an_address_that_refuses_or_is_silent_does_not_keep_from_the_next(
    serve: Serve, resolve: Callable[..., None], refusing: int, silent: Silent
) -> None:
    server = serve(quiet)
    good = V4, ("127.0.0.1", server.port)
    for bad in (refusing, silent.port):
        resolve((V4, ("127.0.0.1", bad)), good)
        with await dial("name", 80) as sock:
            assert sock.getpeername() == good[1]


async def test_families_are_tried_in_turn_beginning_with_the_resolvers_first(
    monkeypatch: pytest.MonkeyPatch, resolve: Callable[..., None]
) -> None:
    tried: list[Any] = []

    def refuse(address: Address) -> socket.socket:
        tried.append(address)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "no")

    monkeypatch.setattr(dialing, "_begin", refuse)
    six = [(V6, (f"::{number}", 80, 0, 0)) for number in range(1, 4)]
    four = [(V4, ("127.0.0.1", 80))]
    for given, order in (
        ([*six, *four], [six[0], four[0], six[1], six[2]]),
        ([*four, *six], [four[0], *six]),
        (four, four),
    ):
        resolve(*given)
        tried.clear()
        with pytest.raises(ConnectionRefusedError):
            await dial("name", 80)
        assert tried == order


async def test_where_addresses_fail_in_different_ways_each_way_is_told_once(
    resolve: Callable[..., None], refusing: int
) -> None:
    nobody = V4, ("127.0.0.1", refusing)
    not_an_address = V4, ("255.255.255.255", 80)
    resolve(nobody, not_an_address, nobody)
    with pytest.raises(OSError, match=r"^Connection refused; ") as caught:
        await dial("name", 80)
    assert str(caught.value).count("refused") == 1


async def test_attempts_that_are_overtaken_are_given_up(
    serve: Serve,
    silent: Silent,
    resolve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[socket.socket] = []
    begin = dialing._begin

    def recorded(address: Address) -> socket.socket:
        begun.append(begin(address))
        return begun[-1]

    monkeypatch.setattr(dialing, "_begin", recorded)
    good = V4, ("127.0.0.1", serve(quiet).port)
    resolve((V4, ("127.0.0.1", silent.port)), (V4, ("127.0.0.1", silent.port)), good)
    with await dial("name", 80) as sock:
        assert [each for each in begun if each.fileno() != -1] == [sock]
    assert len(begun) == 3


async def test_a_cancelled_dial_leaves_no_socket(
    silent: Silent, resolve: Callable[..., None]
) -> None:
    for names in (1, 3):
        resolve(*[(V4, ("127.0.0.1", silent.port))] * names)
        before = open_sockets()
        async with anyio.create_task_group() as group:
            group.start_soon(dial, "name", 80)
            await anyio.wait_all_tasks_blocked()
            assert len(open_sockets() - before) >= 1
            group.cancel_scope.cancel()
        assert open_sockets() == before


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])
async def test_a_socket_that_is_connected_to_itself_counts_as_refused_and_frees_the_port(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    connected: list[Any] = []

    class Unlucky(OwnSocket):
        """Gets the port that it connects to for its own, as any socket may."""

        def connect_ex(self, target: Any) -> int:
            self.bind((host, 0))
            code = super().connect_ex(self.getsockname())
            assert self.getsockname() == self.getpeername()
            connected.append(self.getsockname())
            return code

    with monkeypatch.context() as patch:
        patch.setattr(dialing, "OwnSocket", Unlucky)
        with pytest.raises(ConnectionRefusedError):
            await dial(host, 80)
    [own] = connected
    with socket.socket(V6 if ":" in host else V4) as service:
        service.bind((host, own[1]))
        service.listen()


async def test_a_connection_that_is_reset_at_once_is_an_error_or_is_reported_when_used(
    serve: Serve,
) -> None:
    server = serve(Peer.reset)
    for _ in range(20):
        try:
            sock = await dial("127.0.0.1", server.port)
        except OSError:
            continue
        with sock:
            await anyio.wait_readable(sock)
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
