"""Nurseries open and close around calls, which go on; only `close_all_clients` ends all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from counting_proxy import CountingProxy
from jobs import WAIT, Submission, runs, submission, use, value_of
from loops import KINDS, LoopThread, run
from many_calls import look_ups
from registering import use_buffers, use_databases
from services import Service, wait_until
from signals import LONG
from silent_server import SilentServer
from stored_buffers import checksum_of, fresh, incompressible, put_file

import seamless_remote
from seamless_remote import NurseryClosedError, Settings, buffer_remote, jobserver_remote
from seamless_remote.client import close_all_clients
from seamless_remote.clients.connections import connections
from seamless_remote.nursery.process import this_process

SIZE = 4_000_000
NEVER = Settings(grace_period=3600.0)
"""Whoever waits for calls that go on waits for ever."""
SHORT = Settings(grace_period=0.3)

Loops = Callable[[str], LoopThread]


@pytest.fixture
def job(
    fresh_remote: None,
    shared_hashserver: Service,
    shared_database: Service,
    shared_jobserver: Service,
    folder: Path,
) -> Submission:
    """A job that runs until the file `go` is in its folder."""
    use(shared_hashserver, shared_database, shared_jobserver.url)
    return run("asyncio", submission, WAIT, folder)


def status_of(job: Submission) -> str:
    return str(jobserver_remote.transformation_status(job.tf_checksum))


def is_hosted() -> bool:
    nursery = seamless_remote.current_nursery()
    return nursery is not None and nursery.hosted


@pytest.mark.parametrize(
    ("host", "caller"), [("asyncio", "trio"), ("trio", "asyncio"), ("uvloop", "uvloop")]
)
def test_a_job_on_the_hosted_nursery_goes_on_when_a_host_opens_its_own_and_leaves_it(
    host: str,
    caller: str,
    job: Submission,
    folder: Path,
    loop_threads: Loops,
    hosted_settings: Callable[[Settings], None],
) -> None:
    hosted_settings(NEVER)
    elsewhere = loop_threads(caller)
    running = elsewhere.start(job.run)
    wait_until(lambda: runs(folder) == 1)
    assert is_hosted()

    async def main() -> None:
        async with seamless_remote.open_nursery(NEVER) as nursery:
            assert [f"job {job.tf_checksum.hex()}"] == [
                each.what for each in nursery.snapshot().calls
            ]
            assert await anyio.to_thread.run_sync(status_of, job) == "running"
            await look_ups(1)[0]()
        assert is_hosted()

    run(host, main)
    assert status_of(job) == "running"
    assert not running.done()
    (folder / "go").touch()
    assert elsewhere.run(value_of, running.result(LONG)) == 2
    assert runs(folder) == 1


@pytest.mark.parametrize(
    ("host", "caller"), [("asyncio", "trio"), ("trio", "asyncio"), ("uvloop", "uvloop")]
)
def test_a_download_of_another_thread_goes_on_when_a_host_leaves_its_nursery(
    host: str,
    caller: str,
    fresh_remote: None,
    shared_hashserver: Service,
    proxy: Callable[[Service], CountingProxy],
    loop_threads: Loops,
) -> None:
    between = proxy(shared_hashserver)
    content = incompressible(SIZE)
    checksum = put_file(shared_hashserver.directory, content)
    elsewhere = loop_threads(caller)
    between.stall_after = SIZE // 2
    downloads: list[Future[Any]] = []

    async def main() -> None:
        async with seamless_remote.open_nursery(NEVER):
            use_buffers(between)
            downloads.append(elsewhere.start(buffer_remote.get_buffer, checksum))
            await anyio.to_thread.run_sync(between.wait_for_held)
        assert is_hosted()

    run(host, main)
    assert not downloads[0].done()
    between.release()
    assert downloads[0].result(LONG).content == content
    assert between.count(checksum.hex()) == 1


@pytest.mark.parametrize("host", ["asyncio", "trio"])
def test_the_connections_of_a_set_that_is_being_replaced_are_given_up_after_a_change_of_nursery(
    host: str,
    fresh_remote: None,
    shared_hashserver: Service,
    proxy: Callable[[Service], CountingProxy],
    loop_threads: Loops,
    hosted_settings: Callable[[Settings], None],
) -> None:
    hosted_settings(NEVER)
    between = proxy(shared_hashserver)
    checksum = put_file(shared_hashserver.directory, fresh(80))
    elsewhere = loop_threads("asyncio")

    def is_retiring() -> bool:
        nursery = seamless_remote.current_nursery()
        assert nursery is not None
        return any(each.state == "stopping" for each in nursery.snapshot().services)

    async def main() -> None:
        use_buffers(between)
        with between.hold(checksum.hex()):
            reading = elsewhere.start(buffer_remote.get_buffer, checksum)
            await anyio.to_thread.run_sync(between.wait_for_held)
            use_buffers()
            await anyio.to_thread.run_sync(wait_until, is_retiring)
            assert is_hosted()
            async with seamless_remote.open_nursery(NEVER):
                between.release()
                assert await anyio.to_thread.run_sync(reading.result, LONG) is not None
                await anyio.to_thread.run_sync(
                    between.wait_for, lambda: between.closed == between.accepted
                )

    run(host, main)


@pytest.mark.parametrize("host", ["none", "asyncio", "trio"])
def test_closing_all_clients_ends_every_call_in_whatever_loop_and_cancels_the_job(
    host: str,
    job: Submission,
    folder: Path,
    shared_hashserver: Service,
    proxy: Callable[[Service], CountingProxy],
    silent: Callable[[], SilentServer],
    loop_threads: Loops,
    hosted_settings: Callable[[Settings], None],
) -> None:
    hosted_settings(SHORT)
    between, results = proxy(shared_hashserver), silent()
    use_buffers(between)
    use_databases(results)
    checksum = put_file(shared_hashserver.directory, incompressible(SIZE))
    between.stall_after = SIZE // 2
    loops = [loop_threads(kind) for kind in KINDS]

    def begin() -> list[Future[Any]]:
        calls = [loop.start(buffer_remote.get_buffer, checksum) for loop in loops]
        # More than the limiter lets pass: some wait for their turn.
        calls += [loop.start(call) for loop in loops for call in look_ups(20)]
        calls.append(loops[0].start(job.run))
        between.wait_for_held(len(loops))
        results.wait_for("GET / ", SHORT.database_max_inflight)
        wait_until(lambda: runs(folder) == 1)
        return calls

    def close(calls: list[Future[Any]]) -> None:
        closing = threading.Thread(target=close_all_clients)
        closing.start()
        for call in calls:
            with pytest.raises(NurseryClosedError):
                call.result(LONG)
        closing.join(LONG)
        assert not closing.is_alive()
        assert this_process().calls.under_way() == []
        between.wait_for(lambda: between.closed == between.accepted)
        wait_until(lambda: not any(each.in_use for each in connections.snapshot()))

    async def in_a_host() -> None:
        async with seamless_remote.open_nursery(SHORT) as nursery:
            calls = await anyio.to_thread.run_sync(begin)
            await anyio.to_thread.run_sync(close, calls)
            assert seamless_remote.current_nursery() is nursery

    if host == "none":
        close(begin())
        assert seamless_remote.current_nursery() is None
    else:
        run(host, in_a_host)
    wait_until(lambda: status_of(job) == "canceled", what="the job's cancellation")
    (folder / "go").touch()


@pytest.mark.parametrize("host", ["asyncio", "trio"])
def test_closing_all_clients_from_a_thread_ends_the_calls_of_the_hosts_own_loop(
    host: str, fresh_remote: None, silent: Callable[[], SilentServer]
) -> None:
    results = silent()
    ended: list[NurseryClosedError] = []

    async def look_up() -> None:
        with pytest.raises(NurseryClosedError) as caught:
            await look_ups(1)[0]()
        ended.append(caught.value)

    async def main() -> None:
        async with seamless_remote.open_nursery(SHORT):
            use_databases(results)
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(look_up)
                await anyio.to_thread.run_sync(results.wait_for, "GET / ", 10)
                await anyio.to_thread.run_sync(close_all_clients)
            # It can be used again.
            use_databases(results)
            with anyio.move_on_after(0):
                await look_ups(1)[0]()

    run(host, main)
    assert len(ended) == 10
    assert all("look" in str(each) or "get_" in str(each) for each in ended)


def test_closing_twice_at_once_and_with_nothing_open_is_no_fault(
    fresh_remote: None, shared_hashserver: Service
) -> None:
    use_buffers(shared_hashserver)
    assert run("asyncio", buffer_remote.get_buffer, checksum_of(fresh(9))) is None
    closings = [threading.Thread(target=close_all_clients) for _ in range(4)]
    for each in closings:
        each.start()
    for each in closings:
        each.join(LONG)
        assert not each.is_alive()
    close_all_clients()
    assert seamless_remote.current_nursery() is None
