"""Settings of hosted nurseries, and servers that are silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hosts import Host
from silent_server import SilentServer

from seamless_remote import Settings
from seamless_remote.client import close_all_clients
from seamless_remote.nursery.process import this_process


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
def silent(
    closed_at_the_end: Callable[[SilentServer], SilentServer],
) -> Callable[[], SilentServer]:
    """Starts servers that take every request and answer none."""
    return lambda: closed_at_the_end(SilentServer())
