"""The wake-up of one task: it is never lost, whatever it meets."""

from __future__ import annotations

import anyio
import pytest

from seamless_remote.nursery.wakeup import WakeUp, wake_up

LONG = 20.0


@pytest.mark.anyio
async def test_a_wake_up_ends_the_wait_that_came_before_it_and_the_one_after_it() -> None:
    async def wait(event: WakeUp) -> None:
        await event.wait()

    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            before, after = wake_up(), wake_up()
            tasks.start_soon(wait, before)
            await anyio.wait_all_tasks_blocked()
            assert not before.is_set()
            for each in (before, after, after):
                each.set()
            await after.wait()
    assert before.is_set()


@pytest.mark.anyio
async def test_a_wake_up_that_comes_after_the_cancellation_of_its_wait_is_noted() -> None:
    turn = wake_up()
    with anyio.move_on_after(0) as scope:
        await turn.wait()
    assert scope.cancelled_caught
    assert not turn.is_set()
    turn.set()
    assert turn.is_set()


@pytest.mark.anyio
async def test_a_bounded_wait_ends_with_the_wake_up_or_the_time() -> None:
    with anyio.fail_after(LONG):
        await wake_up().wait_at_most(0.001)
        async with anyio.create_task_group() as tasks:
            turn = wake_up()
            tasks.start_soon(turn.wait_at_most, 3600.0)
            await anyio.wait_all_tasks_blocked()
            turn.set()
