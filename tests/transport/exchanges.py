"""How the tests ask their servers: through a transport, in whatever loop they run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import anyio
import pytest
from scripted_server import PATIENCE, Peer, Script, ScriptedServer

from seamless_remote import Settings
from seamless_remote.errors import ExchangeError
from seamless_remote.nursery.calls import Call
from seamless_remote.nursery.event_loops import running_loop
from seamless_remote.transport.messages import Request, Response
from seamless_remote.transport.pool import PoolSnapshot
from seamless_remote.transport.transport import Transport

Serve = Callable[..., ScriptedServer]

OK = b"HTTP/1.1 200 OK\r\n"
BIG = b"0123456789abcdef" * (1 << 19)  # 8 MiB: more than the kernel's buffers take at once

SETTINGS = Settings(connect_timeout=PATIENCE)

both_schemes = pytest.mark.parametrize("scheme", ["http", "https"], indirect=True)
"""Runs a test that uses `serve` over http and over https."""


def call_here(settings: Settings = SETTINGS) -> Call:
    return Call(running_loop(), settings)


async def ask(
    transport: Transport,
    server: ScriptedServer,
    request: Request | None = None,
    *,
    timeout: float | None = PATIENCE,
    bound: int = 4,
    patience: float | None = None,
    lane: str = "test",
    call: Call | None = None,
) -> Response:
    return await transport.send(
        call_here() if call is None else call,
        Request("GET", "/") if request is None else request,
        server.origin,
        lane=lane,
        read_timeout=timeout,
        bound=bound,
        patience=patience,
    )


async def get(
    transport: Transport, server: ScriptedServer, request: Request | None = None, *, bound: int = 4
) -> bytes:
    response = await ask(transport, server, request, bound=bound)
    return await response.read(1 << 26)


async def quietly(
    transport: Transport, server: ScriptedServer, request: Request | None = None, *, bound: int = 4
) -> None:
    with contextlib.suppress(ExchangeError):
        await get(transport, server, request, bound=bound)


def pool_of(transport: Transport) -> PoolSnapshot:
    [pool] = transport.snapshot()
    return pool


def assert_nothing_in_use(transport: Transport) -> None:
    for pool in transport.snapshot():
        assert (pool.in_use, pool.waiting) == (0, 0)


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - other threads bring it about
            await anyio.sleep(0.001)


def says(data: bytes) -> Script:
    """Answers every request with these bytes."""

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
