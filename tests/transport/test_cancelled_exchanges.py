"""Cancelling a request, at any moment: its place comes back, and nothing of it is left."""

from __future__ import annotations

import random
import threading

import anyio
import pytest
from exchanges import (
    BIG,
    OK,
    SETTINGS,
    Serve,
    ask,
    assert_nothing_in_use,
    both_schemes,
    get,
    pool_of,
    until,
)
from scripted_server import Peer, answer_when_released, echo, open_sockets

from seamless_remote.nursery.calls import Call
from seamless_remote.nursery.event_loops import running_loop
from seamless_remote.transport.messages import Request, Response
from seamless_remote.transport.transport import Transport
from seamless_remote.transport.urls import Origin

pytestmark = pytest.mark.anyio


async def cancel_when(event: threading.Event, scope: anyio.CancelScope) -> None:
    await until(event.is_set)
    scope.cancel()


@both_schemes
@pytest.mark.parametrize(
    ("request_body", "said"),
    [
        (b"x", b""),
        (b"x", b"HTTP/1.1 200"),
        (b"x", OK + b"Content-Length: 5\r\n\r\nab"),
        (b"x", OK + b"Content-Length: 500000\r\n\r\nab"),
        (b"x", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab"),
        (BIG * 4, None),
    ],
    ids=["head", "in head", "small body", "large body", "chunks", "sending"],
)
async def test_cancelling_at_any_stage_frees_the_place_and_drops_the_connection(
    serve: Serve, transport: Transport, request_body: bytes, said: bytes | None
) -> None:
    def script(peer: Peer) -> None:
        if said is None:
            peer.head()
        else:
            peer.request()
            peer.send(said)
        peer.server.reached.set()
        peer.wait()

    server = serve(script, echo)
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(cancel_when, server.reached, scope)
            request = Request("PUT", "/", body=request_body, safe=True)
            await (await ask(transport, server, request, bound=1)).read(1 << 20)
    assert scope.cancelled_caught
    assert await get(transport, server, bound=1) == b"hello"
    assert server.accepted == 2


@both_schemes
async def test_cancelling_while_the_server_is_to_say_100_frees_the_place(
    serve: Serve, transport: Transport
) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.server.reached.set()
        peer.wait()

    server = serve(script, echo)
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(cancel_when, server.reached, scope)
            request = Request("PUT", "/", body=b"x", expect_continue=True)
            await ask(transport, server, request, bound=1)
    assert await get(transport, server, bound=1) == b"hello"


async def test_cancelling_a_handshake_frees_the_place_and_leaves_no_socket(
    serve: Serve, transport: Transport, server_context: object
) -> None:
    server = serve(answer_when_released)
    server.origin = server.origin._replace(scheme="https")
    before = open_sockets()
    async with anyio.create_task_group() as group:
        group.start_soon(get, transport, server)
        await until(lambda: server.accepted)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    server.close()
    assert not open_sockets() - before


async def test_cancelling_a_connect_frees_the_place_and_leaves_no_socket(
    deaf: Origin, transport: Transport
) -> None:
    before = open_sockets()

    async def connect() -> None:
        call = Call(running_loop(), SETTINGS)
        await transport.send(call, Request("GET", "/"), deaf, lane="x", read_timeout=60, bound=1)

    async with anyio.create_task_group() as group:
        group.start_soon(connect)
        await until(lambda: open_sockets() != before)
        group.cancel_scope.cancel()
    assert open_sockets() == before
    assert pool_of(transport).in_use == 0


@both_schemes
@pytest.mark.parametrize(
    "request_", [Request("GET", "/"), Request("PUT", "/"), Request("PUT", "/", safe=True)]
)
async def test_a_cancelled_caller_sends_nothing_that_may_change_anything(
    request_: Request, serve: Serve, transport: Transport
) -> None:
    server = serve()
    await get(transport, server)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await ask(transport, server, request_)
    assert scope.cancelled_caught
    await get(transport, server)
    assert len(server.requests) == 2
    assert server.accepted == 1


def answers_in_pieces(peer: Peer) -> None:
    """Gives all kinds of answers, each in a few pieces."""
    dice = random.Random(peer.server.accepted)
    while True:
        peer.request()
        size = dice.choice([0, 10, 1000, 200_000])
        answer = OK + b"Content-Length: %d\r\n\r\n" % size + bytes(size)
        if dice.random() < 0.3:
            answer = OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n4\r\nbcde\r\n0\r\n\r\n"
        places = sorted(dice.randrange(len(answer)) for _ in range(3))
        for start, end in zip([0, *places], [*places, len(answer)], strict=True):
            peer.send(answer[start:end])


@both_schemes
@pytest.mark.parametrize("bound", [1, 4])
async def test_cancellations_at_random_moments_leave_a_pool_that_works(
    serve: Serve, transport: Transport, bound: int
) -> None:
    server = serve(answers_in_pieces)
    dice = random.Random(5)
    answered: list[bool] = []

    async def use(response: Response) -> None:
        match dice.randrange(4):
            case 0:
                await response.fill(memoryview(bytearray(100)))
            case 1 | 2:
                await response.read(1 << 20)

    async def call_and_cancel() -> None:
        for _ in range(30):
            body = dice.choice([None, b"x", bytes(300_000)])
            request = Request("PUT", "/", body=body, expect_continue=dice.random() < 0.1)
            with anyio.move_on_after(dice.random() * 0.03) as scope:
                async with await ask(transport, server, request, bound=bound) as response:
                    await use(response)
            answered.append(not scope.cancelled_caught)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(call_and_cancel)
    assert not all(answered)
    assert_nothing_in_use(transport)
    for _ in range(10):
        await get(transport, server, bound=bound)
