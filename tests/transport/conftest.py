"""Scripted servers, a transport, and a count of the sockets that a test leaves."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
from scripted_server import Script, ScriptedServer, echo, open_sockets

from seamless_remote.transport import Transport


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "transport" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("error"))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    servers: list[ScriptedServer] = []

    def start(*scripts: Script, **options: object) -> ScriptedServer:
        servers.append(ScriptedServer(*(scripts or (echo,)), **options))  # type: ignore[arg-type]
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(autouse=True)
def no_socket_is_left() -> Iterator[None]:
    gc.collect()
    before = open_sockets()
    yield
    gc.collect()
    assert not open_sockets() - before


@pytest.fixture
def transport() -> Transport:
    return Transport(connect_timeout=5, max_connections=4, idle_lifetime=60)
