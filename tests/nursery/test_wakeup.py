"""The wake-up of one task: it is never lost, whatever it meets."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from seamless_remote.nursery.waiter import WakeUp, wake_up

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
async def test_a_wait_that_looks_does_so_when_it_is_told_to_until_it_is_woken() -> None:
    looks: list[float | None] = [0.0, 0.001, None, 1.0]
    turn = wake_up()

    def look() -> float | None:
        following = looks.pop(0)
        if following is None:
            turn.set()
        return following

    with anyio.fail_after(LONG):
        await turn.wait_looking(0.001, look)
    assert looks == [1.0]


@pytest.mark.anyio
async def test_a_wake_up_ends_a_wait_whose_next_look_is_far_away() -> None:
    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            turn = wake_up()
            tasks.start_soon(turn.wait_looking, 3600.0, pytest.fail)
            await anyio.wait_all_tasks_blocked()
            turn.set()
    assert turn.is_set()


def test_an_interrupt_in_the_middle_of_a_look_leaves_a_wait_that_can_be_cancelled() -> None:
    def interrupted() -> float:
        raise KeyboardInterrupt

    async def wait() -> None:
        await wake_up().wait_looking(0.0, interrupted)

    loop = asyncio.new_event_loop()
    task = loop.create_task(wait())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


def test_a_look_that_was_interrupted_is_not_the_last_one() -> None:
    looks = 0

    async def wait() -> None:
        turn = wake_up()

        def look() -> float:
            nonlocal looks
            looks += 1
            if looks == 1:
                raise KeyboardInterrupt
            turn.set()
            return 3600.0

        await turn.wait_looking(0.001, look)

    loop = asyncio.new_event_loop()
    task = loop.create_task(wait())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    loop.run_until_complete(asyncio.wait_for(task, LONG))
    loop.close()
    assert looks == 2
