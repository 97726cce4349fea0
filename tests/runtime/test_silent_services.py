"""A service that takes requests and is silent is waited for by nobody but those who asked it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from counting_proxy import CountingProxy
from hosts import Host
from jobs import WAIT, runs, submission, use, value_of
from registering import use_buffers, use_databases
from services import Service, wait_until
from silent_server import SilentServer
from stored_buffers import checksum_of, fresh

from seamless_remote import Settings, buffer_remote, database_remote
from seamless_remote.client import close_all_clients
from seamless_remote.clients.health import Health

UNLIMITED = Settings(
    healthcheck_timeout=None, read_timeout=1.0, keepalive_interval=0.05, grace_period=0.5
)
PINGS = 4


def test_a_ping_without_limit_delays_no_ping_and_no_call_of_anybody_else(
    host_with: Callable[[Settings], Host],
    silent: Callable[[], SilentServer],
    shared_hashserver: Service,
    shared_database: Service,
    proxy: Callable[[Service], CountingProxy],
) -> None:
    quiet = [silent(), silent()]
    buffers, results = proxy(shared_hashserver), proxy(shared_database)

    async def main() -> None:
        use_buffers(buffers, *quiet)
        use_databases(quiet[0], results)
        for each in quiet:
            await anyio.to_thread.run_sync(each.wait_for, "/healthcheck")
        for between in (buffers, results):
            await anyio.to_thread.run_sync(
                between.wait_for, lambda between=between: between.count("/healthcheck") >= PINGS
            )
        # Each silent one has been asked once for each client, and is still being waited for.
        assert [each.count("/healthcheck") for each in quiet] == [2, 1]
        use_databases(results)
        assert await database_remote.get_transformation_result(checksum_of(fresh(30))) is None
        assert await buffer_remote.get_buffer_lengths([checksum_of(b"")]) == [0]

    host_with(UNLIMITED).run(main)


def test_a_ping_without_limit_to_a_jobserver_does_not_keep_its_jobs_from_being_watched(
    host_with: Callable[[Settings], Host],
    shared_hashserver: Service,
    shared_database: Service,
    shared_jobserver: Service,
    proxy: Callable[[Service], CountingProxy],
    folder: Path,
) -> None:
    between = proxy(shared_jobserver)
    answers: list[Any] = []

    async def main() -> None:
        with between.hold("/healthcheck"):
            use(shared_hashserver, shared_database, between.url)
            job = await submission(WAIT, folder)
            await anyio.to_thread.run_sync(between.wait_for_held)

            async def run_job() -> None:
                answers.append(await job.run())

            async with anyio.create_task_group() as group:
                group.start_soon(run_job)
                await anyio.to_thread.run_sync(wait_until, lambda: runs(folder) == 1)
                asked = between.count("/transformation-status")
                await anyio.to_thread.run_sync(
                    between.wait_for,
                    lambda: between.count("/transformation-status") >= asked + 3,
                )
                (folder / "go").touch()
            assert between.count("/healthcheck") == 1
            assert await value_of(answers[0]) == 2

    host_with(UNLIMITED).run(main)
    assert runs(folder) == 1


def test_a_read_that_gets_no_answer_is_no_sign_of_health(
    host_with: Callable[[Settings], Host], silent: Callable[[], SilentServer]
) -> None:
    """It asks, after a moment, whether its buffer is only promised."""
    quiet = silent()

    async def main() -> None:
        use_buffers(quiet)
        (client,) = buffer_remote._read_server_clients
        async with anyio.create_task_group() as group:
            group.start_soon(buffer_remote.get_buffer, checksum_of(fresh(9)))
            await anyio.to_thread.run_sync(quiet.wait_for, "GET /has ")
            assert client.health.state is Health.UNKNOWN
            assert client.health.last_round_trip is None
            group.cancel_scope.cancel()

    host_with(UNLIMITED).run(main)


@pytest.mark.parametrize("times", [1, 3])
def test_clients_that_ping_in_vain_are_replaced_and_closed_without_a_wait(
    times: int,
    host_with: Callable[[Settings], Host],
    silent: Callable[[], SilentServer],
    shared_hashserver: Service,
) -> None:
    quiet = silent()

    async def main() -> None:
        for _ in range(times):
            use_buffers(quiet)
            use_databases(quiet)
        await anyio.to_thread.run_sync(quiet.wait_for, "/healthcheck", 2)
        use_databases()
        use_buffers(shared_hashserver)
        assert await buffer_remote.get_buffer(checksum_of(fresh(9))) is None
        use_buffers(quiet)
        await anyio.to_thread.run_sync(close_all_clients)

    host_with(UNLIMITED).run(main)
