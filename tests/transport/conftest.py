"""Scripted servers, a transport, and a count of the sockets that a test leaves."""

from __future__ import annotations

import contextlib
import gc
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator

import pytest
from exchanges import assert_nothing_in_use
from scripted_server import Script, ScriptedServer, echo, open_sockets

from seamless_remote.transport import poller, tls
from seamless_remote.transport.transport import Transport
from seamless_remote.transport.urls import Origin


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "transport" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("error"))


@pytest.fixture(params=["epoll", "readers"])
def poller_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On systems without epoll, asyncio's loops are used with their readers."""
    if request.param == "readers":
        monkeypatch.setattr(poller, "EpollPoller", poller.LoopPoller)


@pytest.fixture(scope="session")
def server_context(
    own_environment: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ssl.SSLContext]:
    """A certificate for this machine, which this process trusts."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run(
        [*command.split(), "-subj", "/CN=localhost", "-addext", names, *files],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(cert))
        tls.forget_context()
        yield context
    tls.forget_context()


@pytest.fixture
def scheme(request: pytest.FixtureRequest) -> str:
    """What `serve` speaks: http, if the test is not marked with `both_schemes`."""
    return str(getattr(request, "param", "http"))


@pytest.fixture
def serve(request: pytest.FixtureRequest, scheme: str) -> Iterator[Callable[..., ScriptedServer]]:
    servers: list[ScriptedServer] = []
    context = request.getfixturevalue("server_context") if scheme == "https" else None

    def start(*scripts: Script, **options: object) -> ScriptedServer:
        servers.append(
            ScriptedServer(*(scripts or (echo,)), context=context, **options)  # type: ignore[arg-type]
        )
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def deaf() -> Iterator[Origin]:
    """An origin where connecting hangs: its queue of connections is full."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as listener,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield Origin("http", *listener.getsockname())


@pytest.fixture(autouse=True)
def no_socket_is_left() -> Iterator[None]:
    gc.collect()
    before = open_sockets()
    yield
    gc.collect()
    assert not open_sockets() - before


@pytest.fixture
def transport() -> Iterator[Transport]:
    """A transport of which nothing may be in use at the end."""
    transport = Transport(lambda: True)
    yield transport
    assert_nothing_in_use(transport)
    transport.close_idle()
