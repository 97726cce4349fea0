"""Which nursery is current: hosts, the hosted one, and the services that move between them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from signals import Signal, until

import seamless_remote
from seamless_remote import NurseryOpenError, Settings
from seamless_remote.nursery import current, process
from seamless_remote.nursery.hosted_thread import THREAD_NAME
from seamless_remote.nursery.event_loops import running_loop, wait_for
from seamless_remote.nursery.scope import Scope
from seamless_remote.nursery.service import Service
from seamless_remote.nursery.snapshot import ClientSnapshot

Start = Callable[..., Future[Any]]


class Noting(Service):
    """A service that notes what is done with it."""

    def __init__(self, name: str = "noting", *, clients: int = 1) -> None:
        super().__init__(name)
        self.clients = clients
        self.running = 0
        self.released = Signal()
        self.begun = Signal()
        self.given_up = Signal()
        self.requests = 0
        self.failing: BaseException | None = None
        self.down: str | None = None

    def idle(self) -> bool:
        return not self.clients

    async def run(self, scope: Scope) -> None:
        self.running += 1
        self.begun.set()
        try:
            if self.failing is not None:
                raise self.failing
            await anyio.sleep_forever()
        finally:
            self.running -= 1

    def in_flight(self) -> int:
        return self.requests

    def release(self, scope: Scope, remaining: Collection[Service]) -> None:
        self.released.set()

    def mark_down(self, reason: str) -> None:
        self.down = reason
        self.given_up.set()

    def client_snapshots(self) -> tuple[ClientSnapshot, ...]:
        return ()


async def thread_name(scope: Scope) -> str:
    await checkpoint()
    return threading.current_thread().name


def hosted_threads() -> int:
    return [each.name for each in threading.enumerate()].count(THREAD_NAME)


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
        with pytest.raises(NurseryOpenError):
            await wait_for(elsewhere(second))
        assert process.current_nursery() is nursery
        assert await process.call(thread_name) == threading.current_thread().name


@pytest.mark.anyio
async def test_a_nursery_can_be_opened_again_and_again_in_one_loop() -> None:
    for _ in range(5):
        async with process.open_nursery():
            assert await process.call(thread_name) == threading.current_thread().name


@pytest.mark.anyio
async def test_a_nursery_opened_while_the_last_one_of_its_loop_ends_hears_its_callers(
    elsewhere: Start,
) -> None:
    begun, may_end = Signal(), Signal()
    ending = anyio.Event()

    async def slow(scope: Scope) -> None:
        begun.set()
        await until(may_end)

    async def first() -> None:
        async with process.open_nursery():
            tasks.start_soon(process.call, slow)
            await until(begun)
            ending.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await ending.wait()
        await anyio.wait_all_tasks_blocked()
        async with process.open_nursery(Settings(handover_patience=3600.0)):
            may_end.set()
            for _ in range(20):
                name = await wait_for(elsewhere(process.call, thread_name))
                assert name == threading.current_thread().name


# The hosted nursery.


@pytest.mark.anyio
async def test_a_host_takes_over_from_the_hosted_nursery(elsewhere: Start) -> None:
    service = Noting()
    process.install(service)
    await until(service.begun)
    begun, may_end = Signal(), Signal()

    async def slow(scope: Scope) -> str:
        begun.set()
        await until(may_end)
        return threading.current_thread().name

    in_flight = elsewhere(process.call, slow)
    await until(begun)
    service.begun.clear()
    threading.Timer(0.02, may_end.set).start()
    async with process.open_nursery() as nursery:
        assert await wait_for(in_flight) == THREAD_NAME
        assert hosted_threads() == 0
        await until(service.begun)
        assert [each.state for each in nursery.snapshot().services] == ["running"]
        assert await wait_for(elsewhere(process.call, thread_name)) != THREAD_NAME
    assert service.running == 0


def test_closing_ends_the_hosted_thread_and_may_be_repeated(threaded: Start) -> None:
    process.close()
    assert process.call_blocking(thread_name) == THREAD_NAME
    closes = [threaded(process.close) for _ in range(8)]
    for close in closes:
        close.result(20)
        assert hosted_threads() == 0
    process.close()


def test_a_second_close_waits_for_the_first(elsewhere: Start, threaded: Start) -> None:
    begun, may_end = Signal(), Signal()

    async def slow(scope: Scope) -> None:
        begun.set()
        await until(may_end)

    call = elsewhere(process.call, slow)
    assert begun.wait(20)
    first = threaded(process.close)
    while process.current_nursery() is not None:
        pass
    second = threaded(process.close)
    assert not second.done()
    may_end.set()
    second.result(20)
    first.result(20)
    call.result(20)
    assert hosted_threads() == 0


def test_closing_from_the_nursery_s_own_thread_only_begins_the_end() -> None:
    async def close(scope: Scope) -> str:
        process.close()
        await checkpoint()
        return "closed"

    assert process.call_blocking(close) == "closed"
    process.close()
    assert hosted_threads() == 0


def test_a_call_after_a_close_opens_a_nursery_again() -> None:
    service = Noting()
    for _ in range(3):
        service.begun.clear()
        assert process.call_blocking(thread_name) == THREAD_NAME
        process.install(service)
        assert service.begun.wait(20)
        process.close()
        assert service.running == 0
        assert process.current_nursery() is None


def test_calls_are_answered_while_nurseries_open_and_close_around_them(threaded: Start) -> None:
    over, answered = threading.Event(), Signal()

    def caller() -> int:
        answers = 0
        while not over.is_set():
            assert anyio.run(process.call, thread_name) is not None
            answers += 1
            answered.set()
        return answers

    def closer() -> None:
        while not over.is_set():
            process.close()

    async def host() -> None:
        for number in range(10):
            async with process.open_nursery():
                for _ in range(number % 4):
                    answered.clear()
                    await until(answered)

    callers = [threaded(caller) for _ in range(4)]
    closing = threaded(closer)
    try:
        for backend in ("asyncio", "trio"):
            anyio.run(host, backend=backend)
    finally:
        over.set()
    closing.result(20)
    assert all(each.result(20) for each in callers)


# Services.


@pytest.mark.anyio
async def test_a_service_starts_in_the_host_s_nursery_and_is_swapped_by_its_name(
    threaded: Start,
) -> None:
    old, new = Noting(), Noting()
    async with process.open_nursery() as nursery:
        process.install(old)
        await until(old.begun)
        old.requests = 1
        await wait_for(threaded(process.install, new))
        await until(new.begun)
        # The new one's task and the one that retires the old one start in either order.
        while len(nursery.snapshot().services) < 2:
            await anyio.lowlevel.checkpoint()
        assert [each.state for each in nursery.snapshot().services] == ["running", "stopping"]
        assert not old.released.is_set()
        old.requests = 0
        await until(old.released)
        await anyio.wait_all_tasks_blocked()
        assert (old.running, new.running) == (0, 1)


@pytest.mark.anyio
async def test_a_replaced_service_has_its_grace_and_no_more() -> None:
    for grace, is_over in ((3600.0, False), (0.01, True)):
        old, new = Noting(), Noting()
        async with process.open_nursery(Settings(grace_period=grace)) as nursery:
            process.install(old)
            await until(old.begun)
            old.requests = 1
            process.install(new)
            await until(new.begun)
            if is_over:
                await until(old.released)
            await anyio.wait_all_tasks_blocked()
            assert old.released.is_set() is is_over
            assert (old.running, new.running) == (0 if is_over else 1, 1)
            states = [each.state for each in nursery.snapshot().services]
            assert states == (["running"] if is_over else ["running", "stopping"])


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
        await until(service.begun)
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
        await until(services[0].begun)
        installs = [threaded(install, each) for each in services[1:]]
        go.set()
        for each in installs:
            await wait_for(each)
        last = current._process.services["noting"]
        assert isinstance(last, Noting)
        await until(last.begun)
        await anyio.wait_all_tasks_blocked()
        assert [each for each in services if each.running] == [last]
        assert last.running == 1


def test_a_service_without_clients_starts_no_thread() -> None:
    process.install(Noting(clients=0))
    assert hosted_threads() == 0


def test_installing_from_two_threads_at_once_starts_one_hosted_nursery(threaded: Start) -> None:
    services = [Noting(f"service {number}") for number in range(8)]
    for install in [threaded(process.install, each) for each in services]:
        install.result(20)
    assert hosted_threads() == 1
    for each in services:
        assert each.begun.wait(20)


@pytest.mark.anyio
async def test_closing_lets_a_host_s_nursery_rest_until_the_next_call(threaded: Start) -> None:
    service = Noting()
    async with process.open_nursery() as nursery:
        process.install(service)
        await until(service.begun)
        await wait_for(threaded(process.close))
        await until(service.released)
        await anyio.wait_all_tasks_blocked()
        assert service.running == 0
        assert process.current_nursery() is nursery
        service.begun.clear()
        assert await process.call(thread_name) == threading.current_thread().name
        await until(service.begun)
        process.close()
        process.close()
        assert nursery.snapshot().services == ()


@pytest.mark.anyio
async def test_a_service_that_fails_too_often_is_down_and_the_calls_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from seamless_remote.nursery import supervision

    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.001)
    service = Noting()
    service.failing = LookupError("on purpose")
    async with process.open_nursery() as nursery:
        process.install(service)
        await until(service.given_up)
        assert [each.state for each in nursery.snapshot().services] == ["down"]
        assert await process.call(thread_name) == threading.current_thread().name
    assert service.down is not None
    assert "on purpose" in service.down


# Workers.


def test_closing_waits_for_the_workers() -> None:
    ended = threading.Event()
    may_end = threading.Event()

    def work() -> None:
        may_end.wait(20)
        ended.set()

    process.start_worker("a test", work)
    threading.Timer(0.05, may_end.set).start()
    process.close()
    assert ended.is_set()
