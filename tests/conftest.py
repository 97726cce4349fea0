"""Fixtures for all tests: real services, a private HOME, both backends, and leak checks."""

from __future__ import annotations

import inspect
import itertools
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from leaks import watch, watch_tasks
from services import (
    BINARIES,
    HOST,
    Home,
    Service,
    end_processes_with,
    start_database,
    start_hashserver,
    start_jobserver,
)

from seamless_remote.demo.local_cluster import FOREIGN_PREFIXES

Starter = Callable[..., Service]

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
    """Print the number of distinct bad inputs and answers (see tests/faults/conftest.py)."""
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


@pytest.fixture(autouse=True)
def no_leaks(own_environment: None) -> Iterator[None]:
    """Fail a test that leaves threads, open files or child processes behind."""
    with watch():
        yield


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


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run the test on each backend."""
    return str(request.param)


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
