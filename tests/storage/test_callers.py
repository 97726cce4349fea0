"""The callers of the table in contracts/consumers.md, each from where it calls, in one process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
import seamless
from counting_proxy import CountingProxy
from hosts import Host
from loops import KINDS
from registering import use_buffers, use_databases
from seamless import Buffer, CacheMissError, Checksum
from services import Service
from stored_buffers import buffer_of, checksum_of, fresh, path_of, put_file

import seamless_remote
from seamless_remote import Settings, buffer_remote, database_remote

FRESH_LOOPS = 200
THREADS = 16


def stored(service: Service, size: int = 100) -> tuple[Checksum, bytes]:
    """A buffer that is on the server only."""
    content = fresh(size)
    return put_file(service.directory, content), content


@pytest.mark.parametrize("size", [100, 1_500_000])
def test_resolve_in_a_thread_without_a_loop(
    fresh_remote: None, shared_hashserver: Service, size: int
) -> None:
    use_buffers(shared_hashserver)
    for _ in range(5):
        checksum, content = stored(shared_hashserver, size)
        assert checksum.resolve().content == content
    with pytest.raises(CacheMissError):
        checksum_of(fresh(30)).resolve()


@pytest.mark.parametrize("size", [100, 1_500_000])
def test_resolve_inside_the_hosts_own_loop_does_not_deadlock(
    host: Host, shared_hashserver: Service, size: int
) -> None:
    async def main() -> None:
        use_buffers(shared_hashserver)
        for _ in range(3):
            checksum, content = stored(shared_hashserver, size)
            assert checksum.resolve().content == content
        with pytest.raises(CacheMissError):
            checksum_of(fresh(30)).resolve()
        # The loop is as good as before.
        checksum, content = stored(shared_hashserver, size)
        buffer = await buffer_remote.get_buffer(checksum)
        assert buffer is not None
        assert buffer.content == content

    host.run(main)


@pytest.mark.parametrize("size", [100, 300_000, 5_000_000])
def test_resolve_from_a_folder_inside_the_hosts_own_loop(
    host: Host, tmp_path: Path, size: int
) -> None:
    async def main() -> None:
        use_buffers(tmp_path)
        content = fresh(size)
        assert put_file(tmp_path, content).resolve().content == content

    host.run(main)


def test_resolve_beside_calls_of_the_same_loop(host: Host, shared_hashserver: Service) -> None:
    async def resolve() -> None:
        checksum, content = stored(shared_hashserver)
        assert checksum.resolve().content == content

    async def read() -> None:
        checksum, content = stored(shared_hashserver, 300_000)
        buffer = await buffer_remote.get_buffer(checksum)
        assert buffer is not None
        assert buffer.content == content

    async def main() -> None:
        use_buffers(shared_hashserver)
        async with anyio.create_task_group() as task_group:
            for _ in range(5):
                task_group.start_soon(read)
                task_group.start_soon(resolve)

    host.run(main)


@pytest.mark.parametrize("host", ["asyncio-host", "asyncio-alone", "uvloop-alone"], indirect=True)
def test_resolution_and_write_in_the_callers_asyncio_loop(
    host: Host, shared_hashserver: Service
) -> None:
    async def main() -> None:
        use_buffers(shared_hashserver)
        checksum, content = stored(shared_hashserver)
        assert (await checksum.resolution()).content == content
        content = fresh(200)
        assert await Buffer(content).write() is True
        path = path_of(shared_hashserver.directory, checksum_of(content))
        assert path.read_bytes() == content
        with pytest.raises(CacheMissError):
            await checksum_of(fresh(30)).resolution()

    host.run(main)


def test_a_new_loop_for_each_call(host: Host, shared_hashserver: Service) -> None:
    use_buffers(shared_hashserver)

    def call_many() -> None:
        for _ in range(20):
            content = fresh(100)
            checksum = checksum_of(content)
            assert asyncio.run(buffer_remote.write_buffer(checksum, buffer_of(content)))
            buffer = asyncio.run(buffer_remote.get_buffer(checksum))
            assert buffer is not None
            assert buffer.content == content

    host.run(lambda: anyio.to_thread.run_sync(call_many))


def test_hundreds_of_short_lived_loops_on_many_threads(
    host: Host, shared_hashserver: Service, shared_database: Service
) -> None:
    async def once(number: int) -> None:
        content = fresh(100 + number)
        checksum = checksum_of(content)
        assert await buffer_remote.write_buffer(checksum, buffer_of(content))
        assert await database_remote.set_transformation_result(checksum, checksum)
        assert await database_remote.get_transformation_result(checksum) == checksum
        buffer = await buffer_remote.get_buffer(checksum)
        assert buffer is not None
        assert buffer.content == content

    def one_loop(number: int) -> None:
        anyio.run(once, number, backend="trio" if number % 4 == 3 else "asyncio")

    def all_loops() -> None:
        with ThreadPoolExecutor(THREADS) as threads:
            assert len(list(threads.map(one_loop, range(FRESH_LOOPS)))) == FRESH_LOOPS

    async def main() -> None:
        use_buffers(shared_hashserver)
        use_databases(shared_database)
        await anyio.to_thread.run_sync(all_loops)
        nursery = seamless_remote.current_nursery()
        assert nursery is not None
        snapshot = nursery.snapshot()
        assert snapshot.calls == ()
        assert all(c.in_flight == 0 for s in snapshot.services for c in s.clients)

    host.run(main)


def test_callers_of_all_kinds_at_once(
    host: Host, shared_hashserver: Service, shared_database: Service
) -> None:
    """Threads that resolve, loops that write, and the host's own tasks."""

    def resolve() -> None:
        checksum, content = stored(shared_hashserver, 5000)
        assert checksum.resolve().content == content

    async def write() -> None:
        content = fresh(700)
        assert await buffer_remote.write_buffer(checksum_of(content), buffer_of(content))

    async def look_up() -> None:
        tf = checksum_of(fresh(30))
        assert await database_remote.set_transformation_result(tf, tf)
        assert await database_remote.get_transformation_result(tf) == tf

    async def main() -> None:
        use_buffers(shared_hashserver)
        use_databases(shared_database)
        async with anyio.create_task_group() as task_group:
            for _ in range(10):
                task_group.start_soon(anyio.to_thread.run_sync, resolve)
                task_group.start_soon(anyio.to_thread.run_sync, asyncio.run, write())
                task_group.start_soon(write)
                task_group.start_soon(look_up)

    host.run(main)


def test_calls_are_handed_over_while_the_hosts_loop_is_busy(
    host: Host, shared_hashserver: Service, proxy: Callable[[Service], CountingProxy]
) -> None:
    """A host that computes cannot take calls up: the caller runs them itself."""
    between = proxy(shared_hashserver)
    checksum, content = stored(shared_hashserver)
    done = threading.Event()

    def resolve() -> None:
        try:
            assert checksum.resolve().content == content
        finally:
            done.set()

    async def main() -> None:
        use_buffers(between)
        await buffer_remote.get_buffer(checksum_of(fresh(30)))
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(anyio.to_thread.run_sync, resolve)
            await anyio.wait_all_tasks_blocked()
            assert done.wait(30)

    host.run(main)
    # Twice where the nursery had just begun with it.
    assert between.count(checksum.hex()) in (1, 2)


@pytest.mark.parametrize("host", ["asyncio-host", "trio-host"], indirect=True)
def test_a_host_may_wait_in_its_loop_for_a_call_that_it_took_up_before(
    host: Host, shared_hashserver: Service, proxy: Callable[[Service], CountingProxy]
) -> None:
    """As `seamless.close()` does there, which waits for what the buffer writer is writing."""
    between = proxy(shared_hashserver)
    checksum, content = stored(shared_hashserver)
    done = threading.Event()

    def resolve() -> None:
        assert checksum.resolve().content == content
        done.set()

    async def main() -> None:
        use_buffers(between)
        async with anyio.create_task_group() as task_group:
            with between.hold(checksum.hex()):
                task_group.start_soon(anyio.to_thread.run_sync, resolve)
                await anyio.to_thread.run_sync(between.wait_for_held)
                between.release()
                assert done.wait(30)

    host.run(main)


@pytest.mark.parametrize("host", ["asyncio-host", "trio-host"], indirect=True)
def test_a_host_may_wait_in_its_loop_for_an_upload_that_is_half_done(
    host: Host, shared_hashserver: Service
) -> None:
    """As `buffer_writer.flush()` does there, before each job and at the end."""
    buffer = Buffer(os.urandom(1 << 26))
    checksum = buffer.get_checksum()
    folder = shared_hashserver.directory / checksum.hex()[:2]
    written = []

    def write() -> None:
        written.append(asyncio.run(buffer_remote.write_buffer(checksum, buffer)))

    async def main() -> None:
        use_buffers(shared_hashserver)
        writer = threading.Thread(target=write)
        writer.start()
        with anyio.fail_after(60):
            while not list(folder.glob(f"{checksum.hex()}-*")):
                await anyio.lowlevel.checkpoint()
        writer.join(60)
        assert written == [True]

    host.run(main)
    assert (folder / checksum.hex()).read_bytes() == buffer.content


def test_a_worker_process_may_not_use_clients(
    host: Host,
    shared_hashserver: Service,
    shared_database: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checksum, content = stored(shared_hashserver)
    monkeypatch.setattr(seamless, "_IS_WORKER", True)
    calls = [
        lambda: buffer_remote.get_buffer(checksum),
        lambda: buffer_remote.get_buffer_lengths([checksum]),
        lambda: buffer_remote.promise(checksum),
        lambda: buffer_remote.write_buffer(checksum, buffer_of(content)),
        lambda: database_remote.get_transformation_result(checksum),
        lambda: database_remote.set_transformation_result(checksum, checksum),
    ]

    async def main() -> None:
        use_buffers(shared_hashserver)
        use_databases(shared_database)
        for call in calls:
            with pytest.raises(RuntimeError, match="SEAMLESS_ALLOW_REMOTE_CLIENTS_IN_WORKER"):
                await call()

    host.run(main)


@pytest.mark.parametrize("backend", KINDS)
def test_a_worker_process_may_where_it_is_allowed_to(
    backend: str,
    fresh_remote: None,
    shared_database: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seamless, "_IS_WORKER", True)
    tf = checksum_of(fresh(30))

    async def main() -> None:
        use_databases(shared_database)
        assert await database_remote.set_transformation_result(tf, tf)
        assert await database_remote.get_transformation_result(tf) == tf

    Host(backend, True, Settings(allow_in_worker=True)).run(main)
