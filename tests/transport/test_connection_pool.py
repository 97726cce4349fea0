"""What a pool and a transport promise: places, turns, reuse, and an end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from scripted_server import Peer, ScriptedServer, echo, open_sockets

from seamless_remote.errors import ConnectError, ExchangeError
from seamless_remote.transport import Origin, Pool, Request, Transport, abandon_after_fork

pytestmark = pytest.mark.anyio
Serve = Callable[..., ScriptedServer]
GET = Request("GET", "/")


def pool_to(server: ScriptedServer, bound: int | None = 1, lifetime: float = 60) -> Pool:
    return Pool(server.origin, bound=bound, connect_timeout=5, idle_lifetime=lifetime)


async def get(pool: Pool, request: Request = GET) -> bytes:
    return await (await pool.send(request, 20)).read(1 << 20)


async def quietly(pool: Pool) -> None:
    with contextlib.suppress(ExchangeError):
        await get(pool)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.lowlevel.checkpoint()


def one_answer(peer: Peer) -> None:
    """Answers once, then waits to be released, and closes."""
    peer.request()
    peer.answer(b"one")
    peer.wait()


def answer_when_released(peer: Peer) -> None:
    while True:
        peer.request()
        peer.server.reached.set()
        peer.wait()
        peer.answer(b"late")


async def test_no_more_connections_than_the_bound(serve: Serve) -> None:
    server = serve()
    pool = pool_to(server, bound=3)
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(get, pool)
    assert server.accepted <= 3
    assert pool.statistics().opened == server.accepted
    await pool.aclose()


async def test_without_a_bound_nobody_waits(serve: Serve) -> None:
    server = serve(answer_when_released)
    pool = pool_to(server, bound=None)
    async with anyio.create_task_group() as group:
        for _ in range(40):
            group.start_soon(get, pool)
        await until(lambda: pool.statistics().in_use == 40)
        assert pool.statistics().waiting == 0
        server.release()
    await pool.aclose()


async def test_ten_thousand_waiters_are_served_in_order(serve: Serve) -> None:
    server = serve()
    pool = pool_to(server)
    served: list[int] = []

    async def ask(number: int) -> None:
        await get(pool)
        served.append(number)

    async with await pool.send(Request("GET", "/"), 20):
        pass
    async with anyio.create_task_group() as group:
        for number in range(10_000):
            group.start_soon(ask, number)
            if number % 100 == 0:
                await anyio.lowlevel.checkpoint()
    assert sorted(served) == list(range(10_000))
    # Tasks that start in one turn of trio's loop start in any order; a hundred turns do not mix.
    assert all(abs(number - place) <= 300 for place, number in enumerate(served))
    assert server.accepted == 1
    await pool.aclose()


async def test_turns_are_first_come_first_served(serve: Serve) -> None:
    server = serve(answer_when_released)
    pool = pool_to(server)
    served: list[int] = []

    async def ask(number: int) -> None:
        await get(pool)
        served.append(number)

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(ask, number)
            await until(lambda: pool.statistics().waiting == number)  # noqa: B023
            await until(server.reached.is_set)
        server.release()
    assert served == list(range(100))
    await pool.aclose()


async def test_a_waiter_costs_less_than_ten_kilobytes(serve: Serve) -> None:
    server = serve(answer_when_released)
    pool = pool_to(server)
    count = 10_000
    async with anyio.create_task_group() as group:
        group.start_soon(get, pool)
        await until(server.reached.is_set)
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(count):
                group.start_soon(get, pool)
            await until(lambda: pool.statistics().waiting == count)
            assert (tracemalloc.get_traced_memory()[0] - before) / count < 10_000
        finally:
            tracemalloc.stop()
        group.cancel_scope.cancel()
    assert pool.statistics().waiting == 0
    assert pool.is_unused
    await pool.aclose()


async def test_cancelled_waiters_leave_and_the_others_are_served(serve: Serve) -> None:
    server = serve(answer_when_released)
    pool = pool_to(server)
    served: list[int] = []
    scopes = [anyio.CancelScope() for _ in range(1000)]

    async def ask(number: int) -> None:
        with scopes[number]:
            await get(pool)
            served.append(number)

    async with anyio.create_task_group() as group:
        for number in range(1000):
            group.start_soon(ask, number)
        await until(lambda: pool.statistics().waiting == 999)
        await until(server.reached.is_set)
        first = next(n for n in range(1000) if n % 2)
        for scope in scopes[::2]:
            scope.cancel()
        await until(lambda: pool.statistics().waiting <= 500)
        server.release()
    assert first in served
    assert sorted(served) == list(range(1, 1000, 2))
    assert pool.is_unused
    assert await get(pool) == b"late"
    await pool.aclose()


async def test_a_waiter_cancelled_as_its_turn_comes_hands_it_on(serve: Serve) -> None:
    server = serve(answer_when_released)
    pool = pool_to(server)
    doomed = anyio.CancelScope()

    async def leave() -> None:
        with doomed:
            await get(pool)

    async def first() -> None:
        await get(pool)
        # The turn has just been passed on, and its new owner has not run yet.
        doomed.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await until(server.reached.is_set)
        group.start_soon(leave)
        await until(lambda: pool.statistics().waiting == 1)
        group.start_soon(get, pool)
        await until(lambda: pool.statistics().waiting == 2)
        server.release()
    assert doomed.cancelled_caught
    assert pool.is_unused
    assert await get(pool) == b"late"
    await pool.aclose()


async def test_a_waiter_that_withdraws_when_its_turn_comes_hands_it_on(serve: Serve) -> None:
    server = serve(answer_when_released)
    pool = pool_to(server)
    withdrawn = []

    def withdraw() -> None:
        raise LookupError("no longer wanted")

    async def withdrawing() -> None:
        with pytest.raises(LookupError, match="no longer wanted"):
            await get(pool, Request("GET", "/", before_turn=withdraw))
        withdrawn.append(pool.statistics().opened)

    async with anyio.create_task_group() as group:
        group.start_soon(get, pool)
        await until(server.reached.is_set)
        group.start_soon(withdrawing)
        await until(lambda: pool.statistics().waiting == 1)
        group.start_soon(get, pool)
        await until(lambda: pool.statistics().waiting == 2)
        assert not withdrawn
        server.release()
    assert withdrawn == [1]
    assert pool.is_unused
    assert await get(pool) == b"late"
    await pool.aclose()


@pytest.mark.parametrize("how", ["close", "reset", "unasked bytes"])
async def test_a_stale_idle_connection_is_noticed_before_a_request_is_lost_on_it(
    serve: Serve, how: str
) -> None:
    def stale(peer: Peer) -> None:
        one_answer(peer)
        if how == "reset":
            peer.reset()
        elif how == "unasked bytes":
            peer.answer(b"another one")
            peer.server.reached.set()
            peer.wait_for_end()
        else:
            peer.sock.shutdown(socket.SHUT_RDWR)
        peer.server.reached.set()

    server = serve(stale, echo)
    pool = pool_to(server)
    assert await get(pool) == b"one"
    server.release()
    await until(server.reached.is_set)
    # Not `safe`: it would not be sent twice.
    assert await get(pool, Request("POST", "/", body=b"new")) == b"new"
    assert pool.statistics().opened == 2
    assert pool.statistics().open == 1
    await pool.aclose()


def closes_at_the_second_request(peer: Peer) -> None:
    peer.request()
    peer.answer(b"one")
    peer.request()


async def test_a_safe_request_that_a_reused_connection_lost_is_sent_again(serve: Serve) -> None:
    server = serve(closes_at_the_second_request, echo)
    pool = pool_to(server)
    assert await get(pool) == b"one"
    assert await get(pool, Request("PUT", "/", body=b"x" * 500_000, safe=True)) == b"x" * 500_000
    assert server.accepted == 2
    await pool.aclose()


async def test_an_unsafe_request_that_a_reused_connection_lost_is_not_sent_again(
    serve: Serve,
) -> None:
    server = serve(closes_at_the_second_request, echo)
    pool = pool_to(server)
    assert await get(pool) == b"one"
    with pytest.raises(ExchangeError):
        await get(pool, Request("POST", "/", body=b"x"))
    assert server.accepted == 1
    assert await get(pool) == b"hello"
    await pool.aclose()


async def test_a_safe_request_that_a_new_connection_lost_is_not_sent_again(serve: Serve) -> None:
    server = serve(lambda peer: peer.head())
    pool = pool_to(server)
    with pytest.raises(ExchangeError):
        await get(pool, Request("GET", "/", safe=True))
    assert server.accepted == 1
    await pool.aclose()


async def test_an_answer_that_broke_off_is_not_asked_for_again(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.answer(b"one")
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n")

    server = serve(script, echo)
    pool = pool_to(server)
    await get(pool)
    with pytest.raises(ExchangeError):
        await get(pool, Request("GET", "/", safe=True))
    assert server.accepted == 1
    await pool.aclose()


async def test_idle_connections_are_closed_after_their_lifetime(serve: Serve) -> None:
    server = serve()
    pool = pool_to(server, lifetime=0)
    for count in (1, 2):
        await get(pool)
        assert server.accepted == count
    pool.expire()
    assert pool.statistics().open == 0
    await pool.aclose()


async def test_expire_closes_what_the_server_closed_and_keeps_the_rest(serve: Serve) -> None:
    server = serve(one_answer, echo)
    pool = pool_to(server, bound=2)
    async with anyio.create_task_group() as group:
        group.start_soon(get, pool)
        group.start_soon(get, pool)
    assert pool.statistics().idle == server.accepted
    kept = server.accepted - 1
    server.release()

    def expired() -> bool:
        pool.expire()
        return pool.statistics().idle == kept

    await until(expired)
    await pool.aclose()


async def test_a_retired_pool_finishes_its_requests_and_keeps_no_connection(serve: Serve) -> None:
    server = serve(answer_when_released)
    transport = Transport(connect_timeout=5, max_connections=1, idle_lifetime=60)
    answers: list[bytes] = []

    async def ask() -> None:
        response = await transport.send(GET, server.origin, lane="a", read_timeout=20)
        answers.append(await response.read(9))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        group.start_soon(ask)
        await until(server.reached.is_set)
        transport.release([])
        assert transport.statistics().retiring == 1
        server.release()
    assert answers == [b"late", b"late"]
    assert transport.statistics().retiring == 0
    assert transport.statistics().pools == {}
    await transport.aclose()


async def test_release_keeps_the_connections_of_the_named_origins(serve: Serve) -> None:
    kept, dropped = serve(), serve()
    transport = Transport(connect_timeout=5, max_connections=1, idle_lifetime=60)
    for _ in range(2):
        for server in (kept, dropped):
            response = await transport.send(GET, server.origin, lane="a", read_timeout=20)
            await response.read(9)
        transport.release([kept.origin])
    assert kept.accepted == 1
    assert dropped.accepted == 2
    await transport.aclose()


async def test_lanes_do_not_wait_for_each_other(serve: Serve) -> None:
    server = serve(answer_when_released, echo)
    transport = Transport(connect_timeout=5, max_connections=1, idle_lifetime=60)

    async def slow() -> None:
        response = await transport.send(GET, server.origin, lane="down", read_timeout=20)
        await response.read(9)

    async with anyio.create_task_group() as group:
        group.start_soon(slow)
        await until(server.reached.is_set)
        response = await transport.send(GET, server.origin, lane="up", read_timeout=20)
        assert await response.read(9) == b"hello"
        server.release()
    assert set(transport.statistics().pools) == {(server.origin, "down"), (server.origin, "up")}
    await transport.aclose()


async def test_waiting_for_a_connection_is_no_silence(serve: Serve) -> None:
    server = serve(answer_when_released)
    pool = pool_to(server)

    async def patient() -> None:
        # Its read timeout is far shorter than its wait.
        response = await pool.send(GET, 5)
        assert await response.read(9) == b"late"

    async with anyio.create_task_group() as group:
        group.start_soon(get, pool)
        await until(server.reached.is_set)
        group.start_soon(patient)
        await until(lambda: pool.statistics().waiting == 1)
        server.release()
    await pool.aclose()


@pytest.mark.parametrize("stage", ["head", "body", "unread body", "upload"])
async def test_aclose_ends_requests_under_way_with_an_exchange_error(
    serve: Serve, stage: str
) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        if stage in ("body", "unread body"):
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\nabc")
        peer.server.reached.set()
        peer.wait()

    server = serve(script)
    pool = pool_to(server)
    errors: list[Exception] = []
    started = anyio.Event()

    async def ask() -> None:
        try:
            body = bytes(1 << 24) if stage == "upload" else None
            response = await pool.send(Request("PUT", "/", body=body), 20)
            started.set()
            if stage == "unread body":
                await until(lambda: closed)
            await response.read(1 << 20)
        except (ConnectError, ExchangeError) as exc:
            errors.append(exc)

    closed = False
    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await until(server.reached.is_set)
        if "body" in stage:
            await started.wait()
        group.start_soon(ask)
        await until(lambda: pool.statistics().waiting == 1)
        await pool.aclose()
        closed = True
    assert sorted(type(error) for error in errors if type(error) is ConnectError) == [ConnectError]
    assert [type(error) for error in errors if type(error) is not ConnectError] == [ExchangeError]
    assert pool.statistics().open == 0
    assert pool.is_unused
    with pytest.raises(ConnectError):
        await get(pool)


@pytest.fixture
def deaf() -> Iterator[Origin]:
    """An origin where connecting hangs: its queue of connections is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            fillers.append(filler)
        yield Origin("http", *address)
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("end", ["when idle", "in use", "by cancelling", "by the server"])
async def test_however_a_connection_ends_the_loop_forgets_its_descriptor(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    loop = asyncio.get_running_loop()
    add_reader, remove_reader = loop.add_reader, loop.remove_reader
    registered: set[int] = set()

    def add(sock: socket.socket, *args: Any) -> None:
        registered.add(sock.fileno())
        add_reader(sock, *args)

    def remove(sock: socket.socket) -> bool:
        registered.remove(sock.fileno())
        return remove_reader(sock)

    monkeypatch.setattr(loop, "add_reader", add)
    monkeypatch.setattr(loop, "remove_reader", remove)
    server = serve(one_answer if end == "by the server" else answer_when_released)
    pool = pool_to(server)
    async with anyio.create_task_group() as group:
        group.start_soon(quietly, pool)
        await until(lambda: bool(registered))
        if end == "by cancelling":
            group.cancel_scope.cancel()
        elif end == "in use":
            await pool.aclose()
        else:
            server.release()
    if end == "by the server":
        await until(lambda: not registered)
    await pool.aclose()
    assert not registered


async def test_a_connect_that_hangs_is_a_connect_error(deaf: Origin) -> None:
    pool = Pool(deaf, bound=1, connect_timeout=0.05, idle_lifetime=60)
    with pytest.raises(ConnectError, match=r"no connection within 0\.05 s"):
        await get(pool)
    assert pool.is_unused
    await pool.aclose()


async def test_cancelling_a_connect_leaves_no_socket_and_its_place(deaf: Origin) -> None:
    pool = Pool(deaf, bound=1, connect_timeout=None, idle_lifetime=60)
    before = open_sockets()
    async with anyio.create_task_group() as group:
        group.start_soon(get, pool)
        await until(lambda: open_sockets() != before)
        group.cancel_scope.cancel()
    assert open_sockets() == before
    assert pool.is_unused
    await pool.aclose()


async def test_aclose_ends_a_connect_at_once(deaf: Origin) -> None:
    pool = Pool(deaf, bound=1, connect_timeout=None, idle_lifetime=60)
    before = open_sockets()

    async def ask() -> None:
        with pytest.raises(ConnectError, match="closed on this side"):
            await get(pool)

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await until(lambda: open_sockets() != before)
        await pool.aclose()
    assert open_sockets() == before


async def test_a_closed_transport_sends_nothing(serve: Serve, transport: Transport) -> None:
    server = serve()
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(ConnectError):
        await transport.send(GET, server.origin, lane="a", read_timeout=20)
    assert server.accepted == 0


async def test_the_counters_count_what_went_over_the_wire(serve: Serve) -> None:
    server = serve()
    pool = pool_to(server)
    await get(pool, Request("PUT", "/", body=b"x" * 1000))
    counts = pool.statistics()
    sent = len(server.requests[0]) + 4 + 1000
    received = len(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n") + 1000
    assert (counts.bytes_sent, counts.bytes_received) == (sent, received)
    assert (counts.open, counts.idle, counts.in_use, counts.opened) == (1, 1, 0, 1)
    await pool.aclose()
    assert pool.statistics().open == 0


def connections_to(port: int) -> int:
    """How many open sockets of this process are connected to `port`."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as sock:
                    count += sock.getpeername()[1:] == (port,)
    return count


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_forked_child_shares_no_connection_with_its_parent(serve: Serve) -> None:
    server = serve(echo, answer_when_released)
    pool = pool_to(server, bound=2)
    answers: list[bytes] = []

    async def ask() -> None:
        answers.append(await get(pool))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        group.start_soon(ask)
        await until(lambda: server.reached.is_set() and len(answers) == 1)
        assert connections_to(server.port) == 2
        child = os.fork()
        if child == 0:
            status = 1
            try:
                abandon_after_fork()
                pool.aclose().send(None)
            except StopIteration:
                status = 2 if connections_to(server.port) else 0
            finally:
                os._exit(status)
        _, result = await anyio.to_thread.run_sync(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(result) == 0
        server.release()
    assert sorted(answers) == [b"hello", b"late"]
    assert server.accepted == 2
    await pool.aclose()
