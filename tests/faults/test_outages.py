"""Services that are away: for good, for a moment, or stopped and woken again."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest
from fault_proxy import Fault, FaultProxy, Harm, Toward
from nursery_runs import BACKENDS, in_nursery
from played_answers import PlayedAnswer
from request_kinds import checksum_of, fresh_checksum, fresh_content, use
from seamless import Buffer, Checksum
from services import Service

import seamless_remote
from seamless_remote import Settings, buffer_remote, database_remote
from seamless_remote.client import Client
from seamless_remote.clients import retrying
from seamless_remote.clients.circuit import OPENS_AFTER
from seamless_remote.errors import NurseryClosedError, ServiceError, ServiceTimeout

CALLS = 150
PATIENT = Settings(read_timeout=20.0, healthcheck_timeout=5.0, grace_period=0.5)

Start = Callable[[Service], FaultProxy]


def refusal(status: int, *headers: str) -> PlayedAnswer:
    """A short answer after which the connection may serve again."""
    head = "\r\n".join([f"HTTP/1.1 {status} No", *headers, "Content-Length: 4", "", "busy"])
    return PlayedAnswer(f"{status}", lambda: [head.encode()], status=status)


def client_of(module: Any) -> Client:
    lists = (buffer_remote._read_server_clients, database_remote._read_database_clients)
    (client,) = lists[module is database_remote]
    return client


def circuit_is_open(client: Client) -> bool:
    endpoint = client.address.current()
    assert endpoint is not None
    return endpoint.circuit.is_open


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - what other threads do sets no event
            await anyio.sleep(0.005)


@pytest.fixture
def both(
    shared_hashserver: Service, shared_database: Service, faulty: Start
) -> tuple[FaultProxy, FaultProxy]:
    """Proxies before a hashserver and a database; `use_both` puts them in effect."""
    return faulty(shared_hashserver), faulty(shared_database)


def use_both(both: tuple[FaultProxy, FaultProxy]) -> None:
    use(buffer_remote, both[0].url)
    use(database_remote, both[1].url)


@pytest.mark.parametrize("backend", BACKENDS)
def test_services_that_are_away_for_good_get_fewer_requests_than_there_are_calls(
    backend: str, both: tuple[FaultProxy, FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "PATIENCE", 0.3)
    errors: list[tuple[str, ServiceError]] = []

    async def call(url: str, of: Awaitable[Any]) -> None:
        with pytest.raises(ServiceError) as caught:
            await of
        errors.append((url, caught.value))

    async def body() -> None:
        use_both(both)
        for proxy in both:
            proxy.put(Fault(Harm.RESET, Toward.SERVICE, times=10**6))
        async with anyio.create_task_group() as group:
            for _ in range(CALLS):
                get = buffer_remote.get_buffer(fresh_checksum())
                look_up = database_remote.get_transformation_result(fresh_checksum())
                group.start_soon(call, both[0].url, get)
                group.start_soon(call, both[1].url, look_up)

    in_nursery(backend, PATIENT, body)
    assert len(errors) == 2 * CALLS
    for url, error in errors:
        message = str(error)
        assert f"at {url}: " in message
        assert message.startswith(("hashserver", "database"))
        assert "failed" in message or "was not tried" in message
        assert "closed" in message or "broke off" in message or "reset" in message, message
    for proxy in both:
        assert OPENS_AFTER <= len(proxy.requests()) < CALLS


@pytest.mark.parametrize("backend", BACKENDS)
def test_calls_that_meet_an_outage_wait_for_its_end_without_asking(
    backend: str, both: tuple[FaultProxy, FaultProxy]
) -> None:
    outcomes = []

    async def call() -> None:
        outcomes.append(await database_remote.get_transformation_result(fresh_checksum()))

    async def body() -> None:
        use_both(both)
        proxy, client = both[1], client_of(database_remote)
        async with anyio.create_task_group() as group:
            with proxy.play(refusal(503)):
                for _ in range(CALLS):
                    group.start_soon(call)
                await until(lambda: circuit_is_open(client))
                await until(lambda: _is_quiet(proxy))
                asked = len(proxy.requests())
                pings = len(proxy.pings())
                await until(lambda: len(proxy.pings()) > pings + 1)
                assert len(proxy.requests()) == asked
                assert not outcomes
        assert not circuit_is_open(client)

    in_nursery(backend, PATIENT, body)
    assert outcomes == [None] * CALLS


def _is_quiet(proxy: FaultProxy) -> bool:
    before = len(proxy.requests())
    time.sleep(0.05)
    return len(proxy.requests()) == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_ping_of_keepalive_closes_the_circuit_of_a_service_that_nobody_asks(
    backend: str, both: tuple[FaultProxy, FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "PATIENCE", 0.0)

    async def body() -> None:
        use_both(both)
        proxy, client = both[1], client_of(database_remote)
        proxy.refuse()
        while not circuit_is_open(client):
            with pytest.raises(ServiceError, match="Connection refused"):
                await database_remote.get_transformation_result(fresh_checksum())
        proxy.heal()
        await until(lambda: not circuit_is_open(client))
        assert await database_remote.get_transformation_result(fresh_checksum()) is None

    in_nursery(backend, replace(PATIENT, keepalive_interval=0.05), body)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_asks_to_be_left_alone_for_a_while_is(
    backend: str, status: int, both: tuple[FaultProxy, FaultProxy]
) -> None:
    async def body() -> None:
        use_both(both)
        proxy = both[1]
        async with anyio.create_task_group() as group:
            with proxy.play(refusal(status, "Retry-After: 1"), only="GET / "):
                started = time.monotonic()
                group.start_soon(database_remote.get_transformation_result, fresh_checksum())
                await until(proxy.requests)
        assert time.monotonic() - started >= 1.0
        assert len(proxy.requests()) == 2

    in_nursery(backend, PATIENT, body)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("whose", ["the caller's", "the setting's"])
def test_a_call_that_has_no_time_for_another_try_says_at_once_what_went_wrong(
    backend: str, whose: str, both: tuple[FaultProxy, FaultProxy]
) -> None:
    settings = replace(PATIENT, total_timeout=30.0) if whose == "the setting's" else PATIENT

    async def body() -> None:
        use_both(both)
        proxy = both[1]
        with (
            proxy.play(refusal(503, "Retry-After: 60")),
            anyio.fail_after(30.0) as deadline,
            pytest.raises(ServiceTimeout, match=r"last: it answered 503: busy; its deadline"),
        ):
            await database_remote.get_transformation_result(fresh_checksum())
        assert not deadline.cancel_called
        assert len(proxy.requests()) == 1

    in_nursery(backend, settings, body)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cancelled_probe_leaves_the_next_call_to_probe(
    backend: str, both: tuple[FaultProxy, FaultProxy]
) -> None:
    async def body() -> None:
        use_both(both)
        proxy, client = both[1], client_of(database_remote)
        with proxy.play(refusal(503)):
            async with anyio.create_task_group() as group:
                for _ in range(OPENS_AFTER):
                    group.start_soon(database_remote.get_transformation_result, fresh_checksum())
                await until(lambda: circuit_is_open(client))
                group.cancel_scope.cancel()
        proxy.put(Fault(Harm.STALL, Toward.SERVICE, times=10**6))
        pings = len(proxy.pings())
        async with anyio.create_task_group() as group:
            group.start_soon(database_remote.get_transformation_result, fresh_checksum())
            await until(lambda: len(proxy.pings()) > pings)
            group.cancel_scope.cancel()
        proxy.put(None)
        assert await database_remote.get_transformation_result(fresh_checksum()) is None
        assert not circuit_is_open(client)

    in_nursery(backend, PATIENT, body)


STOPPED = replace(PATIENT, healthcheck_timeout=0.2, keepalive_interval=0.05)


async def write_and_record(content: bytes) -> tuple[Checksum, Checksum]:
    checksum, tf = checksum_of(content), fresh_checksum()
    assert await buffer_remote.write_buffer(checksum, Buffer(content)) is True
    assert await database_remote.set_transformation_result(tf, checksum) is True
    return tf, checksum


async def check_recorded(tf: Checksum, checksum: Checksum, content: bytes) -> None:
    assert await database_remote.get_transformation_result(tf) == checksum
    found = await buffer_remote.get_buffer(checksum)
    assert found is not None
    assert found.content == content


@pytest.mark.parametrize("backend", BACKENDS)
def test_calls_to_stopped_services_wait_and_go_on_when_they_wake(
    backend: str, hashserver: Callable[[], Service], database: Callable[[], Service]
) -> None:
    services = hashserver(), database()

    async def call(content: bytes) -> None:
        await check_recorded(*await write_and_record(content), content)

    async def body() -> None:
        use(buffer_remote, services[0].url)
        use(database_remote, services[1].url)
        await call(fresh_content())
        clients = [client_of(module) for module in (buffer_remote, database_remote)]
        for service in services:
            service.stop()
        async with anyio.create_task_group() as group:
            for size in (100, 1000, 100_000):
                group.start_soon(call, fresh_content(size))
            await until(lambda: all(each.health.state.value == "down" for each in clients))
            for service in services:
                service.cont()
        assert all(each.health.state.value == "up" for each in clients)

    in_nursery(backend, STOPPED, body)


@pytest.mark.parametrize("backend", BACKENDS)
def test_calls_to_stopped_services_fail_by_their_deadline_and_work_when_they_wake(
    backend: str, hashserver: Callable[[], Service], database: Callable[[], Service]
) -> None:
    services = hashserver(), database()

    async def fails(call: Awaitable[Any], url: str) -> None:
        with pytest.raises(ServiceError, match=url):
            await call

    async def body() -> None:
        use(buffer_remote, services[0].url)
        use(database_remote, services[1].url)
        content = fresh_content(100_000)
        kept = await write_and_record(content)
        for service in services:
            service.stop()
        async with anyio.create_task_group() as group:
            for _ in range(2 * OPENS_AFTER):
                get = buffer_remote.get_buffer(fresh_checksum())
                look_up = database_remote.get_transformation_result(fresh_checksum())
                group.start_soon(fails, get, services[0].url)
                group.start_soon(fails, look_up, services[1].url)
        for service in services:
            service.cont()
        clients = [client_of(module) for module in (buffer_remote, database_remote)]
        await until(lambda: not any(circuit_is_open(each) for each in clients))
        await check_recorded(*kept, content)
        content = fresh_content(100_000)
        await check_recorded(*await write_and_record(content), content)

    in_nursery(backend, replace(STOPPED, total_timeout=1.0, read_timeout=0.3), body)


def test_a_program_whose_services_are_away_ends_at_once_when_told_to(
    both: tuple[FaultProxy, FaultProxy],
) -> None:
    """Its calls in flight get an error; nothing waits for the services or for the pauses."""
    ended = []

    async def call(of: Awaitable[Any]) -> None:
        with pytest.raises(NurseryClosedError):
            await of
        ended.append(of)

    async def main() -> None:
        settings = replace(PATIENT, grace_period=0.1)
        async with anyio.create_task_group() as group, seamless_remote.open_nursery(settings):
            use_both(both)
            for proxy in both:
                proxy.put(Fault(Harm.STALL, Toward.SERVICE, times=10**6))
            for _ in range(20):
                get = buffer_remote.get_buffer(fresh_checksum())
                look_up = database_remote.get_transformation_result(fresh_checksum())
                group.start_soon(call, get)
                group.start_soon(call, look_up)
            await until(lambda: all(proxy.requests() for proxy in both))

    anyio.run(main)
    assert len(ended) == 40
