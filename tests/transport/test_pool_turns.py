"""What a pool promises those who wait: no more connections than its bound, each in its turn."""

from __future__ import annotations

import errno
import gc
import select
import tracemalloc

import anyio
import pytest
from exchanges import (
    OK,
    Serve,
    ask,
    assert_nothing_in_use,
    both_schemes,
    get,
    pool_of,
    says,
    until,
)
from scripted_server import answer_when_released

from seamless_remote import Settings
from seamless_remote.errors import ConnectError
from seamless_remote.nursery.calls import Call
from seamless_remote.nursery.event_loops import running_loop
from seamless_remote.transport.messages import Request
from seamless_remote.transport.transport import Transport
from seamless_remote.transport.urls import Origin

pytestmark = pytest.mark.anyio


@both_schemes
async def test_no_more_connections_than_the_bound(serve: Serve, transport: Transport) -> None:
    server = serve()
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(lambda: get(transport, server, bound=3))
    assert server.accepted <= 3
    assert pool_of(transport).opened == server.accepted


async def test_without_a_bound_nobody_waits(serve: Serve, transport: Transport) -> None:
    server = serve(answer_when_released)
    async with anyio.create_task_group() as group:
        for _ in range(40):
            group.start_soon(lambda: get(transport, server, bound=0))
        await until(lambda: server.accepted == 40)
        assert pool_of(transport).waiting == 0
        server.release()


async def test_turns_are_first_come_first_served(serve: Serve, transport: Transport) -> None:
    server = serve(answer_when_released)
    served: list[int] = []

    async def ask_as(number: int) -> None:
        await get(transport, server, bound=1)
        served.append(number)

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(ask_as, number)
            await until(server.reached.is_set)
            await until(lambda: pool_of(transport).waiting == number)  # noqa: B023
        server.release()
    assert served == list(range(100))
    assert server.accepted == 1


async def test_ten_thousand_waiters_are_served_in_order(serve: Serve, transport: Transport) -> None:
    server = serve()
    served: list[int] = []

    async def ask_as(number: int) -> None:
        await get(transport, server, bound=1)
        served.append(number)

    async with anyio.create_task_group() as group:
        for number in range(10_000):
            group.start_soon(ask_as, number)
            if number % 100 == 0:
                await anyio.lowlevel.checkpoint()
    assert sorted(served) == list(range(10_000))
    # Tasks that start in one turn of trio's loop start in any order; a hundred turns do not mix.
    assert all(abs(number - place) <= 300 for place, number in enumerate(served))
    assert server.accepted == 1


async def test_a_waiter_costs_less_than_ten_kilobytes(serve: Serve, transport: Transport) -> None:
    server = serve(answer_when_released)
    count = 10_000

    async def wait() -> None:
        await get(transport, server, bound=1)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await until(server.reached.is_set)
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(count):
                group.start_soon(wait)
            await until(lambda: pool_of(transport).waiting == count)
            assert (tracemalloc.get_traced_memory()[0] - before) / count < 10_000
        finally:
            tracemalloc.stop()
        group.cancel_scope.cancel()
    assert_nothing_in_use(transport)


async def test_cancelled_waiters_leave_and_the_others_are_served(
    serve: Serve, transport: Transport
) -> None:
    server = serve(answer_when_released)
    served: list[int] = []
    scopes = [anyio.CancelScope() for _ in range(1000)]

    async def ask_as(number: int) -> None:
        with scopes[number]:
            await get(transport, server, bound=1)
            served.append(number)

    async with anyio.create_task_group() as group:
        for number in range(1000):
            group.start_soon(ask_as, number)
        await until(server.reached.is_set)
        await until(lambda: pool_of(transport).waiting == 999)
        for scope in scopes[::2]:
            scope.cancel()
        await until(lambda: pool_of(transport).waiting <= 500)
        server.release()
    assert sorted(served) == list(range(1, 1000, 2))


async def test_a_waiter_cancelled_as_its_turn_comes_hands_it_on(
    serve: Serve, transport: Transport
) -> None:
    server = serve(answer_when_released)
    doomed = anyio.CancelScope()

    async def first() -> None:
        await get(transport, server, bound=1)
        # The turn has just been passed on, and its new owner has not run yet.
        doomed.cancel()

    async def second() -> None:
        with doomed:
            await get(transport, server, bound=1)

    async def third() -> None:
        await get(transport, server, bound=1)

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await until(server.reached.is_set)
        group.start_soon(second)
        await until(lambda: pool_of(transport).waiting == 1)
        group.start_soon(third)
        await until(lambda: pool_of(transport).waiting == 2)
        server.release()
    assert doomed.cancelled_caught
    assert_nothing_in_use(transport)


@both_schemes
async def test_a_request_that_is_withdrawn_when_its_turn_comes_hands_it_on(
    serve: Serve, transport: Transport
) -> None:
    server = serve(answer_when_released)
    withdrawn: list[int] = []

    def withdraw() -> None:
        raise LookupError("no longer wanted")

    async def first() -> None:
        await get(transport, server, bound=1)

    async def withdrawing() -> None:
        request = Request("GET", "/", before_sending=withdraw)
        with pytest.raises(LookupError, match="no longer wanted"):
            await ask(transport, server, request, bound=1)
        withdrawn.append(pool_of(transport).opened)

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await until(server.reached.is_set)
        group.start_soon(withdrawing)
        await until(lambda: pool_of(transport).waiting == 1)
        group.start_soon(first)
        await until(lambda: pool_of(transport).waiting == 2)
        assert not withdrawn
        server.release()
    assert withdrawn == [1]


async def test_lanes_do_not_wait_for_each_other(serve: Serve, transport: Transport) -> None:
    server = serve(answer_when_released, says(OK + b"Content-Length: 5\r\n\r\nquick"))

    async def slow() -> None:
        response = await ask(transport, server, lane="down", bound=1)
        assert await response.read(9) == b"late"

    async with anyio.create_task_group() as group:
        group.start_soon(slow)
        await until(server.reached.is_set)
        response = await ask(transport, server, lane="up", bound=1)
        assert await response.read(9) == b"quick"
        server.release()
    assert {pool.lane for pool in transport.snapshot()} == {"down", "up"}


async def test_a_connect_that_hangs_is_a_connect_error_and_frees_its_place(
    deaf: Origin, transport: Transport
) -> None:
    call = Call(running_loop(), Settings(connect_timeout=0.05))
    with pytest.raises(ConnectError, match=r"no connection within 0\.05 s"):
        await transport.send(call, Request("GET", "/"), deaf, lane="x", read_timeout=60, bound=1)


async def test_a_handshake_that_hangs_is_a_connect_error_and_frees_its_place(
    serve: Serve, transport: Transport, server_context: object
) -> None:
    server = serve(answer_when_released)
    server.origin = server.origin._replace(scheme="https")
    call = Call(running_loop(), Settings(connect_timeout=0.05))
    with pytest.raises(ConnectError, match=r"no connection within 0\.05 s"):
        await ask(transport, server, call=call)


async def test_the_bound_of_the_last_request_counts(serve: Serve, transport: Transport) -> None:
    server = serve(answer_when_released)

    async def ask_with(bound: int) -> None:
        await get(transport, server, bound=bound)

    async with anyio.create_task_group() as group:
        group.start_soon(ask_with, 1)
        await until(server.reached.is_set)
        group.start_soon(ask_with, 1)
        await until(lambda: pool_of(transport).waiting == 1)
        group.start_soon(ask_with, 3)
        await until(lambda: pool_of(transport).in_use == 3)
        group.start_soon(ask_with, 2)
        await until(lambda: pool_of(transport).waiting == 1)
        server.release()
    assert server.accepted == 3


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_loop_that_has_no_descriptor_left_for_waiting_gives_a_connect_error(
    serve: Serve, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()

    def too_many() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(select, "epoll", too_many)
        with pytest.raises(ConnectError, match="Too many open files"):
            await get(transport, server, bound=1)
    assert await get(transport, server, bound=1) == b"hello"
