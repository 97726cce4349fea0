"""What this process lacks is not taken for a fault of the service."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest
from hosts import Host, LaunchLog
from made_up_jobserver import RESULT, MadeUpJobserver, new_job
from registering import use_buffers, use_databases
from services import Home, Service, wait_until
from stored_buffers import checksum_of, fresh, put_file

from seamless_remote import (
    OwnLimitError,
    Settings,
    buffer_remote,
    current_nursery,
    database_remote,
    jobserver_remote,
    open_nursery,
)
from seamless_remote.clients import job_places, retrying
from seamless_remote.clients.connections import connections
from seamless_remote.clients.health import Health
from seamless_remote.transport import dialing, own_limits

LACKS = [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM]


@contextmanager
def lacking(code: int) -> Iterator[threading.Event]:
    """No connection can be opened, for want of something; the event says that one was tried."""
    tried = threading.Event()
    real = dialing.OwnSocket

    def lack(*args: Any, **options: Any) -> Any:
        tried.set()
        raise OSError(code, os.strerror(code))

    connections.transport.close_idle()
    dialing.OwnSocket = lack  # type: ignore[assignment, misc]
    try:
        yield tried
    finally:
        dialing.OwnSocket = real  # type: ignore[misc]


async def read(content: bytes) -> bool:
    buffer = await buffer_remote.get_buffer(checksum_of(content))
    return buffer is not None and buffer.content == content


async def look_up() -> bool:
    return await database_remote.get_transformation_result(checksum_of(fresh(30))) is None


async def run_job() -> bool:
    answer = await new_job().run()
    return bool(answer["result_checksum"] == RESULT)


@pytest.fixture
def in_use(
    fresh_remote: None, shared_hashserver: Service, shared_database: Service
) -> Iterator[list[Callable[[], Any]]]:
    """A read, a look-up and a job; each gives True if all is well."""
    content = fresh(1000)
    put_file(shared_hashserver.directory, content)
    server = MadeUpJobserver()
    server.let_go.set()
    use_buffers(shared_hashserver)
    use_databases(shared_database)
    yield [lambda: read(content), look_up, run_job]
    server.close()


@pytest.mark.parametrize("code", LACKS)
def test_a_call_that_meets_a_limit_of_this_process_goes_on_when_there_is_room_again(
    code: int, host: Host, in_use: list[Callable[[], Any]]
) -> None:
    async def main() -> None:
        outcomes: list[bool] = []

        async def note(make: Callable[[], Any]) -> None:
            outcomes.append(await make())

        for make in in_use:
            async with anyio.create_task_group() as group:
                with lacking(code) as tried:
                    group.start_soon(note, make)
                    await anyio.to_thread.run_sync(tried.wait)
        assert outcomes == [True] * len(in_use)
        nursery = current_nursery()
        assert nursery is not None
        for service in nursery.snapshot().services:
            for client in service.clients:
                assert client.health == Health.UP.value
                assert client.retries == 0

    host.run(main)


@pytest.mark.parametrize("code", LACKS)
def test_a_limit_that_stays_is_an_error_that_names_it(
    code: int,
    host: Host,
    in_use: list[Callable[[], Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrying, "PATIENCE", 0.2)
    monkeypatch.setattr(jobserver_remote, "PATIENCE", 0.2)

    async def main() -> None:
        for make in in_use:
            with lacking(code), pytest.raises(OwnLimitError, match=r"this (process|machine) ha"):
                await make()
            assert await make() is True

    host.run(main)


def test_a_limit_of_this_process_launches_no_service_again(
    cluster: Home, launches: LaunchLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "PATIENCE", 0.2)

    async def main() -> None:
        database_remote.activate()
        assert await look_up()
        with lacking(errno.EMFILE), pytest.raises(OwnLimitError, match="ulimit"):
            await look_up()
        assert await look_up()

    anyio.run(main)
    assert launches.tools == ["database"]


@pytest.mark.anyio
async def test_jobs_wait_for_a_place_and_the_snapshot_shows_them(fresh_remote: None) -> None:
    server = MadeUpJobserver()
    try:
        async with (
            open_nursery(Settings(max_jobs=2)) as nursery,
            anyio.create_task_group() as group,
        ):
            for _ in range(5):
                group.start_soon(run_job)
            await anyio.to_thread.run_sync(server.wait_for_jobs, 2)
            await anyio.wait_all_tasks_blocked()
            snapshot = nursery.snapshot()
            jobs = snapshot.jobs
            assert (jobs.bound, jobs.in_flight, jobs.waiting) == (2, 2, 3)
            waiting = [each.waits_for for each in snapshot.calls]
            assert waiting.count("its turn: 2 jobs are in flight") == 3
            server.let_go.set()
        assert server.most_at_once == 2
    finally:
        server.close()


def test_a_jobserver_that_is_well_and_takes_no_more_connections_is_waited_for(
    host_with: Callable[[Settings], Host], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "seamless_remote")

    async def main() -> None:
        server = MadeUpJobserver()
        server.let_go.set()
        try:
            # Over this connection it says that it is well.
            await jobserver_remote.transformation_status_async(new_job().tf_checksum)
            async with anyio.create_task_group() as group:
                with server.service.full():
                    group.start_soon(run_job)
                    # Longer than a server that is away would be given.
                    await anyio.to_thread.run_sync(
                        wait_until, lambda: caplog.text.count("takes no more connections") > 3
                    )
            assert len(server.submitted) == 1
        finally:
            server.close()

    host_with(Settings(connect_timeout=0.05, max_tries=1)).run(main)
    assert "-> down" not in caplog.text


@pytest.mark.parametrize(
    ("limit", "in_use", "places"),
    [
        (1, 10, 1),
        (64, 10, 32),
        (256, 10, 128),
        (256, 100, 92),
        (256, 255, 1),
        (1024, 10, 768),
        (1024, 700, 196),
        (100_000, 10, 1000),
        (100_000, 99_000, 872),
    ],
)
def test_the_places_for_jobs_follow_from_the_limit_on_descriptors_and_leave_room(
    limit: int, in_use: int, places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_limits.resource, "getrlimit", lambda _: (limit, limit))
    monkeypatch.setattr(job_places, "COUNT_INTERVAL", 0.0)
    monkeypatch.setattr(job_places.os, "listdir", lambda _: ["one"] * (in_use + 3))
    assert job_places.job_places(Settings(), 3) == places
    assert job_places.job_places(Settings(max_jobs=7), 3) == 7
