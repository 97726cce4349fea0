"""Jobs at the end of the clients: cancelled at once, all side by side, whatever the grace is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import anyio
import anyio.to_thread
import pytest
from hosts import Host
from loops import KINDS, LoopThread
from made_up_jobserver import MadeUpJobserver, new_job
from signals import LONG
from silent_server import SilentServer

import seamless_remote
from seamless_remote import NurseryClosedError, Settings, database_remote, jobserver_remote
from seamless_remote.client import close_all_clients

FOR_EVER = Settings(grace_period=3600.0, max_tries=1)
MANY = 100


@pytest.fixture
def server(fresh_remote: None) -> Iterator[MadeUpJobserver]:
    made = MadeUpJobserver()
    yield made
    made.close()


def use_silent_jobserver(silent: SilentServer) -> None:
    jobserver_remote.define_extern_client("silent", "jobserver", url=silent.url)
    jobserver_remote.activate(no_main=True, extern_clients=["silent"])


async def run_jobs(jobs: list[Any], ends: list[BaseException]) -> None:
    async def run(job: Any) -> None:
        try:
            await job.run()
        except NurseryClosedError as exc:
            ends.append(exc)

    async with anyio.create_task_group() as group:
        for job in jobs:
            group.start_soon(run, job)


@pytest.mark.parametrize("kind", KINDS)
def test_closing_the_clients_cancels_all_jobs_at_once_and_at_their_server(
    kind: str,
    server: MadeUpJobserver,
    loop_threads: Callable[[str], LoopThread],
    hosted_settings: Callable[[Settings], None],
) -> None:
    hosted_settings(FOR_EVER)
    jobs = [new_job() for _ in range(MANY)]
    ends: list[BaseException] = []
    over: Future[None] = loop_threads(kind).start(run_jobs, jobs, ends)
    server.wait_for_jobs(MANY)
    close_all_clients()
    over.result(LONG)
    assert len(ends) == MANY
    assert sorted(server.canceled) == sorted(job.tf_checksum.hex() for job in jobs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_silent_does_not_hold_up_the_end(
    kind: str,
    silent: Callable[[], SilentServer],
    loop_threads: Callable[[str], LoopThread],
    hosted_settings: Callable[[Settings], None],
) -> None:
    hosted_settings(FOR_EVER)
    server = silent()
    use_silent_jobserver(server)
    jobs = [new_job() for _ in range(MANY)]
    ends: list[BaseException] = []
    over: Future[None] = loop_threads(kind).start(run_jobs, jobs, ends)
    server.wait_for("GET /run-transformation", MANY)
    close_all_clients()
    over.result(LONG)
    assert len(ends) == MANY
    # It reads them when it wakes up.
    server.wait_for("POST /cancel-transformation", MANY)


@pytest.mark.anyio
async def test_leaving_the_nursery_cancels_its_jobs_at_once_and_no_short_request(
    server: MadeUpJobserver, silent: Callable[[], SilentServer]
) -> None:
    slow = silent()
    database_remote.define_extern_client("slow", "database", url=slow.url)
    database_remote.activate(no_main=True, extern_clients=["slow"])
    ended: list[str] = []

    async def run(name: str, operation: Callable[[], Any], error: type[Exception]) -> None:
        with pytest.raises(error):
            await operation()
        ended.append(name)
        if name == "job":
            # Only now, so that the short request has its error from the server.
            slow.die()

    async with anyio.create_task_group() as group, seamless_remote.open_nursery(FOR_EVER):
        job = new_job()
        look_up = database_remote.get_transformation_result
        group.start_soon(run, "job", job.run, NurseryClosedError)
        group.start_soon(run, "look-up", lambda: look_up(job.tf_checksum), ConnectionError)
        await anyio.to_thread.run_sync(server.wait_for_jobs, 1)
        await anyio.to_thread.run_sync(slow.wait_for, "GET /")
    assert ended == ["job", "look-up"]
    assert server.canceled == [job.tf_checksum.hex()]


def test_jobs_that_were_not_submitted_are_canceled_nowhere(
    host_with: Callable[[Settings], Host], server: MadeUpJobserver
) -> None:
    first, second = new_job(), new_job()

    async def main() -> None:
        ends: list[BaseException] = []
        async with anyio.create_task_group() as group:
            group.start_soon(run_jobs, [first], ends)
            await anyio.to_thread.run_sync(server.wait_for_jobs, 1)
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as waiting:
                    waiting.start_soon(second.run)
                    await anyio.wait_all_tasks_blocked()
                    scope.cancel()
            group.cancel_scope.cancel()
        assert server.canceled == [first.tf_checksum.hex()]

    host_with(Settings(max_jobs=1)).run(main)
    assert server.submitted == [first.tf_checksum.hex()]


def test_closing_while_a_server_is_launched_again_does_not_wait_for_that(
    fresh_remote: None, hosted_settings: Callable[[Settings], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from seamless_remote.nursery import process

    monkeypatch.setattr(process, "WORKERS_PATIENCE", 0.1)
    hosted_settings(FOR_EVER)
    may_end = threading.Event()
    process.start_worker("a launch that takes long", may_end.wait)
    close_all_clients()
    assert not may_end.is_set()
    may_end.set()
