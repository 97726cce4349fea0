"""Waits for sockets that are not connections yet, on loops that go on and loops that end."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import anyio
import pytest
import trio
from scripted_server import open_sockets

from seamless_remote.transport import dialing
from seamless_remote.transport.dialing import dial
from seamless_remote.transport.name_lookup import Address
from seamless_remote.transport.proxy import open_tunnel
from seamless_remote.transport.socket_waits import readable, writable
from seamless_remote.transport.tls import client_context, handshake

Pair = tuple[socket.socket, socket.socket]


def new_pair() -> Pair:
    here, there = socket.socketpair()
    here.setblocking(False)
    return here, there


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = new_pair()
    with here, there:
        yield here, there


def fill(sock: socket.socket) -> None:
    try:
        while True:
            sock.send(b"x" * 65536)
    except BlockingIOError:
        return


@pytest.mark.anyio
async def test_a_wait_ends_when_the_socket_is_ready(pair: Pair) -> None:
    here, there = pair
    fill(here)
    ended: list[str] = []

    async def wait(ready: Callable[..., Coroutine[Any, Any, bool]], name: str) -> None:
        await ready(here)
        ended.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(wait, readable, "readable")
        group.start_soon(wait, writable, "writable")
        await anyio.wait_all_tasks_blocked()
        assert ended == []
        there.send(b"x")
        while ended != ["readable"]:
            await anyio.lowlevel.checkpoint()
        there.setblocking(False)
        try:
            while there.recv(65536):
                continue
        except BlockingIOError:
            pass


@pytest.mark.anyio
@pytest.mark.parametrize("ready", [readable, writable])
async def test_a_wait_ends_when_the_other_side_goes(
    pair: Pair, ready: Callable[..., Coroutine[Any, Any, bool]]
) -> None:
    here, there = pair
    fill(here)
    async with anyio.create_task_group() as group:
        group.start_soon(ready, here)
        await anyio.wait_all_tasks_blocked()
        there.close()


@pytest.mark.anyio
@pytest.mark.parametrize("ready", [readable, writable])
async def test_a_cancelled_wait_leaves_nothing_with_the_loop(
    pair: Pair, ready: Callable[..., Coroutine[Any, Any, bool]]
) -> None:
    here, there = pair
    fill(here)
    for _ in range(2):
        async with anyio.create_task_group() as group:
            group.start_soon(ready, here)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
    there.close()
    await ready(here)


@pytest.mark.anyio
async def test_a_wait_may_have_a_limit(pair: Pair) -> None:
    here, there = pair
    assert not await readable(here, 0.01)
    there.send(b"x")
    assert await readable(here, 60)
    assert await readable(here)
    assert await writable(here)


def test_a_loop_of_asyncio_within_a_trio_task_waits_as_any_other(
    pair: Pair,
) -> None:
    here, there = pair

    async def inner() -> None:
        assert not await readable(here, 0.01)
        there.send(b"x")
        assert await readable(here)
        assert await writable(here)
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            await dial("localhost", listener.getsockname()[1]),
        ):
            pass

    async def outer() -> None:
        asyncio.run(inner())

    trio.run(outer)


# A loop of asyncio may be closed, or dropped, with tasks waiting in it.


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    if kind == "asyncio":
        return asyncio.new_event_loop()
    uvloop = pytest.importorskip("uvloop")
    return uvloop.new_event_loop()  # type: ignore[no-any-return]


def leave_waiting(kind: str, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Close a loop while `work` waits in it."""

    async def until_it_waits(task: asyncio.Task[object]) -> None:
        await anyio.wait_all_tasks_blocked()
        assert not task.done()

    loop = new_loop(kind)
    task = loop.create_task(work())
    loop.run_until_complete(until_it_waits(task))
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("addresses", [1, 2])
def test_a_dial_in_a_loop_that_is_closed_leaves_no_socket(
    kind: str, addresses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look_up(host: str, port: int) -> list[Address]:
        return [(socket.AF_INET, listener.getsockname())] * addresses

    monkeypatch.setattr(dialing, "look_up", look_up)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as listener,
        # The queue is full: further connections are left unanswered.
        socket.create_connection(listener.getsockname()),
    ):
        before = open_sockets()
        leave_waiting(kind, lambda: dial("name", 80))
        gc.collect()
        assert open_sockets() == before


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_a_handshake_or_a_tunnel_in_a_loop_that_is_closed_leaves_no_socket(kind: str) -> None:
    async def shake_hands() -> None:
        await handshake(here, "localhost")

    async def ask_the_proxy() -> None:
        await open_tunnel(here, "proxy", "a", 1)

    anyio.run(client_context)
    for work in (shake_hands, ask_the_proxy):
        here, there = new_pair()
        with here, there:
            leave_waiting(kind, work)
            gc.collect()
            there.setblocking(False)
            assert there.recv(65536)
            # The end of the stream: nobody holds the other end any more.
            assert there.recv(1) == b""
