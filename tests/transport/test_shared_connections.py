"""Connections belong to no loop while they are idle: all loops of the process share them."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from exchanges import OK, Serve, assert_nothing_in_use, both_schemes, get, pool_of, says, until
from scripted_server import PATIENCE, ScriptedServer, answer_when_released

from seamless_remote.transport.messages import Request
from seamless_remote.transport.transport import Transport

BACKENDS: dict[str, tuple[str, dict[str, object]]] = {
    "asyncio": ("asyncio", {}),
    "trio": ("trio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
}


def new_uvloop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return loop


def run(where: str, main: Callable[[], Awaitable[None]]) -> None:
    """Run `main` in a new loop."""
    backend, options = BACKENDS[where]
    if where == "uvloop":
        pytest.importorskip("uvloop")
    anyio.run(main, backend=backend, backend_options=options)


@both_schemes
def test_a_connection_that_a_loop_gave_back_serves_others_after_its_end(
    serve: Serve, transport: Transport
) -> None:
    server = serve()

    async def main() -> None:
        for size in (0, 10, 500_000):
            request = Request("PUT", "/", body=bytes(size))
            assert len(await get(transport, server, request, bound=1)) == (size or 5)

    for where in ("asyncio", "trio", "uvloop", "asyncio", "trio", "asyncio", "uvloop", "trio"):
        run(where, main)
    assert server.accepted == 1


@both_schemes
@pytest.mark.parametrize("where", ["asyncio", "uvloop", "mixed"])
def test_connections_wander_between_loops_that_wait_for_one_or_several(
    serve: Serve, transport: Transport, where: str
) -> None:
    server = serve()
    kinds = ["asyncio", "trio", "uvloop"] if where == "mixed" else [where] * 3

    def loop_of(kind: str) -> None:
        numbers = random.Random(kind)

        async def ask(body: bytes) -> None:
            assert await get(transport, server, Request("PUT", "/", body=body)) == body

        async def main() -> None:
            for step in range(150):
                async with anyio.create_task_group() as group:
                    for one in range(numbers.choice((1, 1, 2, 4))):
                        group.start_soon(ask, b"%d of %d" % (one, step))
                if numbers.random() < 0.1:
                    await anyio.sleep(0.001)

        run(kind, main)

    with ThreadPoolExecutor() as threads:
        list(threads.map(loop_of, kinds))
    assert server.accepted <= 4 + len(kinds) - 1


@both_schemes
def test_loops_that_run_side_by_side_use_a_connection_in_turn(
    serve: Serve, transport: Transport
) -> None:
    server = serve()
    order = ["asyncio", "trio", "uvloop"] * 5
    turn = 0

    def loop_of(where: str) -> None:
        async def main() -> None:
            nonlocal turn
            while turn < len(order):
                if order[turn] == where:
                    assert await get(transport, server) == b"hello"
                    turn += 1
                await anyio.sleep(0.001)

        run(where, main)

    with ThreadPoolExecutor() as threads:
        list(threads.map(loop_of, BACKENDS))
    assert server.accepted == 1


@both_schemes
def test_never_more_connections_than_the_bound_and_one_for_each_further_loop(
    serve: Serve, transport: Transport
) -> None:
    server = serve()
    bound, loops = 4, ["asyncio", "trio", "uvloop", "asyncio", "trio"]

    def loop_of(where: str) -> None:
        async def one() -> None:
            for number in range(5):
                request = Request("PUT", "/", body=b"x" * (1 + number * 30_000))
                assert (
                    len(await get(transport, server, request, bound=bound)) == request.body_length
                )

        async def main() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(60):
                    group.start_soon(one)

        run(where, main)

    stop = threading.Event()

    def upkeep() -> None:
        # Looks through idle connections all the while, and finds none that is old.
        while not stop.wait(0.01):
            transport.expire(60)

    with ThreadPoolExecutor() as threads:
        looking = threads.submit(upkeep)
        list(threads.map(loop_of, loops))
        stop.set()
        looking.result()
    assert server.most_open <= bound + len(loops) - 1
    assert server.accepted == pool_of(transport).opened == pool_of(transport).idle
    assert len(server.requests) == 60 * 5 * len(loops)


@both_schemes
def test_cancelled_calls_of_several_loops_lose_no_place(serve: Serve, transport: Transport) -> None:
    server = serve()
    loops = ["asyncio", "trio", "uvloop"]

    def loop_of(where: str) -> None:
        dice = random.Random(where)

        async def one() -> None:
            for _ in range(20):
                with anyio.move_on_after(dice.random() * 0.02):
                    await get(transport, server, Request("PUT", "/", body=bytes(100_000)))

        async def main() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(one)

        run(where, main)

    with ThreadPoolExecutor() as threads:
        list(threads.map(loop_of, loops))
    assert_nothing_in_use(transport)

    async def still_works() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(get, transport, server)

    for where in loops:
        run(where, still_works)


def test_a_loop_that_stands_still_with_all_places_does_not_stop_another_one(
    serve: Serve, transport: Transport
) -> None:
    server = serve(answer_when_released, says(OK + b"Content-Length: 5\r\n\r\nother"))

    async def other() -> None:
        assert await get(transport, server, bound=1) == b"other"

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(get_late, transport, server)
            await until(server.reached.is_set)
            # This loop makes no turn meanwhile.
            with ThreadPoolExecutor() as threads:
                for where in BACKENDS:
                    threads.submit(run, where, other).result(PATIENCE)
            server.release()

    run("asyncio", main)


async def get_late(transport: Transport, server: ScriptedServer) -> None:
    assert await get(transport, server, bound=1) == b"late"


def test_a_connection_may_be_borrowed_again_before_its_giver_has_gone_on(serve: Serve) -> None:
    server = serve()
    borrowed: list[bytes] = []

    async def borrow() -> None:
        borrowed.append(await get(transport, server))

    def may_keep() -> bool:
        # Asked when the connection is in the list, and its place not yet given back.
        if not borrowed:
            borrowed.append(b"")
            with ThreadPoolExecutor() as threads:
                threads.submit(run, "trio", borrow).result(PATIENCE)
        return True

    transport = Transport(may_keep)
    run("asyncio", borrow)
    assert borrowed == [b"", b"hello", b"hello"]
    assert server.accepted == 1
    assert_nothing_in_use(transport)
    transport.close_idle()


def test_the_next_in_line_may_be_of_another_loop(serve: Serve, transport: Transport) -> None:
    server = serve(answer_when_released)
    done: list[str] = []

    def loop_of(where: str) -> None:
        async def two() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(2):
                    group.start_soon(get_late, transport, server)
            done.append(where)

        run(where, two)

    with ThreadPoolExecutor() as threads:
        waiting = [threads.submit(loop_of, where) for where in BACKENDS]
        while not (transport.snapshot() and pool_of(transport).waiting == 3):
            server.reached.wait(0.001)
        server.release()
        for each in waiting:
            each.result(PATIENCE)
    assert sorted(done) == sorted(BACKENDS)
    assert server.most_open <= 3


@both_schemes
def test_loops_that_are_closed_at_random_moments_lose_no_place(
    serve: Serve, transport: Transport
) -> None:
    server = serve()

    async def one(body: bytes) -> None:
        assert await get(transport, server, Request("PUT", "/", body=body)) == body

    def many_loops(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(15):
            loop = dice.choice([asyncio.new_event_loop, new_uvloop])()
            for _ in range(8):
                task: Any = loop.create_task(one(bytes(dice.choice([1, 1000, 1_000_000]))))
                task._log_destroy_pending = False
            loop.run_until_complete(asyncio.sleep(dice.random() * 0.02))
            loop.close()

    with ThreadPoolExecutor() as threads:
        list(threads.map(many_loops, range(3)))
    gc.collect()
    assert_nothing_in_use(transport)
    asyncio.run(one(b"x"))
