"""Calls in a new loop on another thread, for callers whose own loop is of no use."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from loops import run
from signals import LONG, Signal, until

from seamless_remote.nursery.thread_call import ThreadCall

Start = Callable[..., Future[Any]]

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="none")


class Work:
    """Work that goes on until it is cancelled, or may end."""

    def __init__(self) -> None:
        self.begun = Signal()
        self.may_end = Signal()
        self.may_clean_up = Signal()
        self.may_clean_up.set()
        self.ended = Signal()
        self.cancelled = False

    async def __call__(self) -> str:
        self.begun.set()
        try:
            await until(self.may_end)
        except asyncio.CancelledError:
            self.cancelled = True
            with anyio.CancelScope(shield=True):
                await until(self.may_clean_up)
            raise
        finally:
            self.ended.set()
        return "outcome"


@pytest.mark.anyio
async def test_inside_any_loop_another_thread_does_it_while_this_one_waits() -> None:
    async def thread() -> tuple[int, str]:
        await anyio.lowlevel.checkpoint()
        return threading.get_ident(), VARIABLE.get()

    VARIABLE.set("by the caller")
    ident, variable = ThreadCall(thread).run_in_thread()
    assert ident != threading.get_ident()
    assert variable == "by the caller"


@pytest.mark.anyio
async def test_an_error_comes_out_of_it() -> None:
    async def fail() -> None:
        raise LookupError("on purpose")

    with pytest.raises(LookupError, match="on purpose"):
        ThreadCall(fail).run_in_thread()


def test_a_call_that_is_cancelled_before_it_begins_does_not_go_far() -> None:
    work = Work()
    call = ThreadCall(work)
    call.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        call.run()
    assert not work.begun.is_set() or work.cancelled


def test_a_call_is_cancelled_from_any_thread_and_cleans_up(threaded: Start) -> None:
    work = Work()
    work.may_clean_up.clear()
    call = ThreadCall(work)
    running = threaded(call.run)
    assert work.begun.wait(LONG)
    call.cancel()
    call.cancel()
    assert not running.done()
    work.may_clean_up.set()
    with pytest.raises(concurrent.futures.CancelledError):
        running.result(LONG)
    assert work.cancelled
    call.cancel()  # it is over


def test_a_cancellation_of_a_call_that_has_its_outcome_changes_nothing() -> None:
    async def work() -> str:
        call.cancel()
        return "outcome"

    call = ThreadCall(work)
    assert call.run() == "outcome"


@pytest.mark.parametrize("again", [False, True])
def test_cancelling_the_task_of_a_loop_inside_trio_waits_for_the_end_unless_it_is_repeated(
    again: bool,
) -> None:
    work = Work()
    work.may_clean_up.clear()

    async def in_asyncio() -> None:
        call = ThreadCall(work)
        task = asyncio.ensure_future(call.run_in_executor(asyncio.get_running_loop()))
        assert await asyncio.to_thread(work.begun.wait, LONG)
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
        if again:
            task.cancel()
        else:
            work.may_clean_up.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert work.ended.is_set() is not again
        work.may_clean_up.set()

    async def main() -> None:
        asyncio.run(in_asyncio())

    trio.run(main)
    assert work.ended.wait(LONG)


def test_an_interrupt_of_the_wait_cancels_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work()
    original = threading.Thread.join

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        if self.name == "seamless-remote-call" and not work.ended.is_set():
            assert work.begun.wait(LONG)
            raise KeyboardInterrupt
        original(self, timeout)

    async def main() -> None:
        ThreadCall(work).run_in_thread()

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("trio", main)
    assert work.ended.wait(LONG)
    assert work.cancelled
