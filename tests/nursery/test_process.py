"""Which nursery is current: hosts, the hosted one, and the services that move between them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from typing import Any

import anyio
import pytest
from loops import KINDS, run
from signals import LONG, Signal, outcome_of, until

import seamless_remote
from seamless_remote import NurseryOpenError, Settings
from seamless_remote.nursery import process, supervision
from seamless_remote.nursery.calling import call, call_blocking
from seamless_remote.nursery.calls import Call
from seamless_remote.nursery.event_loops import running_loop
from seamless_remote.nursery.hosted_thread import THREAD_NAME, HostedThread
from seamless_remote.nursery.nursery import NurseryState
from seamless_remote.nursery.service import BackgroundTask, Service

Start = Callable[..., Future[Any]]


class Background:
    """A background task that notes how often it runs, and fails or hangs if it is to."""

    def __init__(self) -> None:
        self.running = 0
        self.begun = Signal()
        self.given_up = Signal()
        self.failing: BaseException | None = None
        self.failing_at_the_end: BaseException | None = None
        self.may_end = Signal()
        self.may_end.set()
        self.reason = ""

    async def run(self, call: Call) -> None:
        self.running += 1
        self.begun.set()
        try:
            if self.failing is not None:
                raise self.failing
            await anyio.sleep_forever()
        finally:
            self.running -= 1
            with anyio.CancelScope(shield=True):
                await self.may_end.reached()
            if self.failing_at_the_end is not None:
                raise self.failing_at_the_end

    def give_up(self, reason: str) -> None:
        self.reason = reason
        self.given_up.set()


class Noting(Service):
    """A service that notes what is done with it. `background` is its first task, if it has any."""

    def __init__(self, name: str = "noting", *, tasks: int = 1) -> None:
        super().__init__(name)
        self.backgrounds = [Background() for _ in range(tasks)]
        self.released = Signal()
        self.remaining: list[Service] = []
        self.requests = 0

    @property
    def background(self) -> Background:
        return self.backgrounds[0]

    @property
    def running(self) -> int:
        return sum(each.running for each in self.backgrounds)

    def tasks(self) -> Sequence[BackgroundTask]:
        return [
            BackgroundTask(f"{self.name} {number}", each.run, each.give_up)
            for number, each in enumerate(self.backgrounds)
        ]

    def in_flight(self) -> int:
        return self.requests

    def release(self, remaining: Collection[Service]) -> None:
        self.remaining = list(remaining)
        self.released.set()

    def client_snapshots(self) -> tuple[Any, ...]:
        return ()


async def answer(this: Call) -> str:
    await anyio.lowlevel.checkpoint()
    return "here"


def hosted_threads() -> int:
    return [each.name for each in threading.enumerate()].count(THREAD_NAME)


async def states(expected: list[str]) -> None:
    """Wait until the services of the current nursery have these states."""
    nursery = process.current_nursery()
    assert nursery is not None
    with anyio.fail_after(LONG):
        while [each.state for each in nursery.snapshot().services] != expected:
            await anyio.lowlevel.checkpoint()


# Hosts.


@pytest.mark.anyio
async def test_a_nursery_is_current_while_its_block_is_open() -> None:
    async with seamless_remote.open_nursery() as nursery:
        assert seamless_remote.current_nursery() is nursery
        assert nursery.snapshot().as_dict()["state"] == "open"
    assert seamless_remote.current_nursery() is None
    assert nursery.snapshot().as_dict()["state"] == "closed"


@pytest.mark.anyio
async def test_a_second_host_is_told_that_one_is_open(elsewhere: Start) -> None:
    async def second() -> None:
        async with process.open_nursery():
            pass

    async with process.open_nursery() as nursery:
        with pytest.raises(NurseryOpenError):
            await second()
        for kind in KINDS:
            with pytest.raises(NurseryOpenError):
                await outcome_of(elsewhere(second, kind=kind))
        assert process.current_nursery() is nursery
        assert await call("a test", answer) == "here"


@pytest.mark.anyio
async def test_a_nursery_can_be_opened_again_and_again_in_one_loop() -> None:
    for _ in range(5):
        async with process.open_nursery() as nursery:
            assert process.current_nursery() is nursery
            assert await call("a test", answer) == "here"


@pytest.mark.anyio
async def test_the_settings_of_a_host_are_in_force_while_its_nursery_is_open() -> None:
    limiter = process.this_process().limiter
    usual = limiter.snapshot().bound
    chosen = Settings(database_max_inflight=3)

    async def settings_of(this: Call) -> Settings:
        return this.settings

    async with process.open_nursery(chosen):
        assert process.settings() is chosen
        assert await call("a test", settings_of) is chosen
        assert limiter.snapshot().bound == 3
    assert process.settings() is not chosen
    assert limiter.snapshot().bound == usual


@pytest.mark.anyio
async def test_while_a_nursery_ends_another_may_be_opened_in_its_loop() -> None:
    begun, may_end = Signal(), Signal()
    ending = anyio.Event()

    async def slow(this: Call) -> str:
        begun.set()
        await until(may_end)
        return "done"

    async def ask() -> None:
        answers.append(await call("a test", slow))

    async def first() -> None:
        async with process.open_nursery(Settings(grace_period=3600.0)) as nursery:
            nurseries.append(nursery)
            tasks.start_soon(ask)
            await until(begun)
            ending.set()

    answers: list[str] = []
    nurseries: list[Any] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await ending.wait()
        await anyio.wait_all_tasks_blocked()
        async with process.open_nursery(Settings(grace_period=3600.0)) as nursery:
            assert nurseries[0].state is NurseryState.CLOSING
            may_end.set()
            assert await call("a test", answer) == "here"
            with anyio.fail_after(LONG):
                while nurseries[0].state is not NurseryState.CLOSED:
                    await anyio.lowlevel.checkpoint()
            assert answers == ["done"]
            assert process.current_nursery() is nursery


# The hosted nursery.


@pytest.mark.anyio
async def test_a_host_takes_the_services_over_from_the_hosted_nursery_and_leaves_them_to_one(
    elsewhere: Start,
) -> None:
    service = Noting()
    process.install(service)
    await until(service.background.begun)
    hosted = process.current_nursery()
    assert hosted is not None
    assert hosted.hosted
    service.background.begun.clear()
    begun, may_end = Signal(), Signal()

    async def slow(this: Call) -> str:
        begun.set()
        await until(may_end)
        return "done"

    async with process.open_nursery() as nursery:
        await until(service.background.begun)
        assert [each.state for each in nursery.snapshot().services] == ["running"]
        under_way = elsewhere(call, "a test", slow)
        await until(begun)
        service.background.begun.clear()
    await until(service.background.begun)
    nursery_of_others = process.current_nursery()
    assert nursery_of_others is not None
    assert nursery_of_others.hosted
    may_end.set()
    assert await outcome_of(under_way) == "done"
    assert not service.released.is_set()


def test_a_call_after_a_close_opens_a_nursery_again_with_the_services() -> None:
    service = Noting()
    process.install(service)
    for _ in range(3):
        assert service.background.begun.wait(LONG)
        service.background.begun.clear()
        process.close()
        assert service.running == 0
        assert process.current_nursery() is None
        assert hosted_threads() == 0
        assert call_blocking("a test", answer) == "here"
        assert process.current_nursery() is not None


@pytest.mark.parametrize("started", [True, False])
def test_an_interrupt_while_the_hosted_nursery_is_started_leaves_none(
    monkeypatch: pytest.MonkeyPatch, started: bool
) -> None:
    original = HostedThread.start

    def interrupted(self: HostedThread) -> None:
        if started:
            original(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(HostedThread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            process.install(Noting())
    assert process.current_nursery() is None
    process.close()
    assert hosted_threads() == 0
    assert call_blocking("a test", answer) == "here"
    assert hosted_threads() == 1


def test_calls_are_answered_while_nurseries_open_and_close_around_them(threaded: Start) -> None:
    over, answered = threading.Event(), Signal()

    def caller(kind: str) -> int:
        answers = 0
        while not over.is_set():
            assert run(kind, call, "a test", answer) == "here"
            answers += 1
            answered.set()
        return answers

    def closer() -> None:
        while not over.is_set():
            process.close()

    def installer() -> None:
        while not over.is_set():
            process.install(Noting())

    async def host() -> None:
        for number in range(10):
            async with process.open_nursery():
                for _ in range(number % 4):
                    answered.clear()
                    await until(answered)

    callers = [threaded(caller, kind) for kind in KINDS]
    others = [threaded(closer), threaded(installer)]
    try:
        for kind in KINDS:
            run(kind, host)
    finally:
        over.set()
    for each in others:
        each.result(LONG)
    assert all(each.result(LONG) for each in callers)


# Services.


@pytest.mark.anyio
async def test_a_service_starts_in_the_host_s_nursery_and_is_swapped_by_its_name(
    threaded: Start,
) -> None:
    old, new = Noting(), Noting()
    async with process.open_nursery(Settings(grace_period=3600.0)):
        process.install(old)
        await until(old.background.begun)
        old.requests = 1
        await outcome_of(threaded(process.install, new))
        await until(new.background.begun)
        await states(["running", "stopping"])
        assert not old.released.is_set()
        assert old.running == 1
        old.requests = 0
        await until(old.released)
        assert old.remaining == [new]
        await states(["running"])
        await anyio.wait_all_tasks_blocked()
        assert (old.running, new.running) == (0, 1)


@pytest.mark.anyio
@pytest.mark.parametrize("grace", [3600.0, 0.01])
async def test_a_replaced_service_has_its_grace_and_no_more(grace: float) -> None:
    old, new = Noting(), Noting()
    async with process.open_nursery(Settings(grace_period=grace)):
        process.install(old)
        await until(old.background.begun)
        old.requests = 1
        process.install(new)
        await until(new.background.begun)
        if grace < 1:
            await until(old.released)
            await states(["running"])
        await anyio.wait_all_tasks_blocked()
        assert old.released.is_set() is (grace < 1)
        assert (old.running, new.running) == (0 if grace < 1 else 1, 1)


@pytest.mark.anyio
async def test_installing_works_in_a_bare_callback_of_the_host_s_loop() -> None:
    service = Noting()
    async with process.open_nursery():
        here: Any = running_loop()
        if hasattr(here, "call_soon"):
            here.call_soon(process.install, service)
        else:
            here.run_sync_soon(process.install, service)
        assert service.running == 0
        await until(service.background.begun)
        assert service.running == 1


@pytest.mark.anyio
async def test_of_services_installed_by_many_threads_at_once_the_last_one_runs(
    threaded: Start,
) -> None:
    go = threading.Event()

    def install(service: Noting) -> None:
        go.wait()
        process.install(service)

    async with process.open_nursery():
        services = [Noting() for _ in range(33)]
        process.install(services[0])
        await until(services[0].background.begun)
        installs = [threaded(install, each) for each in services[1:]]
        go.set()
        for each in installs:
            await outcome_of(each)
        last = process.this_process().services["noting"]
        assert isinstance(last, Noting)
        await until(last.background.begun)
        await states(["running"])
        await anyio.wait_all_tasks_blocked()
        assert [each for each in services if each.running] == [last]
        assert last.running == 1


def test_a_service_with_nothing_to_run_starts_no_thread() -> None:
    process.install(Noting(tasks=0))
    assert hosted_threads() == 0


def test_installing_from_many_threads_at_once_starts_one_hosted_nursery(threaded: Start) -> None:
    services = [Noting(f"service {number}") for number in range(8)]
    for install in [threaded(process.install, each) for each in services]:
        install.result(LONG)
    assert hosted_threads() == 1
    for each in services:
        assert each.background.begun.wait(LONG)


@pytest.mark.anyio
async def test_closing_lets_a_host_s_nursery_rest_until_the_next_call(threaded: Start) -> None:
    service = Noting()
    async with process.open_nursery() as nursery:
        process.install(service)
        for _ in range(3):
            await until(service.background.begun)
            assert process.is_attended()
            service.background.begun.clear()
            service.released.clear()
            await outcome_of(threaded(process.close))
            assert not process.is_attended()
            await until(service.released)
            await states([])
            await anyio.wait_all_tasks_blocked()
            assert service.running == 0
            assert process.current_nursery() is nursery
            assert await call("a test", answer) == "here"
        process.close()
        process.close()
        await states([])
    assert hosted_threads() == 0


def test_closing_in_the_hosted_nursery_s_own_thread_does_not_wait_for_that() -> None:
    service = Noting()
    closed = Signal()

    async def close(this: Call) -> None:
        process.close()
        closed.set()

    service.background.run = close  # type: ignore[method-assign]
    process.install(service)
    assert closed.wait(LONG)
    process.close()
    assert hosted_threads() == 0


# Background tasks are supervised each on its own.


@pytest.mark.anyio
async def test_a_task_that_fails_too_often_is_down_and_ends_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.001)
    service, other = Noting(tasks=3), Noting("other")
    service.backgrounds[1].failing = LookupError("on purpose")
    async with process.open_nursery() as nursery:
        process.install(service)
        process.install(other)
        await until(service.backgrounds[1].given_up)
        await until(other.background.begun)
        assert [each.state for each in nursery.snapshot().services] == ["down", "running"]
        assert await call("a test", answer) == "here"
        await anyio.wait_all_tasks_blocked()
        assert [each.running for each in service.backgrounds] == [1, 0, 1]
        assert other.running == 1
    assert "on purpose" in service.backgrounds[1].reason
    assert caplog.text.count("LookupError: on purpose") == 5


@pytest.mark.anyio
async def test_a_task_that_does_not_end_when_it_is_stopped_delays_no_other() -> None:
    old, new = Noting(tasks=2), Noting()
    old.backgrounds[0].may_end = Signal()
    async with process.open_nursery():
        process.install(old)
        for each in old.backgrounds:
            await until(each.begun)
        process.install(new)
        await until(new.background.begun)
        await until(old.released)
        await states(["running"])
        old.backgrounds[0].may_end.set()


@pytest.mark.anyio
@pytest.mark.parametrize("ends", ["the service", "the nursery", "the host"])
async def test_a_task_that_fails_while_it_is_cancelled_ends_nothing_else(
    caplog: pytest.LogCaptureFixture, ends: str
) -> None:
    old, other = Noting(), Noting("other")
    begun, may_end = Signal(), Signal()

    class Failing(Background):
        async def run(self, call: Call) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.fail_at_the_end)
                self.begun.set()
                await anyio.sleep_forever()

        async def fail_at_the_end(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise LookupError("on purpose")

    async def slow(this: Call) -> str:
        begun.set()
        await until(may_end)
        return "done"

    async def ask() -> None:
        answers.append(await call("a test", slow))

    old.backgrounds = [Failing()]
    answers: list[str] = []
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            async with process.open_nursery(Settings(grace_period=3600.0)):
                process.install(old)
                process.install(other)
                await until(old.background.begun)
                await until(other.background.begun)
                tasks.start_soon(ask)
                await until(begun)
                if ends == "the service":
                    process.install(Noting())
                    await until(old.released)
                    await states(["running", "running"])
                    await anyio.wait_all_tasks_blocked()
                    assert other.running == 1
                may_end.set()
                if ends == "the host":
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught is (ends == "the host")
    assert answers == ["done"]
    assert "LookupError: on purpose" in caplog.text


# Workers.


def test_closing_waits_for_the_workers() -> None:
    process.this_process().settings = Settings(grace_period=3600.0)
    ended, may_end = threading.Event(), threading.Event()

    def work() -> None:
        may_end.wait(LONG)
        ended.set()

    process.start_worker("a test", work)
    (worker,) = process.this_process().workers
    original = worker.join

    def join(timeout: float | None = None) -> None:
        may_end.set()
        original(timeout)

    worker.join = join  # type: ignore[method-assign]
    process.close()
    assert ended.is_set()
