"""The limiter: first come first served, no slot is ever lost, and its log is short."""

from __future__ import annotations

import logging

import anyio
import anyio.lowlevel
import pytest

from seamless_remote.nursery.limiter import Limiter


async def settle() -> None:
    await anyio.wait_all_tasks_blocked()


@pytest.mark.anyio
async def test_no_more_than_the_bound_hold_it_at_once() -> None:
    limiter = Limiter("limiter", 3)
    holding: list[int] = []

    async def hold() -> None:
        async with limiter:
            holding.append(limiter.snapshot().in_flight)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(hold)
    assert len(holding) == 50
    assert max(holding) == 3
    assert (limiter.snapshot().in_flight, limiter.snapshot().waiting) == (0, 0)


@pytest.mark.anyio
async def test_who_came_first_is_served_first() -> None:
    limiter = Limiter("limiter", 1)
    served: list[int] = []

    async def hold(number: int) -> None:
        async with limiter:
            served.append(number)

    async with anyio.create_task_group() as tasks, limiter:
        for number in range(50):
            tasks.start_soon(hold, number)
            await settle()
        assert limiter.snapshot().waiting == 50
    assert served == list(range(50))


@pytest.mark.anyio
async def test_a_newcomer_does_not_overtake_those_who_wait() -> None:
    limiter = Limiter("limiter", 1)
    served: list[str] = []

    async def hold(name: str) -> None:
        async with limiter:
            served.append(name)

    async with anyio.create_task_group() as tasks:
        await limiter.__aenter__()
        tasks.start_soon(hold, "waiting")
        await settle()
        await limiter.__aexit__(None, None, None)
        await hold("newcomer")
    assert served == ["waiting", "newcomer"]


@pytest.mark.anyio
async def test_cancelled_waiters_give_their_place_up_and_lose_no_slot() -> None:
    limiter = Limiter("limiter", 2)

    async def hold() -> None:
        async with limiter:
            await anyio.sleep_forever()

    async with limiter, limiter:
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(hold)
            await settle()
            tasks.cancel_scope.cancel()
        assert limiter.snapshot().waiting == 0
    with anyio.fail_after(10):
        async with limiter, limiter:
            assert limiter.snapshot().in_flight == 2


@pytest.mark.anyio
async def test_a_slot_that_comes_together_with_a_cancellation_goes_on_to_the_next() -> None:
    limiter = Limiter("limiter", 1)
    served = anyio.Event()

    async def cancelled(scope: anyio.CancelScope) -> None:
        with scope:
            async with limiter:
                await anyio.lowlevel.checkpoint()

    async def next_one() -> None:
        async with limiter:
            served.set()

    async with anyio.create_task_group() as tasks:
        await limiter.__aenter__()
        scope = anyio.CancelScope()
        tasks.start_soon(cancelled, scope)
        await settle()
        tasks.start_soon(next_one)
        await settle()
        scope.cancel()
        await limiter.__aexit__(None, None, None)
        with anyio.fail_after(10):
            await served.wait()
    assert limiter.snapshot().in_flight == 0


@pytest.mark.anyio
async def test_without_a_bound_nobody_waits() -> None:
    limiter = Limiter("limiter", 0)
    async with limiter, limiter, limiter:
        assert limiter.snapshot().in_flight == 3


@pytest.mark.anyio
async def test_saturation_and_drain_are_logged_once_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    limiter = Limiter("the limiter", 4)

    async def hold() -> None:
        async with limiter:
            await anyio.lowlevel.checkpoint()

    for _ in range(2):
        caplog.clear()
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(hold)
        assert [record.getMessage() for record in caplog.records] == [
            "the limiter: 4 requests in flight, the others wait",
            "the limiter: drained, no request waits any more",
        ]
