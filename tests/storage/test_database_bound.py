"""One bound on the database requests in flight, for all loops of a process together."""

from __future__ import annotations

import threading
from collections.abc import Callable

import anyio
import anyio.to_thread
import pytest
from counting_proxy import CountingProxy
from hosts import Host
from loops import KINDS
from registering import use_databases
from services import Home, Service, run_script
from stored_buffers import checksum_of, fresh

import seamless_remote
from seamless_remote import Settings, database_remote

BOUND = 7
LOOPS = 3
LOOK_UPS = 200


async def look_up_many(count: int) -> None:
    async with anyio.create_task_group() as task_group:
        for _ in range(count):
            task_group.start_soon(database_remote.get_transformation_result, checksum_of(fresh(30)))


@pytest.mark.parametrize("backend", KINDS)
def test_look_ups_of_several_loops_together_keep_to_the_bound(
    backend: str,
    fresh_remote: None,
    shared_database: Service,
    proxy: Callable[[Service], CountingProxy],
) -> None:
    between = proxy(shared_database)
    settings = Settings(database_max_inflight=BOUND)
    host = Host(backend, True, settings)
    barrier = threading.Barrier(LOOPS)

    def in_a_loop() -> None:
        barrier.wait()
        anyio.run(look_up_many, LOOK_UPS)

    async def main() -> None:
        use_databases(between)
        with between.hold("GET / "):
            async with anyio.create_task_group() as task_group:
                for _ in range(LOOPS):
                    task_group.start_soon(anyio.to_thread.run_sync, in_a_loop)
                await anyio.to_thread.run_sync(between.wait_for_held, BOUND)
                nursery = seamless_remote.current_nursery()
                assert nursery is not None
                limiter = nursery.snapshot().limiter
                assert limiter.bound == BOUND
                assert limiter.in_flight < BOUND + LOOPS
                between.release()
        limiter = nursery.snapshot().limiter
        assert (limiter.in_flight, limiter.waiting) == (0, 0)

    host.run(main)
    assert between.count("GET / ") == LOOPS * LOOK_UPS
    # Each loop may always have one in flight.
    assert BOUND <= between.peak_of("GET / ") < BOUND + LOOPS


@pytest.mark.parametrize("bound", ["3", "0"])
def test_the_bound_is_read_from_the_environment(
    bound: str,
    home: Home,
    shared_database: Service,
    proxy: Callable[[Service], CountingProxy],
) -> None:
    between = proxy(shared_database)
    done = run_script(
        FROM_THE_ENVIRONMENT,
        home=home,
        env={"SEAMLESS_DATABASE_MAX_INFLIGHT": bound, "DATABASE": between.url},
    )
    assert done.stdout.split() == ["bound", bound]
    assert between.count("GET / ") == 100
    if bound != "0":
        assert between.peak_of("GET / ") <= int(bound)


FROM_THE_ENVIRONMENT = """
import asyncio, os
import seamless
import seamless_remote
from seamless_remote import database_remote

database_remote.define_extern_client("d", "database", url=os.environ["DATABASE"])
database_remote.activate(no_main=True, extern_clients=["d"])

async def main():
    checksums = [seamless.Checksum(bytes([n] * 32)) for n in range(100)]
    asked = (database_remote.get_transformation_result(each) for each in checksums)
    assert set(await asyncio.gather(*asked)) == {None}
    print("bound", seamless_remote.current_nursery().snapshot().limiter.bound)

asyncio.run(main())
seamless.close()
"""


def test_a_cancelled_look_up_gives_its_place_to_the_next(
    host: Host, shared_database: Service, proxy: Callable[[Service], CountingProxy]
) -> None:
    between = proxy(shared_database)
    host.settings = Settings(database_max_inflight=2)

    async def main() -> None:
        use_databases(between)
        with between.hold("GET / "):
            for _ in range(3):
                async with anyio.create_task_group() as task_group:
                    task_group.start_soon(look_up_many, 10)
                    await anyio.to_thread.run_sync(between.wait_for_held, 2)
                    task_group.cancel_scope.cancel()
        await look_up_many(10)
        nursery = seamless_remote.current_nursery()
        assert nursery is not None
        limiter = nursery.snapshot().limiter
        assert (limiter.in_flight, limiter.waiting) == (0, 0)

    host.run(main)


@pytest.mark.parametrize("backend", KINDS)
def test_look_ups_that_have_not_begun_are_counted_as_waiting(
    backend: str,
    fresh_remote: None,
    shared_database: Service,
    proxy: Callable[[Service], CountingProxy],
) -> None:
    between = proxy(shared_database)
    host = Host(backend, True, Settings(database_max_inflight=BOUND))

    async def main() -> None:
        use_databases(between)
        with between.hold("GET / "):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(look_up_many, LOOK_UPS)
                await anyio.to_thread.run_sync(between.wait_for_held, BOUND)
                nursery = seamless_remote.current_nursery()
                assert nursery is not None
                snapshot = nursery.snapshot()
                assert len(snapshot.calls) == LOOK_UPS
                assert snapshot.limiter.in_flight == BOUND
                assert snapshot.limiter.waiting == LOOK_UPS - BOUND
                between.release()
        assert nursery.snapshot().calls == ()

    host.run(main)
    assert between.peak_of("GET / ") == BOUND
