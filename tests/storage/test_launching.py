"""Services that are launched: once for all who ask, side by side, and again when they are gone."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import psutil
import pytest
import remote_http_launcher
import seamless_config.cluster
from hosts import Host, LaunchLog
from services import Home, cluster_definition, healthy, wait_until
from stored_buffers import buffer_of, checksum_of, fresh, path_of

from seamless_remote import buffer_remote, database_remote, jobserver_remote
from seamless_remote.buffer_client import BufferLaunchedClient
from seamless_remote.client import close_all_clients
from seamless_remote.database_client import DatabaseLaunchedClient
from seamless_remote.errors import LaunchError

CALLERS = 20


def activate() -> None:
    buffer_remote.activate()
    database_remote.activate()


async def everything_works() -> None:
    content = fresh(1000)
    checksum = checksum_of(content)
    assert await buffer_remote.write_buffer(checksum, buffer_of(content))
    buffer = await buffer_remote.get_buffer(checksum)
    assert buffer is not None
    assert buffer.content == content
    assert await database_remote.set_transformation_result(checksum, checksum)
    assert await database_remote.get_transformation_result(checksum) == checksum


def test_one_launch_serves_all_threads_and_tasks_that_ask_at_once(
    host: Host, cluster: Home, launches: LaunchLog
) -> None:
    begin = threading.Barrier(CALLERS)

    def in_a_thread() -> None:
        (client,) = buffer_remote._write_server_clients
        begin.wait()
        client.ensure_initialized_sync()
        assert client.url is not None

    async def main() -> None:
        activate()
        with ThreadPoolExecutor(CALLERS) as threads:
            futures = [threads.submit(in_a_thread) for _ in range(CALLERS)]
            async with anyio.create_task_group() as task_group:
                for _ in range(CALLERS):
                    task_group.start_soon(everything_works)
            for future in futures:
                future.result()

    host.run(main)
    assert sorted(launches.tools) == ["database", "hashserver"]


def test_hashserver_and_database_are_launched_side_by_side(
    cluster: Home, launches: LaunchLog
) -> None:
    # Neither launch goes on before both have begun.
    both = threading.Barrier(2, timeout=30)
    launches.before = lambda tool: both.wait()
    activate()
    buffer_remote.ensure_initialized()
    database_remote.ensure_initialized()
    assert sorted(launches.tools) == ["database", "hashserver"]


@pytest.mark.parametrize("host", ["asyncio-host", "trio-alone"], indirect=True)
def test_services_are_in_use_before_the_launcher_has_come_to_its_end(
    host: Host, cluster: Home, launches: LaunchLog
) -> None:
    used = threading.Event()

    def after(tool: str) -> None:
        assert used.wait(30)

    launches.after = after

    async def main() -> None:
        activate()
        await everything_works()
        used.set()

    host.run(main)
    assert sorted(launches.tools) == ["database", "hashserver"]


def test_what_the_launcher_says_after_its_service_is_in_use_is_only_logged(
    cluster: Home, launches: LaunchLog, caplog: pytest.LogCaptureFixture
) -> None:
    used = threading.Event()

    def after(tool: str) -> None:
        assert used.wait(30)
        raise remote_http_launcher.LauncherError("it went wrong in the end")

    launches.after = after
    caplog.set_level("INFO", "seamless_remote.launching")
    database_remote.activate()
    database_remote.ensure_initialized()
    used.set()
    close_all_clients()
    wait_until(lambda: "went wrong" in caplog.text, what="what the launcher says")
    (said,) = [each.message for each in caplog.records if "went wrong" in each.message]
    assert "the database of testproject on local" in said
    database_remote.ensure_initialized()
    assert launches.tools == ["database"]


def test_what_inspection_tells_of_launched_clients(cluster: Home) -> None:
    activate()
    database_remote.activate(readonly=False)
    (buffers,) = buffer_remote.inspect_launched_clients()
    (database,) = database_remote.inspect_launched_clients()
    for found in (buffers, database):
        assert found.keys() == {
            "cluster",
            "readonly",
            "url",
            "remote_url",
            "directory",
            "remote_directory",
        }
        assert found["cluster"] == cluster.cluster
        assert found["readonly"] is False
        assert found["remote_url"] == found["url"]
        parts = urlsplit(found["url"])
        assert parts.scheme == "http"
        assert parts.port is not None
        assert healthy(parts.port)
    assert buffers["directory"] == str(cluster.buffers)
    assert os.path.samefile(buffers["remote_directory"], cluster.buffers)
    assert database["directory"] is database["remote_directory"] is None
    (client,) = buffer_remote._write_server_clients
    assert isinstance(client, BufferLaunchedClient)
    assert (client.url, client.directory) == (buffers["url"], buffers["directory"])
    assert buffer_remote._read_folders_clients == [client]
    (client,) = database_remote._write_database_clients
    assert isinstance(client, DatabaseLaunchedClient)
    assert client.url == database["url"]


def test_before_it_is_launched_a_client_has_a_directory_and_no_url(
    cluster: Home, launches: LaunchLog
) -> None:
    launched = threading.Event()
    launches.before = lambda tool: launched.wait(30)
    buffer_remote.activate()
    (client,) = buffer_remote._write_server_clients
    assert client.url is None
    assert client.directory == str(cluster.buffers)
    assert buffer_remote.has_write_server()
    launched.set()
    client.ensure_initialized_sync(skip_healthcheck=True)
    assert client.url is not None


# Launching takes seconds: each of these in two of the places from which calls come.
@pytest.mark.parametrize(
    ("host", "when"),
    [
        ("asyncio-host", "between two calls"),
        ("trio-host", "during calls"),
        ("asyncio-alone", "during calls"),
        ("trio-alone", "between two calls"),
    ],
    indirect=["host"],
)
def test_a_killed_service_is_launched_again_once_and_the_calls_that_met_it_succeed(
    host: Host, cluster: Home, launches: LaunchLog, when: str
) -> None:
    async def write(number: int) -> None:
        content = fresh(100_000)
        checksum = checksum_of(content)
        assert await buffer_remote.write_buffer(checksum, buffer_of(content))
        assert path_of(cluster.buffers, checksum).read_bytes() == content

    async def main() -> None:
        buffer_remote.activate()
        await write(0)
        pid = cluster.service_pid("hashserver")
        assert launches.tools == ["hashserver"]
        if when == "during calls":
            # Stopped, the server takes requests and does not answer: all of them meet its end.
            os.kill(pid, signal.SIGSTOP)
        async with anyio.create_task_group() as task_group:
            if when == "between two calls":
                await anyio.to_thread.run_sync(kill, pid)
            for number in range(CALLERS):
                task_group.start_soon(write, number)
            if when == "during calls":
                await anyio.wait_all_tasks_blocked()
                await anyio.to_thread.run_sync(kill, pid)
        assert cluster.service_pid("hashserver") != pid

    host.run(main)
    assert launches.tools == ["hashserver", "hashserver"]


@pytest.mark.parametrize("host", ["asyncio-host", "trio-alone"], indirect=True)
@pytest.mark.parametrize("taken", [False, True])
def test_a_store_is_launched_again_at_its_address_unless_that_is_taken(
    host: Host, cluster: Home, taken: bool
) -> None:
    async def main() -> None:
        database_remote.activate()
        (client,) = database_remote._write_database_clients
        client.ensure_initialized_sync()
        url = client.url
        assert url is not None
        await anyio.to_thread.run_sync(kill, cluster.service_pid("database"))
        with occupied(urlsplit(url).port) if taken else contextlib.nullcontext():
            assert await database_remote.get_transformation_result("ab" * 32) is None
        assert (client.url == url) is not taken

    host.run(main)


@pytest.mark.parametrize("host", ["trio-host"], indirect=True)
def test_a_store_gets_its_address_back_when_another_program_had_that_for_a_moment(
    host: Host, cluster: Home, launches: LaunchLog
) -> None:
    async def main() -> None:
        database_remote.activate()
        (client,) = database_remote._write_database_clients
        client.ensure_initialized_sync()
        url = client.url
        assert url is not None
        await anyio.to_thread.run_sync(kill, cluster.service_pid("database"))
        with occupied(urlsplit(url).port) as other, on_log("former port", other.close):
            assert await database_remote.get_transformation_result("ab" * 32) is None
        assert client.url == url

    host.run(main)
    assert launches.tools == ["database"] * 3


@contextlib.contextmanager
def occupied(port: int | None) -> Iterator[socket.socket]:
    """A socket that has the port to itself, until the end of the block at the latest."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("0.0.0.0", port))
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # not to be shared
        yield other


@contextlib.contextmanager
def on_log(text: str, act: Callable[[], object]) -> Iterator[None]:
    """`act` when launching logs a message with this text."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if text in record.getMessage():
                act()

    logger, handler = logging.getLogger("seamless_remote.launching"), Handler()
    former = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(former)
        logger.removeHandler(handler)


def kill(pid: int) -> None:
    process = psutil.Process(pid)
    process.kill()
    wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize("host", ["trio-host", "asyncio-alone"], indirect=True)
def test_a_service_that_cannot_start_is_a_launch_error_with_its_log(
    host: Host, cluster: Home
) -> None:
    blocked = cluster.path / "blocked"
    blocked.touch()
    definition = cluster_definition(cluster.path)
    frontend = definition[cluster.cluster]["frontends"][0]
    frontend["hashserver"]["bufferdir"] = str(blocked / "buffers")
    seamless_config.cluster.define_clusters(definition)
    checksum = checksum_of(fresh(9))

    async def main() -> None:
        buffer_remote.activate()
        with pytest.raises(LaunchError, match="the hashserver of testproject on local") as error:
            await buffer_remote.get_buffer(checksum)
        (log,) = re.findall(r"\S+\.log", str(error.value))
        assert Path(log).expanduser().is_file()
        assert isinstance(error.value, ConnectionError)
        with pytest.raises(LaunchError):
            buffer_remote.ensure_initialized()
        with pytest.raises(LaunchError):
            buffer_remote.inspect_launched_clients()

        # The next call tries anew, with the configuration as it is then.
        seamless_config.cluster.define_clusters(cluster_definition(cluster.path))
        assert await buffer_remote.get_buffer(checksum) is None

    host.run(main)


def test_a_store_that_cannot_start_is_a_launch_error_of_the_jobserver_that_needs_it(
    cluster: Home, launches: LaunchLog
) -> None:
    blocked = cluster.path / "blocked"
    blocked.touch()
    definition = cluster_definition(cluster.path)
    frontend = definition[cluster.cluster]["frontends"][0]
    frontend["hashserver"]["bufferdir"] = str(blocked / "buffers")
    seamless_config.cluster.define_clusters(definition)
    activate()
    with pytest.raises(LaunchError, match="the hashserver of testproject on local"):
        jobserver_remote.activate()
    assert "jobserver" not in launches.tools


@pytest.mark.parametrize("host", ["asyncio-host", "trio-alone"], indirect=True)
def test_cancelling_a_caller_leaves_the_launch_to_the_others(
    host: Host, cluster: Home, launches: LaunchLog
) -> None:
    begun, go = threading.Event(), threading.Event()

    def before(tool: str) -> None:
        begun.set()
        assert go.wait(30)

    launches.before = before

    async def main() -> None:
        database_remote.activate()
        async with anyio.create_task_group() as others:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(database_remote.get_transformation_result, "ab" * 32)
                await anyio.to_thread.run_sync(begun.wait)
                await anyio.wait_all_tasks_blocked()
                others.start_soon(database_remote.get_transformation_result, "cd" * 32)
                await anyio.wait_all_tasks_blocked()
                task_group.cancel_scope.cancel()
            go.set()

    host.run(main)
    assert launches.tools == ["database"]


def test_stages_and_further_launched_clients_have_places_of_their_own(cluster: Home) -> None:
    place = {"cluster": cluster.cluster, "project": "other", "stage": "build"}
    buffer_remote.define_launched_client(True, cluster.cluster, "other", "", "build")
    buffer_remote.activate(extra_launched_clients=[{**place, "readonly": True}])
    main, extra = buffer_remote._read_server_clients
    assert buffer_remote._write_server_clients == [main]
    assert main.directory == str(cluster.buffers)
    assert extra.directory == str(cluster.buffers.with_name("other") / "STAGE-build")
    assert extra.readonly
    with pytest.raises(RuntimeError, match=r"launched client named twice: other/build on local"):
        buffer_remote.activate(extra_launched_clients=[place, place])
    # The set in effect is still the one before.
    assert buffer_remote._read_server_clients == [main, extra]
