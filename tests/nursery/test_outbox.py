"""What goes out of a loop in one turn wakes each loop that it goes to once."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from seamless_remote.nursery.event_loops import LoopClosedError, Mailbox, running_loop
from seamless_remote.nursery.outbox import Outbox


class Home(Mailbox):
    """A loop that notes how often it is woken."""

    def __init__(self, *, closed: bool = False) -> None:
        super().__init__()
        self.closed = closed
        self.wake_ups = 0

    def is_closed(self) -> bool:
        return self.closed

    def _wake(self) -> None:
        if self.closed:
            raise LoopClosedError("closed")
        self.wake_ups += 1

    def _wake_up_is_lost(self) -> bool:
        return self.closed


@pytest.mark.anyio
async def test_the_calls_of_one_turn_go_out_in_their_order_with_one_wake_up() -> None:
    outbox, home, other = Outbox(running_loop()), Home(), Home()
    made: list[int] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outbox.run)
        await anyio.wait_all_tasks_blocked()
        for number in range(20):
            outbox.send(home, lambda number=number: made.append(number))
        outbox.send(other, lambda: None)
        assert (home.wake_ups, other.wake_ups) == (0, 0)
        await anyio.wait_all_tasks_blocked()
        assert (home.wake_ups, other.wake_ups) == (1, 1)
        assert not home.drain()
        outbox.send(home, lambda: made.append(20))
        await anyio.wait_all_tasks_blocked()
        assert home.wake_ups == 2
        assert not home.drain()
        tasks.cancel_scope.cancel()
    assert made == list(range(21))


@pytest.mark.anyio
async def test_the_last_call_for_now_takes_the_others_along_at_once() -> None:
    outbox, home, other = Outbox(running_loop()), Home(), Home()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outbox.run)
        await anyio.wait_all_tasks_blocked()
        outbox.send(other, lambda: None)
        outbox.send(home, lambda: None)
        outbox.send(home, lambda: None, last=True)
        assert (home.wake_ups, other.wake_ups) == (1, 1)
        await anyio.wait_all_tasks_blocked()
        assert (home.wake_ups, other.wake_ups) == (1, 1)
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_what_is_left_at_the_end_goes_out() -> None:
    outbox, home = Outbox(running_loop()), Home()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outbox.run)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        outbox.send(home, lambda: None)
    assert home.wake_ups == 1


def test_outside_of_its_run_it_posts_at_once() -> None:
    outbox, home = Outbox(running_loop()), Home()
    outbox.send(home, lambda: None)
    assert home.wake_ups == 1


@pytest.mark.anyio
async def test_a_loop_that_has_ended_does_not_keep_others_from_their_calls() -> None:
    outbox, ended, home = Outbox(running_loop()), Home(closed=True), Home()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outbox.run)
        await anyio.wait_all_tasks_blocked()
        outbox.send(ended, lambda: None)
        outbox.send(home, lambda: None)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert home.wake_ups == 1
