"""For the tests of the runtime's promises: real services, and what stands before them."""

# ruff: noqa: E402 - the helpers of the other folders are found only after the first lines.

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for folder in ("nursery", "storage", "faults", "remote_execution"):
    sys.path.append(str(Path(__file__).parents[1] / folder))

import pytest
import remote_http_launcher
import seamless_config.cluster
import seamless_config.config_files
import seamless_config.select
from counting_proxy import CountingProxy
from fault_proxy import FaultProxy
from hosts import HOSTS, Host, LaunchLog
from loops import LoopThread, new_loop
from made_up_service import Answer, MadeUpService
from services import Home, Service, cluster_definition, start_jobserver
from silent_server import SilentServer

from seamless_remote import Settings
from seamless_remote.client import close_all_clients
from seamless_remote.clients import retry_policy
from seamless_remote.nursery.process import this_process


@pytest.fixture(scope="session", autouse=True)
def uvloop_has_been_used() -> None:
    """libuv opens a pipe for signals with its first loop, once, and keeps it."""
    with contextlib.suppress(pytest.skip.Exception):
        new_loop("uvloop").close()


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long the pause between two tries is, is not what is tested here."""
    monkeypatch.setattr(retry_policy, "pause", lambda *args, **options: 0.005)


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest, fresh_remote: None) -> Host:
    """Every place that a call can come from."""
    return Host(*HOSTS[request.param], Settings())


@pytest.fixture
def hosted_settings(fresh_remote: None) -> Iterator[Callable[[Settings], None]]:
    """Sets the settings of hosted nurseries from now on, in place of the environment's."""

    def put(settings: Settings) -> None:
        close_all_clients()  # also the one that is open now
        this_process().settings = settings

    yield put
    close_all_clients()
    this_process().settings = None


@pytest.fixture
def host_with(
    host: Host, hosted_settings: Callable[[Settings], None]
) -> Callable[[Settings], Host]:
    """The host with other settings, whether the nursery is its own or a hosted one."""

    def put(settings: Settings) -> Host:
        hosted_settings(settings)
        host.settings = settings
        return host

    return put


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
def proxy() -> Iterator[Callable[[Service], CountingProxy]]:
    """Puts counting proxies before services."""
    yield from _closing(lambda service: CountingProxy(service.port))


@pytest.fixture
def faulty() -> Iterator[Callable[[Service], FaultProxy]]:
    """Puts proxies before services that do harm on demand."""
    yield from _closing(lambda service: FaultProxy(service.port))


@pytest.fixture
def made_up() -> Iterator[Callable[[Answer], MadeUpService]]:
    """Starts services that answer what they are told to."""
    yield from _closing(MadeUpService)


@pytest.fixture
def silent() -> Iterator[Callable[[], SilentServer]]:
    """Starts servers that take every request and answer none."""
    yield from _closing(SilentServer)


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
