"""Background tasks that fail are started again with growing pauses, and given up in the end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys

import anyio
import pytest
import trio
from loops import ON_ASYNCIO
from trio.testing import MockClock

from seamless_remote.nursery import supervision
from seamless_remote.nursery.supervision import SupervisedTask

SINCE_3_11 = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="Python 3.10 does not count the cancellations of a task"
)


@pytest.mark.trio
async def test_a_failing_task_is_started_again_after_pauses_that_double(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    starts: list[float] = []
    reasons: list[str] = []

    async def work() -> None:
        starts.append(trio.current_time())
        raise LookupError("on purpose")

    task = SupervisedTask("a test", work, on_given_up=reasons.append)
    await task.run()
    pauses = [later - sooner for sooner, later in itertools.pairwise(starts)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert reasons == ["LookupError: on purpose"]
    assert (task.snapshot().state, task.snapshot().restarts) == ("failed", 4)
    assert caplog.text.count("Traceback") == 5


@pytest.mark.trio
async def test_failures_that_are_rare_do_not_add_up(autojump_clock: MockClock) -> None:
    ends: list[float] = []
    starts: list[float] = []

    async def work() -> None:
        starts.append(trio.current_time())
        await trio.sleep(300)
        ends.append(trio.current_time())
        if len(ends) == 20:
            return
        raise LookupError("on purpose")

    task = SupervisedTask("a test", work)
    await task.run()
    assert task.snapshot().state == "ended"
    assert task.restarts == 19
    assert [start - end for end, start in zip(ends, starts[1:], strict=False)] == pytest.approx(
        [0.1] * 19
    )


@pytest.mark.anyio
async def test_stopping_ends_a_task_that_runs_and_one_that_pauses() -> None:
    async def run_on() -> None:
        await anyio.sleep_forever()

    async def fail() -> None:
        raise LookupError("on purpose")

    for work in (run_on, fail):
        task = SupervisedTask("a test", work)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(task.run)
            await anyio.wait_all_tasks_blocked()
            task.stop()
        assert task.snapshot().state == "ended"


@pytest.mark.anyio
async def test_a_task_that_is_stopped_before_it_began_does_not_run() -> None:
    async def work() -> None:
        await anyio.sleep_forever()

    task = SupervisedTask("a test", work)
    task.stop()
    with anyio.fail_after(10):
        await task.run()
    assert task.snapshot().state == "ended"


class Ends:
    """Work that fails, in one way or another, when it is cancelled."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.begun = anyio.Event()

    async def __call__(self) -> None:
        if self.way == "in a task group":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._fail_at_the_end)
                await anyio.sleep_forever()
        elif self.way == "quietly":
            with contextlib.suppress(anyio.get_cancelled_exc_class()):
                self.begun.set()
                await anyio.sleep_forever()
        else:
            await self._fail_at_the_end()

    async def _fail_at_the_end(self) -> None:
        try:
            self.begun.set()
            await anyio.sleep_forever()
        finally:
            raise LookupError("on purpose")


@pytest.mark.anyio
@pytest.mark.parametrize("stopped", [True, False])
@pytest.mark.parametrize("way", ["alone", "in a task group", "quietly"])
async def test_a_task_that_fails_while_it_is_cancelled_does_not_fail_the_group(
    caplog: pytest.LogCaptureFixture, way: str, stopped: bool
) -> None:
    work = Ends(way)
    task = SupervisedTask("a test", work)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(task.run)
        await work.begun.wait()
        if stopped:
            task.stop()
            await anyio.wait_all_tasks_blocked()
            assert task.is_over
        else:
            tasks.cancel_scope.cancel()
    assert (way == "quietly") is ("on purpose" not in caplog.text)


@pytest.mark.anyio
async def test_a_task_that_fails_for_the_last_time_while_it_is_cancelled_lets_that_go_on() -> None:
    work = Ends("in a task group")
    task = SupervisedTask("a test", work)
    task._failed_at.extend(4 * [anyio.current_time()])
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(task.run)
            await work.begun.wait()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught


@SINCE_3_11
@pytest.mark.anyio
@ON_ASYNCIO
async def test_a_task_that_meets_a_cancelled_future_has_failed_and_is_not_cancelled(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.001)
    starts: list[bool] = []

    async def work() -> None:
        starts.append(True)
        if len(starts) == 1:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    task = SupervisedTask("a test", work)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(task.run)
    assert not tasks.cancel_scope.cancel_called
    assert (task.snapshot().state, task.restarts) == ("ended", 1)
    assert "CancelledError" in caplog.text


@pytest.mark.anyio
@ON_ASYNCIO
async def test_a_native_cancellation_ends_a_task() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.sleep(3600)

    running = asyncio.ensure_future(SupervisedTask("a test", work).run())
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.anyio
async def test_a_failure_to_give_up_is_logged_and_ends_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.001)

    async def work() -> None:
        raise LookupError("on purpose")

    def give_up(reason: str) -> None:
        raise ValueError("this too")

    task = SupervisedTask("a test", work, on_given_up=give_up)
    await task.run()
    assert task.snapshot().state == "failed"
    assert "this too" in caplog.text
