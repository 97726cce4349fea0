"""After a fork, the child has no socket of its parent's: not an idle one, nor one in use."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable

import anyio
import pytest
from exchanges import Serve, ask, both_schemes, call_here, get, pool_of, until
from scripted_server import Peer, answer_when_released

from seamless_remote.transport.messages import Request
from seamless_remote.transport.own_socket import abandon_after_fork
from seamless_remote.transport.transport import Transport
from seamless_remote.transport.urls import Origin

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def connections_to(port: int) -> int:
    """How many open sockets of this process are connected, or connecting, to `port`."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as sock:
                    count += sock.getpeername()[1:] == (port,)
    return count


def sockets() -> int:
    """How many sockets this process has."""
    links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    return sum(os.readlink(link).startswith("socket:") for link in links if os.path.islink(link))


async def holds_in_child(check: Callable[[], bool]) -> bool:
    """Fork, and say whether `check` is true in the child."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            abandon_after_fork()
            status = 0 if check() else 2
        finally:
            os._exit(status)
    _, result = await anyio.to_thread.run_sync(os.waitpid, child, 0)
    return os.waitstatus_to_exitcode(result) == 0


@both_schemes
async def test_a_forked_child_shares_no_connection_with_its_parent(
    serve: Serve, transport: Transport
) -> None:
    def script(peer: Peer) -> None:
        while True:
            path = peer.request()[0].split()[1]
            if path == b"/late":
                peer.server.requests.append(path)
                peer.wait()
            peer.answer(bytes(500_000) if path == b"/large" else path)

    server = serve(script)
    answers: list[bytes] = []

    async def late() -> None:
        answers.append(await get(transport, server, Request("GET", "/late")))

    async with anyio.create_task_group() as group:
        group.start_soon(late)
        await until(lambda: server.requests)
        assert await get(transport, server, Request("GET", "/idle")) == b"/idle"
        unread = await ask(transport, server, Request("GET", "/large"))
        assert await get(transport, server, Request("GET", "/idle")) == b"/idle"
        pending = await ask(transport, server, Request("GET", "/late"), patience=0.01)
        assert pending.is_pending
        assert await get(transport, server, Request("GET", "/idle")) == b"/idle"
        assert connections_to(server.port) == server.accepted == 4

        def check() -> bool:
            shared = connections_to(server.port)
            # What is ended here goes on in the parent.
            transport.close_idle()
            pending.abandon()
            unread.abandon()
            return shared == 0

        assert await holds_in_child(check)
        server.release()
        await pending.arrive()
        assert await pending.read(9) == b"/late"
        assert await unread.read(1 << 20) == bytes(500_000)
    assert answers == [b"/late"]
    assert await get(transport, server, Request("GET", "/idle")) == b"/idle"
    assert server.accepted == 4
    assert pool_of(transport).idle == 4


@pytest.mark.parametrize("stage", ["connecting", "shaking hands"])
async def test_a_forked_child_shares_no_connection_that_is_being_made(
    serve: Serve, deaf: Origin, transport: Transport, server_context: object, stage: str
) -> None:
    server = serve(answer_when_released)
    origin = server.origin._replace(scheme="https") if stage == "shaking hands" else deaf

    async def connect() -> None:
        request = Request("GET", "/")
        await transport.send(call_here(), request, origin, lane="x", read_timeout=60, bound=1)

    before = sockets()
    async with anyio.create_task_group() as group:
        group.start_soon(connect)
        await until(
            lambda: server.accepted == 1 if stage == "shaking hands" else sockets() > before
        )
        await anyio.wait_all_tasks_blocked()
        here = sockets()
        assert await holds_in_child(lambda: sockets() == here - 1)
        group.cancel_scope.cancel()
