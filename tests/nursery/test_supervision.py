"""Background tasks that fail are started again with growing pauses, and given up in the end."""

from __future__ import annotations

import itertools

import anyio
import pytest
import trio
from trio.testing import MockClock

from seamless_remote.clients.health import Health, HealthRecord
from seamless_remote.nursery.supervision import SupervisedTask


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


def test_health_goes_down_with_failures_in_a_row_and_each_change_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    health = HealthRecord("the service")
    assert health.state is Health.UNKNOWN
    for _ in range(3):
        health.success(0.01)
    assert health.state is Health.UP
    health.failure("broken")
    assert health.state is Health.DEGRADED
    for _ in range(5):
        health.failure("broken")
    assert health.state is Health.DOWN
    health.success(0.01)
    assert health.state is Health.UP
    health.mark_down("given up")
    assert health.state is Health.DOWN
    health.mark_down("given up")
    assert len(caplog.records) == 5
