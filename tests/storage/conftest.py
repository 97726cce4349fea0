"""Where a test's calls come from: an asyncio or trio host, or a loop without any host."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import remote_http_launcher
import seamless_config.cluster
import seamless_config.config_files
import seamless_config.select
from counting_proxy import CountingProxy
from hosts import HOSTS, Host, LaunchLog
from made_up_service import Answer, MadeUpService
from services import Home, Service, cluster_definition, start_database, start_hashserver

from seamless_remote import Settings
from seamless_remote.clients import retry_policy as retry


@pytest.fixture(params=HOSTS)
def host(
    request: pytest.FixtureRequest, fresh_remote: None, monkeypatch: pytest.MonkeyPatch
) -> Host:
    """Every place that a call can come from. An async test that uses this runs there.

    Requests are tried again without much of a pause: how long it is, is the transport's subject.
    """
    monkeypatch.setattr(retry, "pause", lambda tries, rand, **_: 0.001)
    return Host(*HOSTS[request.param], Settings())


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    test = pyfuncitem.obj
    if "host" not in pyfuncitem.funcargs or not inspect.iscoroutinefunction(test):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}
    pyfuncitem.funcargs["host"].run(lambda: test(**arguments))
    return True


@pytest.fixture(scope="session")
def second_hashserver(
    own_environment: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Another hashserver for all tests that do it no harm."""
    with start_hashserver(tmp_path_factory.mktemp("second") / "hashserver") as service:
        yield service


@pytest.fixture(scope="session")
def flat_hashserver(
    own_environment: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A hashserver with the flat layout, for all tests that do it no harm."""
    directory = tmp_path_factory.mktemp("flat") / "hashserver"
    with start_hashserver(directory, layout="flat") as service:
        yield service


@pytest.fixture(scope="session")
def readonly_hashserver(
    own_environment: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A hashserver that refuses to be written to."""
    directory = tmp_path_factory.mktemp("readonly") / "hashserver"
    with start_hashserver(directory, writable=False) as service:
        yield service


@pytest.fixture(scope="session")
def second_database(
    own_environment: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Another database for all tests that do it no harm."""
    with start_database(tmp_path_factory.mktemp("second") / "database") as service:
        yield service


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


@pytest.fixture
def proxy() -> Iterator[Callable[[Service], CountingProxy]]:
    """Puts counting proxies before services."""
    yield from _closing(lambda service: CountingProxy(service.port))


@pytest.fixture
def made_up() -> Iterator[Callable[[Answer], MadeUpService]]:
    """Starts services that answer what they are told to."""
    yield from _closing(MadeUpService)


def _closing(make: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def start(*args: Any) -> Any:
        made.append(make(*args))
        return made[-1]

    try:
        yield start
    finally:
        for each in made:
            each.close()
