"""Defining clients, putting them in effect from anywhere, and changing what is in effect."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import anyio
import anyio.to_thread
import pytest
from counting_proxy import CountingProxy
from hosts import Host, LaunchLog
from registering import use_buffers, use_databases
from seamless_config import ConfigurationError
from services import Home, Service, wait_until
from stored_buffers import buffer_of, checksum_of, fresh, put_file

import seamless_remote
from seamless_remote import Settings, buffer_remote, database_remote
from seamless_remote.buffer_client import BufferClient
from seamless_remote.clients.health import Health
from seamless_remote.database_client import DatabaseClient

URL = "http://127.0.0.1:1"
MODULES = [buffer_remote, database_remote]
TYPE_OF = {buffer_remote: "hashserver", database_remote: "database"}

pytestmark = pytest.mark.usefixtures("fresh_remote")


def read_clients(module: ModuleType) -> list[BufferClient | DatabaseClient]:
    name = "_read_server_clients" if module is buffer_remote else "_read_database_clients"
    return list(getattr(module, name))


# What is defined, and how it is told.


def test_extern_clients_are_inspected_by_name() -> None:
    buffer_remote.define_extern_client("b", "hashserver", url=URL, readonly=False)
    buffer_remote.define_extern_client("f", "bufferfolder", directory="/somewhere")
    database_remote.define_extern_client("d", "database", url=f"{URL}/")
    assert buffer_remote.inspect_extern_clients() == [
        {"name": "b", "readonly": False, "url": URL, "directory": None},
        {"name": "f", "readonly": True, "url": None, "directory": "/somewhere"},
    ]
    assert database_remote.inspect_extern_clients() == [
        {"name": "d", "readonly": True, "url": URL, "directory": None}
    ]
    assert buffer_remote.inspect_launched_clients() == []
    assert database_remote.inspect_launched_clients() == []


def test_a_client_takes_the_place_of_an_earlier_one_of_its_name() -> None:
    for url in (URL, f"{URL}1"):
        database_remote.define_extern_client("d", "database", url=url)
    (found,) = database_remote.inspect_extern_clients()
    assert found["url"] == f"{URL}1"


@pytest.mark.parametrize("type_", ["urlmap", "foldermap", "git-lfs-server", "database", ""])
def test_other_types_of_buffer_client_are_errors_that_name_the_supported_ones(type_: str) -> None:
    with pytest.raises(TypeError, match=r"'hashserver'.*'bufferfolder'") as error:
        buffer_remote.define_extern_client("x", type_, url=URL, params={})
    assert repr(type_) in str(error.value)
    assert buffer_remote.inspect_extern_clients() == []


def test_other_types_of_database_client_are_errors_that_name_the_supported_one() -> None:
    with pytest.raises(TypeError, match="'hashserver' is not supported; supported is 'database'"):
        database_remote.define_extern_client("x", "hashserver", url=URL)


@pytest.mark.parametrize(
    ("type_", "options", "error"),
    [
        ("hashserver", {}, ValueError),
        ("hashserver", {"url": "ftp://somewhere"}, ValueError),
        ("hashserver", {"url": "somewhere:80"}, ValueError),
        ("hashserver", {"url": URL, "params": {"a": 1}}, TypeError),
        ("bufferfolder", {}, ValueError),
        ("bufferfolder", {"directory": "/x", "readonly": False}, ValueError),
    ],
)
def test_what_a_buffer_client_lacks_is_an_error(
    type_: str, options: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        buffer_remote.define_extern_client("x", type_, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("module", MODULES)
def test_an_unknown_extern_client_is_an_error_that_names_it_and_changes_nothing(
    module: ModuleType,
) -> None:
    module.define_extern_client("known", TYPE_OF[module], url=URL)
    module.activate(no_main=True, extern_clients=["known"])
    before = read_clients(module)
    with pytest.raises(RuntimeError, match=r"unknown extern client 'other' \(defined: known\)"):
        module.activate(no_main=True, extern_clients=["known", "other"])
    assert read_clients(module) == before


@pytest.mark.parametrize("module", MODULES)
def test_without_a_cluster_the_main_client_is_an_error(module: ModuleType) -> None:
    with pytest.raises(ConfigurationError):
        module.activate()


@pytest.mark.parametrize("module", MODULES)
def test_a_disabled_module_is_not_activated(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DISABLED", True)
    module.activate(no_main=True, extern_clients=["nobody defined this"])
    module.activate()
    assert read_clients(module) == []


# What other packages read.


def test_the_lists_sort_clients_by_what_they_can_do() -> None:
    buffer_remote.define_extern_client("rw", "hashserver", url=URL, readonly=False)
    buffer_remote.define_extern_client("ro", "hashserver", url=f"{URL}1", readonly=True)
    buffer_remote.define_extern_client("f", "bufferfolder", directory="/somewhere")
    lists = (
        buffer_remote._read_folders_clients,
        buffer_remote._read_server_clients,
        buffer_remote._write_server_clients,
    )
    buffer_remote.activate(no_main=True, extern_clients=["ro", "f", "rw"])
    folders, servers, writable = lists
    assert [client.directory for client in folders] == ["/somewhere"]
    assert [client.url for client in servers] == [f"{URL}1", URL]
    assert [client.url for client in writable] == [URL]
    assert [client.readonly for client in servers] == [True, False]
    assert buffer_remote.has_read_server()
    assert buffer_remote.has_write_server()
    buffer_remote.activate(no_main=True)
    assert lists == ([], [], [])
    assert not buffer_remote.has_read_server()
    assert not buffer_remote.has_write_server()

    database_remote.define_extern_client("rw", "database", url=URL, readonly=False)
    database_remote.define_extern_client("ro", "database", url=f"{URL}1")
    database_remote.activate(no_main=True, extern_clients=["ro", "rw"])
    assert [each.url for each in database_remote._read_database_clients] == [f"{URL}1", URL]
    assert [each.url for each in database_remote._write_database_clients] == [URL]


def test_a_read_only_activation_has_no_write_server(cluster: Home, launches: LaunchLog) -> None:
    def refuse(tool: str) -> None:
        raise RuntimeError("nothing needs to run for this")

    launches.before = refuse
    for module in MODULES:
        module.activate(readonly=True)
        (client,) = read_clients(module)
        assert client.readonly
        assert module.has_read_server()
        assert not module.has_write_server()
    wait_until(lambda: len(launches.tools) == len(MODULES))


def test_closing_and_shutting_down_a_client_ends_nothing(
    host: Host, shared_hashserver: Service, proxy: Callable[[Service], CountingProxy]
) -> None:
    """What `buffer_writer.flush()` does, before each job and not only at the end."""
    between = proxy(shared_hashserver)
    host.settings = Settings(keepalive_interval=0.02)
    content = fresh(100)
    checksum = checksum_of(content)

    async def main() -> None:
        use_buffers(between)
        assert await buffer_remote.write_buffer(checksum, buffer_of(content))
        (client,) = buffer_remote._write_server_clients
        client.ensure_initialized_sync()
        client._shutdown = True
        client._close_sessions()
        client._close_sessions_for_thread(threading.current_thread())
        pings = between.count("/healthcheck")
        assert await buffer_remote.get_buffer(checksum) is not None
        if host.has_nursery:
            await anyio.to_thread.run_sync(
                between.wait_for, lambda: between.count("/healthcheck") >= pings + 2
            )
        assert between.closed == 0

    host.run(main)


@pytest.mark.parametrize("skip_healthcheck", [False, True])
def test_ensure_initialized_sync_works_in_any_thread_and_loop(
    host: Host, shared_hashserver: Service, nowhere: str, skip_healthcheck: bool
) -> None:
    async def main() -> None:
        use_buffers(shared_hashserver, nowhere)
        good, bad = buffer_remote._write_server_clients

        def failure_of(client: BufferClient) -> str:
            try:
                client.ensure_initialized_sync(skip_healthcheck=skip_healthcheck)
            except ConnectionError as exc:
                return str(exc)
            return ""

        for here in (True, False):
            failures = [
                failure_of(each) if here else await anyio.to_thread.run_sync(failure_of, each)
                for each in (good, bad)
            ]
            assert failures[0] == ""
            assert ("the healthcheck failed 5 times" in failures[1]) is not skip_healthcheck
            assert skip_healthcheck or good.health.state is Health.UP

    host.run(main)


def test_a_folder_needs_no_initialization(tmp_path: Path) -> None:
    use_buffers(tmp_path)
    (client,) = buffer_remote._read_folders_clients
    client.ensure_initialized_sync()
    buffer_remote.ensure_initialized()
    assert client.health.state is Health.UNKNOWN


def test_a_folder_is_read_without_any_task_in_the_background(tmp_path: Path) -> None:
    content = fresh(50)
    put_file(tmp_path, content)
    use_buffers(tmp_path)
    buffer = anyio.run(buffer_remote.get_buffer, checksum_of(content))
    assert buffer is not None
    assert buffer.content == content
    assert seamless_remote.current_nursery() is None


# From where it is called.


async def check_found(service: Service, content: bytes) -> None:
    """What is in the service's folder is found by the clients in effect."""
    buffer = await buffer_remote.get_buffer(put_file(service.directory, content))
    assert buffer is not None
    assert buffer.content == content


def test_activation_works_in_the_callers_loop_and_in_a_thread_beside_it(
    host: Host, shared_hashserver: Service, second_hashserver: Service
) -> None:
    async def main() -> None:
        use_buffers(shared_hashserver)
        await check_found(shared_hashserver, fresh(50))
        await anyio.to_thread.run_sync(use_buffers, second_hashserver)
        await check_found(second_hashserver, fresh(50))

    host.run(main)


def test_activation_comes_before_the_nursery_and_goes_on_in_it(
    host: Host, shared_hashserver: Service
) -> None:
    use_buffers(shared_hashserver)
    host.run(lambda: check_found(shared_hashserver, fresh(50)))
    # The nursery is gone; the clients are not.
    host.run(lambda: check_found(shared_hashserver, fresh(50)))


def test_activation_from_another_loop_beside_a_host(host: Host, shared_hashserver: Service) -> None:
    async def elsewhere() -> None:
        use_buffers(shared_hashserver)
        await check_found(shared_hashserver, fresh(50))

    async def main() -> None:
        for backend in ("asyncio", "trio"):
            await anyio.to_thread.run_sync(lambda name=backend: anyio.run(elsewhere, backend=name))
            await check_found(shared_hashserver, fresh(50))

    host.run(main)


def test_two_threads_activate_at_once_while_calls_are_made(
    host: Host, shared_hashserver: Service, second_hashserver: Service
) -> None:
    services = {each.url: each for each in (shared_hashserver, second_hashserver)}
    content = fresh(60)
    begin = threading.Barrier(2)

    def activate(mine: Service) -> None:
        begin.wait()
        for _ in range(25):
            use_buffers(mine)
            use_databases()

    async def main() -> None:
        use_buffers(*services)
        (checksum,) = {put_file(each.directory, content) for each in services.values()}
        async with anyio.create_task_group() as task_group:
            for each in services.values():
                task_group.start_soon(anyio.to_thread.run_sync, activate, each)
            for _ in range(50):
                assert await buffer_remote.get_buffer(checksum) is not None
        # One of the two sets is in effect, whole.
        (client,) = buffer_remote._read_server_clients
        assert buffer_remote._write_server_clients == [client]
        await check_found(services[client.url], fresh(70))

    host.run(main)


# Changes.


def test_a_client_that_is_kept_keeps_its_connections(
    host: Host,
    shared_hashserver: Service,
    second_hashserver: Service,
    proxy: Callable[[Service], CountingProxy],
) -> None:
    kept, given_up = proxy(shared_hashserver), proxy(second_hashserver)
    for name, url in (("kept", kept.url), ("given up", given_up.url)):
        buffer_remote.define_extern_client(name, "hashserver", url=url)
    checksum = put_file(shared_hashserver.directory, fresh(80))

    async def main() -> None:
        buffer_remote.activate(no_main=True, extern_clients=["given up", "kept"])
        assert await buffer_remote.get_buffer(checksum) is not None
        for _ in range(3):
            buffer_remote.activate(no_main=True, extern_clients=["kept"])
            assert await buffer_remote.get_buffer(checksum) is not None
        # The connections of the other are closed: a server sees that.
        await anyio.to_thread.run_sync(
            given_up.wait_for, lambda: given_up.closed == given_up.accepted
        )
        # All downloads went over one connection. Pings, which each activation brings, have others,
        # and one that is under way when the set is swapped is given up.
        assert kept.count(checksum.hex()) == 4
        assert kept.connections_of(checksum.hex()) == 1

    host.run(main)


def test_the_old_set_finishes_its_requests(
    host: Host,
    shared_hashserver: Service,
    second_hashserver: Service,
    proxy: Callable[[Service], CountingProxy],
) -> None:
    between = proxy(shared_hashserver)
    content = fresh(80)
    checksum = put_file(shared_hashserver.directory, content)

    async def read() -> None:
        buffer = await buffer_remote.get_buffer(checksum)
        assert buffer is not None
        assert buffer.content == content

    async def main() -> None:
        use_buffers(between)
        with between.hold(checksum.hex()):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(read)
                await anyio.to_thread.run_sync(between.wait_for_held)
                use_buffers(second_hashserver)
                # What is asked from now on is asked of the new set.
                assert await buffer_remote.get_buffer(checksum) is None
                between.release()
        await anyio.to_thread.run_sync(between.wait_for, lambda: between.closed == between.accepted)

    host.run(main)


def test_a_set_that_was_replaced_before_the_nursery_saw_it_gives_up_its_connections(
    host: Host,
    shared_hashserver: Service,
    second_hashserver: Service,
    proxy: Callable[[Service], CountingProxy],
) -> None:
    between = proxy(shared_hashserver)
    checksum = put_file(shared_hashserver.directory, fresh(80))

    def use_one_and_then_another() -> None:
        use_buffers(between)
        assert anyio.run(buffer_remote.get_buffer, checksum) is not None
        use_buffers(second_hashserver)

    async def main() -> None:
        thread = threading.Thread(target=use_one_and_then_another)
        thread.start()
        thread.join()  # the host's loop, with its nursery, stands still meanwhile
        await anyio.to_thread.run_sync(between.wait_for, lambda: between.closed == between.accepted)

    host.run(main)


@pytest.mark.parametrize("used", [False, True])
def test_leaving_the_nursery_is_not_held_against_the_services(
    host: Host, shared_hashserver: Service, used: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        use_buffers(shared_hashserver)
        if used:
            await check_found(shared_hashserver, fresh(50))

    with caplog.at_level(logging.WARNING, "seamless_remote"):
        for _ in range(3):
            host.run(main)
    assert not caplog.records


def test_the_snapshot_shows_what_is_in_effect(host: Host, shared_hashserver: Service) -> None:
    async def main() -> None:
        use_buffers(shared_hashserver)
        use_databases()
        await check_found(shared_hashserver, fresh(50))
        nursery = seamless_remote.current_nursery()
        assert nursery is not None
        assert nursery.snapshot().hosted is not host.has_nursery

        def running() -> list[str]:
            # Of an earlier test, one may be stopping.
            services = nursery.snapshot().services
            return [each.name for each in services if each.state == "running"]

        # A hosted nursery may still be about to start.
        await anyio.to_thread.run_sync(wait_until, running)
        assert running() == ["buffer_remote"]

    host.run(main)
