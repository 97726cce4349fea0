"""A caller's loop may be closed, or dropped, in whatever state its calls are; so may they end.

Nothing is left of them, nobody is warned, and the calls of other loops go on.
"""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
import weakref
from collections.abc import Callable, Iterator

import anyio
import pytest
from loops import DROPPED, KINDS, Dropped, LoopThread, run
from many_calls import all_at_once
from services import Service, wait_until
from signals import LONG
from situations import SITUATIONS, Situation, World

from seamless_remote.client import close_all_clients
from seamless_remote.clients import jobserver
from seamless_remote.clients.base import CONTROL_LANE
from seamless_remote.clients.connections import connections
from seamless_remote.nursery.process import this_process
from seamless_remote.transport.pool import PoolSnapshot


@pytest.fixture
def world(
    request: pytest.FixtureRequest,
    fresh_remote: None,
    shared_hashserver: Service,
    shared_database: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    made = World(shared_hashserver, shared_database, monkeypatch, request)
    with made.end:
        yield made


def begin(dropped: Dropped, situation: Situation) -> None:
    """Run the calls in tasks of the loop until they have come to a stand; the loop stops then."""
    loop = dropped.loop

    async def until_reached() -> None:
        for call in situation.calls:
            task = asyncio.ensure_future(call())
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            dropped._tasks.append(task)
        deadline = time.monotonic() + LONG
        while not situation.reached():
            assert time.monotonic() < deadline
            assert not any(task.done() for task in dropped._tasks)
            await asyncio.sleep(0.005)

    loop.run_until_complete(until_reached())


@DROPPED
@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_loop_that_ends_amid_its_calls_leaves_nothing_and_is_in_nobodys_way(
    situation: str,
    kind: str,
    closed: bool,
    world: World,
    loop_threads: Callable[[str], LoopThread],
) -> None:
    made = SITUATIONS[situation](world)
    dropped = Dropped(kind)
    begin(dropped, made)
    alive = weakref.ref(dropped.loop)
    if closed:
        dropped.close()
    dropped.collect()
    with warnings.catch_warnings():
        # As in `collect`, which may come too early: a worker thread may just be about to let go of
        # what it has done for the loop.
        warnings.simplefilter("ignore", ResourceWarning)
        wait_until(lambda: gc.collect() >= 0 and alive() is None, what="the end of the loop")
    others_go_on(made, loop_threads)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_calls_that_are_cancelled_leave_nothing_and_are_in_nobodys_way(
    situation: str,
    kind: str,
    world: World,
    loop_threads: Callable[[str], LoopThread],
) -> None:
    world.patch.setattr(jobserver, "CANCEL_TIMEOUT", 0.1)
    made = SITUATIONS[situation](world)

    async def cancel_all() -> None:
        async with anyio.create_task_group() as group:
            for call in made.calls:
                group.start_soon(call)
            with anyio.fail_after(LONG):
                while not made.reached():  # noqa: ASYNC110 - others bring it about
                    await anyio.sleep(0.005)
            group.cancel_scope.cancel()

    run(kind, cancel_all)
    others_go_on(made, loop_threads)


def others_go_on(made: Situation, loop_threads: Callable[[str], LoopThread]) -> None:
    made.go_on()
    loop_threads("trio").start(all_at_once, made.others).result(LONG)
    limiter = this_process().limiter.snapshot()
    assert (limiter.in_flight, limiter.waiting) == (0, 0)
    assert this_process().calls.under_way() == []
    assert all(pool.in_use == pool.waiting == 0 for pool in lanes_of_calls())
    close_all_clients()


def lanes_of_calls() -> list[PoolSnapshot]:
    """All lanes but those of pings, which go on."""
    return [pool for pool in connections.snapshot() if pool.lane != CONTROL_LANE]
