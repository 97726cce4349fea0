"""Patience: an answer that does not come soon is pending, and comes later or is given up."""

from __future__ import annotations

import anyio
import pytest
from exchanges import OK, Serve, ask, both_schemes, get, pool_of, until
from scripted_server import Peer, answer_when_released, echo
from virtual_time import Clock, in_virtual_time

from seamless_remote.errors import ExchangeError, ServiceTimeout
from seamless_remote.transport.messages import Request
from seamless_remote.transport.transport import Transport

pytestmark = [pytest.mark.anyio, both_schemes]


async def test_a_pending_answer_keeps_its_place_and_arrives_later(
    serve: Serve, transport: Transport
) -> None:
    server = serve(answer_when_released)
    async with await ask(transport, server, patience=0.01) as response:
        assert response.is_pending
        assert pool_of(transport).in_use == 1
        server.release()
        await response.arrive()
        assert not response.is_pending
        assert response.status == 200
        assert await response.read(9) == b"late"
    assert await get(transport, server) == b"late"
    assert server.accepted == 1


async def test_the_body_of_a_pending_answer_comes_after_its_head(
    serve: Serve, transport: Transport
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.wait()
        peer.send(OK + b"Content-Length: 500000\r\n\r\n" + bytes(500_000))
        peer.wait_for_end()

    server = serve(script)
    async with await ask(transport, server, patience=0) as response:
        assert response.is_pending
        server.release()
        await response.arrive()
        assert response.content_length == 500_000
        assert await response.read(500_000) == bytes(500_000)


async def test_the_wait_for_a_pending_answer_may_be_bounded_again(
    serve: Serve, transport: Transport
) -> None:
    server = serve(answer_when_released)
    async with await ask(transport, server, patience=0, bound=1) as response:
        for _ in range(3):
            await response.arrive(patience=0.01)
            assert response.is_pending
            assert pool_of(transport).in_use == 1
        server.release()
        await response.arrive(patience=60)
        assert await response.read(9) == b"late"
    assert await get(transport, server, bound=1) == b"late"
    assert server.accepted == 1


async def test_an_answer_that_comes_in_time_is_not_pending(
    serve: Serve, transport: Transport
) -> None:
    async with await ask(transport, serve(), patience=60) as response:
        assert not response.is_pending
        assert await response.read(9) == b"hello"


async def test_giving_up_a_pending_answer_frees_its_place_and_closes_its_connection(
    serve: Serve, transport: Transport
) -> None:
    server = serve(answer_when_released, echo)
    response = await ask(transport, server, patience=0.01, bound=1)
    assert response.is_pending
    response.abandon()
    response.abandon()
    assert await get(transport, server, bound=1) == b"hello"
    assert server.accepted == 2


async def test_cancelling_the_wait_for_a_pending_answer_frees_its_place(
    serve: Serve, transport: Transport
) -> None:
    server = serve(answer_when_released, echo)
    async with await ask(transport, server, patience=0.01, bound=1) as response:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await response.arrive()
        assert scope.cancelled_caught
        assert pool_of(transport).in_use == 0
        with pytest.raises(ExchangeError):
            await response.arrive()
    assert await get(transport, server, bound=1) == b"hello"


@pytest.mark.parametrize("how", ["close", "reset", "cut"])
async def test_the_end_of_the_connection_of_a_pending_answer_is_noticed(
    serve: Serve, transport: Transport, how: str
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.wait()
        if how == "reset":
            peer.reset()
        elif how == "cut":
            peer.cut()
        peer.server.reached.set()

    server = serve(script)
    async with await ask(transport, server, patience=0.01) as response:
        assert response.is_pending
        server.release()
        await until(server.reached.is_set)
        with pytest.raises(ExchangeError, match="closed without an answer"):
            await response.arrive()


@in_virtual_time
async def test_silence_ends_the_wait_for_a_pending_answer(
    serve: Serve, transport: Transport
) -> None:
    server = serve(answer_when_released)
    clock = Clock()
    response = await ask(transport, server, patience=0.01, timeout=20, call=clock.call)
    assert response.is_pending
    await clock.passes(19)

    async def arrive() -> None:
        with pytest.raises(ServiceTimeout, match="silent for 20 s"):
            await response.arrive()

    async with anyio.create_task_group() as group:
        group.start_soon(arrive)
        await anyio.wait_all_tasks_blocked()
        await clock.passes(21)


@in_virtual_time
async def test_a_read_timeout_that_is_shorter_than_the_patience_comes_first(
    serve: Serve, transport: Transport
) -> None:
    server = serve(answer_when_released)
    clock = Clock()

    async def fail() -> None:
        with pytest.raises(ServiceTimeout, match="silent for 20 s"):
            await ask(transport, server, patience=50, timeout=20, call=clock.call)

    async with anyio.create_task_group() as group:
        group.start_soon(fail)
        await until(server.reached.is_set)
        await anyio.wait_all_tasks_blocked()
        await clock.passes(30)


@in_virtual_time
async def test_patience_is_for_all_of_the_head(serve: Serve, transport: Transport) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        peer.wait()
        peer.answer(b"late")

    server = serve(script)
    clock = Clock()
    pending: list[bool] = []

    async def begin() -> None:
        call = clock.call
        async with await ask(transport, server, patience=20, timeout=None, call=call) as response:
            pending.append(response.is_pending)
            server.release()
            await response.arrive()
            assert await response.read(9) == b"late"

    async with anyio.create_task_group() as group:
        group.start_soon(begin)
        await until(lambda: server.accepted)
        for _ in range(2):
            await until(lambda: transport.snapshot() and pool_of(transport).bytes_received > 0)
            await clock.passes(15)
    assert pending == [True]


@in_virtual_time
async def test_waiting_for_a_connection_costs_no_patience(
    serve: Serve, transport: Transport
) -> None:
    server = serve(answer_when_released)
    clock = Clock()
    pending: list[bool] = []

    async def read(patience: float | None) -> None:
        request = Request("GET", "/")
        async with await ask(
            transport, server, request, bound=1, patience=patience, timeout=None, call=clock.call
        ) as response:
            pending.append(response.is_pending)
            if not response.is_pending:
                assert await response.read(9) == b"late"

    async with anyio.create_task_group() as group:
        group.start_soon(read, None)
        await until(server.reached.is_set)
        group.start_soon(read, 60)
        await until(lambda: pool_of(transport).waiting == 1)
        await clock.passes(100)
        server.release()
    assert pending == [False, False]
