"""Calls into a loop from other threads: none is lost, and one wake-up serves many."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint

from seamless_remote.nursery.event_loops import (
    PORTION,
    LoopClosedError,
    Mailbox,
    mailbox_of,
    running_loop,
    runs_task_of,
    wait_for,
)

Start = Callable[..., Future[Any]]


@pytest.mark.anyio
async def test_calls_posted_by_many_threads_are_all_made_in_each_poster_s_order(
    threaded: Start,
) -> None:
    mailbox = mailbox_of(running_loop())
    made: list[tuple[int, int]] = []
    all_made = anyio.Event()

    def note(entry: tuple[int, int]) -> None:
        made.append(entry)
        if len(made) == 8 * 500:
            all_made.set()

    def post_each(poster: int) -> None:
        for number in range(500):
            mailbox.post(lambda entry=(poster, number): note(entry))

    for poster in range(8):
        threaded(post_each, poster)
    await all_made.wait()
    for poster in range(8):
        assert [number for who, number in made if who == poster] == list(range(500))


@pytest.mark.anyio
async def test_one_wake_up_serves_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox = mailbox_of(running_loop())
    wake_ups: list[None] = []
    wake = type(mailbox)._wake
    monkeypatch.setattr(type(mailbox), "_wake", lambda self: (wake_ups.append(None), wake(self)))
    made = anyio.Event()
    for _ in range(PORTION - 1):
        mailbox.post(lambda: None)
    mailbox.post(made.set)
    await made.wait()
    assert len(wake_ups) == 1


@pytest.mark.anyio
async def test_the_loop_turns_between_the_portions_of_a_burst() -> None:
    mailbox = mailbox_of(running_loop())
    turns: list[int] = []
    made: list[None] = []
    for _ in range(10 * PORTION):
        mailbox.post(lambda: made.append(None))
    while len(made) < 10 * PORTION:
        await checkpoint()
        turns.append(len(made))
    assert (
        max(later - sooner for sooner, later in zip([0, *turns], turns, strict=False))
        <= 2 * PORTION
    )


@pytest.mark.anyio
async def test_a_bell_that_has_left_does_not_silence_the_one_that_came_after() -> None:
    mailbox = mailbox_of(running_loop())
    rung = anyio.Event()

    def first() -> None:
        raise AssertionError("it has left")

    mailbox.attend(first)
    ring = rung.set
    mailbox.attend(ring)
    mailbox.leave(first)
    mailbox.post(lambda: None)
    await rung.wait()
    made: list[str] = []
    mailbox.post(lambda: made.append("left over"))
    mailbox.leave(ring)
    assert made == ["left over"]


@pytest.mark.anyio
async def test_a_failing_call_does_not_keep_the_next_from_being_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mailbox = mailbox_of(running_loop())
    made = anyio.Event()

    def fail() -> None:
        raise ValueError("on purpose")

    mailbox.post(fail)
    mailbox.post(made.set)
    await made.wait()
    assert "on purpose" in caplog.text


def test_a_closed_loop_takes_no_call() -> None:
    loop = asyncio.new_event_loop()
    mailbox = mailbox_of(loop)
    loop.close()
    for _ in range(3):
        assert mailbox.is_closed()
        with pytest.raises(LoopClosedError):
            mailbox.post(lambda: None)


def test_a_loop_that_is_closed_with_a_wake_up_under_way_takes_no_more_calls() -> None:
    loop = asyncio.new_event_loop()
    mailbox = mailbox_of(loop)
    mailbox.post(lambda: None)
    loop.close()
    with pytest.raises(LoopClosedError):
        mailbox.post(lambda: None)


def test_a_loop_that_is_garbage_takes_no_call() -> None:
    loop = asyncio.new_event_loop()
    mailbox = mailbox_of(loop)
    loop.close()
    del loop
    gc.collect()
    assert mailbox.is_closed()
    with pytest.raises(LoopClosedError):
        mailbox.post(lambda: None)


def test_a_trio_run_that_has_ended_takes_no_call() -> None:
    async def main() -> Mailbox:
        return mailbox_of(running_loop())

    mailbox = trio.run(main)
    assert mailbox.is_closed()
    with pytest.raises(LoopClosedError):
        mailbox.post(lambda: None)


def test_an_interrupted_wake_up_does_not_silence_the_mailbox() -> None:
    class Interrupted(Mailbox):
        wake_ups = 0

        def _wake(self) -> None:
            self.wake_ups += 1
            if self.wake_ups == 1:
                raise KeyboardInterrupt

        def is_closed(self) -> bool:
            return False

        def _wake_up_is_lost(self) -> bool:
            return False

    mailbox = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        mailbox.post(lambda: None)
    mailbox.post(lambda: None)
    assert mailbox.wake_ups == 2


@pytest.mark.anyio
async def test_a_loop_that_was_given_up_is_stalled_until_it_turns(threaded: Start) -> None:
    mailbox = mailbox_of(running_loop())
    posted = threading.Event()
    threaded(lambda: (mailbox.post(lambda: None), posted.set()))
    posted.wait()
    assert not mailbox.is_stalled()
    since = mailbox.waiting_since()
    assert since is not None
    mailbox.give_up(since)
    assert mailbox.is_stalled()
    made = anyio.Event()
    mailbox.post(made.set)
    await made.wait()
    assert not mailbox.is_stalled()
    assert mailbox.waiting_since() is None


@pytest.mark.anyio
async def test_a_bare_callback_is_no_task_of_its_loop(anyio_backend: str) -> None:
    here = running_loop()
    assert runs_task_of(here)
    if anyio_backend == "asyncio":
        answer: asyncio.Future[bool] = here.create_future()
        here.call_soon(lambda: answer.set_result(runs_task_of(here)))
        assert await answer is False


@pytest.mark.anyio
async def test_waiting_for_a_thread_s_future_gives_its_outcome(threaded: Start) -> None:
    assert await wait_for(threaded(lambda: 3)) == 3
    with pytest.raises(ZeroDivisionError):
        await wait_for(threaded(lambda: 1 / 0))


@pytest.mark.anyio
async def test_cancelling_a_wait_leaves_the_future_to_others() -> None:
    future: Future[int] = Future()
    with anyio.move_on_after(0):
        await wait_for(future)
    future.set_result(5)
    assert await wait_for(future) == 5
