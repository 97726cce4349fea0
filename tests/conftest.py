"""Fixtures for all tests: services, a private HOME, loops of each kind, and leak checks."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import remote_http_launcher
import seamless_config.cluster
import seamless_config.config_files
import seamless_config.select
from counting_proxy import CountingProxy
from fault_proxy import FaultProxy
from hosts import HOSTS, Host, LaunchLog
from leaks import watch, watch_tasks
from loops import KINDS, LoopThread, new_loop
from made_up_service import Answer, MadeUpService
from services import (
    BINARIES,
    HOST,
    Home,
    Service,
    cluster_definition,
    end_processes_with,
    start_database,
    start_hashserver,
    start_jobserver,
)

from seamless_remote import Settings
from seamless_remote.clients import retry_policy
from seamless_remote.demo.frontend import find_sshd
from seamless_remote.demo.local_cluster import FOREIGN_PREFIXES

Starter = Callable[..., Service]
Closer = Callable[[Any], Any]

# An environment variable with a unique value, inherited by every process of this test run.
_RUN = "TEST_RUN"


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        os.environ[_RUN] = uuid.uuid4().hex


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the processes that were started by the tests of a crashed xdist worker."""
    if not hasattr(config, "workerinput"):
        end_processes_with(_RUN, os.environ[_RUN])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the number of distinct bad inputs and answers (see tests/faults/conftest.py), and what
    was left out."""
    if find_sshd() is None:
        terminalreporter.write_line("left out: a frontend over SSH, for want of sshd (or ssh)")
    reports = [each for key in ("passed", "failed") for each in terminalreporter.getreports(key)]
    tried = {
        value
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "bad input or answer"
    }
    if tried:
        terminalreporter.write_line(f"{len(tried)} bad inputs and answers tried")


@pytest.fixture(scope="session", autouse=True)
def own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty HOME, no settings of the user's, and this interpreter's console scripts."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(FOREIGN_PREFIXES)]:
            patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("PATH", os.pathsep.join([str(BINARIES), os.environ.get("PATH", os.defpath)]))
        yield


@pytest.fixture(scope="session", autouse=True)
def uvloop_has_been_used() -> None:
    """libuv opens a pipe for signals with its first loop, once, and keeps it."""
    with contextlib.suppress(pytest.skip.Exception):
        new_loop("uvloop").close()


@pytest.fixture(autouse=True)
def no_leaks(own_environment: None) -> Iterator[None]:
    """Fail a test that leaves threads, open files or child processes behind."""
    with watch():
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the demo: it takes longest, and would run alone at the end."""
    items.sort(key=lambda item: item.path.name != "test_demo.py")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check async tests that use the `anyio_backend` fixture for leftover tasks as well."""
    if (
        isinstance(item, pytest.Function)
        and "anyio_backend" in item.fixturenames
        and inspect.iscoroutinefunction(item.obj)
        and not hasattr(item.obj, "hypothesis")
    ):
        item.obj = watch_tasks(item.obj)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    """Run async tests that use the `host` fixture there."""
    test = pyfuncitem.obj
    host = pyfuncitem.funcargs.get("host")
    if not isinstance(host, Host) or not inspect.iscoroutinefunction(test):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}
    host.run(lambda: test(**arguments))
    return True


@pytest.fixture(params=KINDS)
def anyio_backend(request: pytest.FixtureRequest) -> str | tuple[str, dict[str, Any]]:
    """Run the test in each kind of loop."""
    if request.param != "uvloop":
        return str(request.param)
    pytest.importorskip("uvloop")
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest, fresh_remote: None) -> Host:
    """Every place that a call can come from. An async test that uses this runs there."""
    kind, has_nursery = HOSTS[request.param]
    if kind == "uvloop":
        pytest.importorskip("uvloop")
    return Host(kind, has_nursery, Settings())


@pytest.fixture
def loop_threads() -> Iterator[Callable[[str], LoopThread]]:
    """Starts loops that turn in threads of their own until the end of the test."""
    started: list[LoopThread] = []

    def start(kind: str) -> LoopThread:
        started.append(LoopThread(kind))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def fresh_remote() -> Iterator[None]:
    """No registered clients and no open nursery, before the test and after it."""
    from seamless_remote.activation import registry
    from seamless_remote.client import close_all_clients

    def forget() -> None:
        for each in registry._registries.values():
            each._launched.clear()
            each._extern.clear()
            each._set_active(())
        close_all_clients()

    forget()
    yield
    forget()


@pytest.fixture
def hashserver(tmp_path: Path) -> Iterator[Starter]:
    """Starts hashservers: `hashserver()`, or with options of `services.start_hashserver`."""
    yield from _starter(start_hashserver, tmp_path, "hashserver")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Starter]:
    """Starts databases: `database()`, or with options of `services.start_database`."""
    yield from _starter(start_database, tmp_path, "database")


@pytest.fixture
def jobserver(tmp_path: Path) -> Iterator[Starter]:
    """Starts jobservers: `jobserver()`, or with options of `services.start_jobserver`."""
    yield from _starter(start_jobserver, tmp_path, "jobserver")


@pytest.fixture(scope="session")
def shared_hashserver(
    own_environment: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A hashserver shared by all tests that do not disturb it."""
    with start_hashserver(tmp_path_factory.mktemp("shared") / "hashserver") as service:
        yield service


@pytest.fixture(scope="session")
def shared_database(
    own_environment: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A database shared by all tests that do not disturb it."""
    with start_database(tmp_path_factory.mktemp("shared") / "database") as service:
        yield service


@pytest.fixture(scope="session")
def shared_jobserver(
    shared_hashserver: Service,
    shared_database: Service,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """A jobserver with two workers, for all tests that do it no harm."""
    with start_jobserver(
        tmp_path_factory.mktemp("shared") / "jobserver",
        workers=2,
        hashserver=shared_hashserver,
        database=shared_database,
    ) as service:
        yield service


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a job and its test leave each other signs."""
    made = tmp_path / "signs"
    made.mkdir()
    return made


@pytest.fixture
def closed_at_the_end() -> Iterator[Closer]:
    """Takes things that are to be closed when the test has ended, and gives them back."""
    with contextlib.ExitStack() as stack:
        yield lambda thing: stack.enter_context(contextlib.closing(thing))


@pytest.fixture
def proxy(closed_at_the_end: Closer) -> Callable[[Service], CountingProxy]:
    """Puts counting proxies before services."""
    return lambda service: closed_at_the_end(CountingProxy(service.port))


@pytest.fixture
def faulty(closed_at_the_end: Closer) -> Callable[[Service], FaultProxy]:
    """Puts proxies before services that do harm on demand."""
    return lambda service: closed_at_the_end(FaultProxy(service.port))


@pytest.fixture
def made_up(closed_at_the_end: Closer) -> Callable[[Answer], MadeUpService]:
    """Starts services that answer what they are told to."""
    return lambda answer: closed_at_the_end(MadeUpService(answer))


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long the pause between two tries is, is not what is tested here."""
    monkeypatch.setattr(retry_policy, "pause", lambda *args, **options: 0.005)


@pytest.fixture
def nowhere() -> Iterator[str]:
    """A URL that refuses connections. Its port stays bound, so that nothing else takes it."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        yield f"http://{HOST}:{taken.getsockname()[1]}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A HOME with a cluster of real services, set in this process and the programs it runs."""
    home = Home(tmp_path / "home")
    monkeypatch.setenv("HOME", str(home.path))
    try:
        yield home
    finally:
        home.close()


@pytest.fixture
def cluster(home: Home, fresh_remote: None, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A HOME whose cluster and project are selected in this process, as by its configuration."""
    monkeypatch.setattr(seamless_config.cluster, "_clusters", {})
    monkeypatch.setattr(seamless_config.cluster, "_local_cluster", None)
    monkeypatch.setattr(seamless_config.select, "_current_cluster", home.cluster)
    monkeypatch.setattr(seamless_config.select, "_current_project", home.project_name)
    monkeypatch.setattr(seamless_config.select, "_current_stage", None)
    seamless_config.config_files.load_tools()
    seamless_config.cluster.define_clusters(cluster_definition(home.path))
    return home


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> LaunchLog:
    """What is launched, by the real launcher."""
    log = LaunchLog(remote_http_launcher.run)
    monkeypatch.setattr(remote_http_launcher, "run", log.run)
    return log


def _starter(start: Callable[..., Service], tmp_path: Path, name: str) -> Iterator[Starter]:
    """Yield a function that starts services, each in its own directory; end them afterwards."""
    services: list[Service] = []
    numbers = itertools.count()

    def starter(directory: Path | None = None, **options: Any) -> Service:
        service = start(directory or tmp_path / f"{name}-{next(numbers)}", **options)
        services.append(service)
        return service

    try:
        yield starter
    finally:
        # End all of them even if one fails.
        failures = []
        for service in services:
            try:
                service.close()
            except Exception as exc:
                failures.append(exc)
        if failures:
            raise failures[0]
