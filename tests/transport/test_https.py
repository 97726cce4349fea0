"""https, through httpx, against a TLS server with a certificate of its own."""

from __future__ import annotations

import gzip
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

from seamless_remote.errors import ConnectError, ExchangeError, ProtocolError, ServiceTimeout
from seamless_remote.transport import Origin, Request, StreamBody, Transport
from seamless_remote.transport.secure import is_local

pytestmark = pytest.mark.anyio
ZIPPED = gzip.compress(b"zipped")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20

    def setup(self) -> None:
        self.server.connections += 1  # type: ignore[attr-defined]
        super().setup()

    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers.items()))  # type: ignore[attr-defined]
        if self.path == "/moved":
            self._answer(302, b"", ("Location", "/"))
        elif self.path == "/nothing":
            self._answer(200, b"")
        elif self.path == "/zipped":
            self._answer(200, ZIPPED, ("Content-Encoding", "gzip"))
        elif self.path == "/silent":
            self.server.reached.set()  # type: ignore[attr-defined]
            self.server.released.wait(20)  # type: ignore[attr-defined]
            self.close_connection = True
        elif self.path == "/cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
            self.close_connection = True
        elif self.path == "/garbage":
            self.wfile.write(b"SSH-2.0\r\n\r\n")
            self.close_connection = True
        else:
            self._answer(200, b"hello")

    def do_PUT(self) -> None:
        self._answer(200, self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing: stderr is for failures."""


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing it waits for its connections to be closed

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.seen: list[dict[str, str]] = []
        self.connections = 0
        self.reached = threading.Event()
        self.released = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no failure."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(
        [*command.split(), *names, "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    return key, cert


@pytest.fixture
def server(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Server, Origin]]:
    key, cert = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    # A proxy that nobody answers at: loopback is never asked for through one.
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with Server(context) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server, Origin("https", "127.0.0.1", server.server_address[1])
        server.released.set()
        server.shutdown()
        thread.join()


async def ask(
    transport: Transport, origin: Origin, request: Request, timeout: float = 20
) -> tuple[int, bytes]:
    response = await transport.send(request, origin, lane="test", read_timeout=timeout)
    return response.status, await response.read(1 << 26)


async def test_https_gives_raw_bodies_and_follows_no_redirect(
    server: tuple[Server, Origin], transport: Transport
) -> None:
    handler, origin = server
    assert await ask(transport, origin, Request("GET", "/")) == (200, b"hello")
    assert await ask(transport, origin, Request("GET", "/zipped")) == (200, ZIPPED)
    assert await ask(transport, origin, Request("GET", "/moved")) == (302, b"")
    # Nothing is asked for in the caller's name.
    assert {name.lower() for name in handler.seen[0]} == {"host"}
    await transport.aclose()


@pytest.mark.parametrize("path", ["/", "/nothing"])
async def test_https_connections_serve_again_once_the_announced_bytes_have_come(
    server: tuple[Server, Origin], transport: Transport, path: str
) -> None:
    handler, origin = server
    for _ in range(3):
        request = Request("GET", path)
        async with await transport.send(request, origin, lane="test", read_timeout=20) as response:
            room = memoryview(bytearray(response.content_length or 1))
            assert await response.fill(room) == response.content_length
    assert handler.connections == 1
    await transport.aclose()


async def test_https_requests_may_be_withdrawn_until_they_are_sent(
    server: tuple[Server, Origin], transport: Transport
) -> None:
    handler, origin = server

    def withdraw() -> None:
        raise LookupError("no longer wanted")

    with pytest.raises(LookupError, match="no longer wanted"):
        await ask(transport, origin, Request("GET", "/", before_turn=withdraw))
    assert not handler.seen
    assert await ask(transport, origin, Request("GET", "/")) == (200, b"hello")
    assert len(handler.seen) == 1
    await transport.aclose()


async def test_https_uploads_arrive_whole(
    server: tuple[Server, Origin], transport: Transport
) -> None:
    data = bytes(range(256)) * 8000

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]

    for body in (data, memoryview(data), StreamBody(len(data), chunks)):
        assert await ask(transport, server[1], Request("PUT", "/", body=body)) == (200, data)
    with pytest.raises(ValueError, match="announced"):
        await ask(transport, server[1], Request("PUT", "/", body=StreamBody(5, chunks)))
    await transport.aclose()


@pytest.mark.parametrize(
    ("path", "error"),
    [("/silent", ServiceTimeout), ("/cut", ExchangeError), ("/garbage", ProtocolError)],
)
async def test_https_failures_have_the_same_types(
    server: tuple[Server, Origin], transport: Transport, path: str, error: type[Exception]
) -> None:
    timeout = 0.2 if path == "/silent" else 20
    with pytest.raises(error):
        await ask(transport, server[1], Request("GET", path), timeout)
    server[0].released.set()
    await transport.aclose()


async def test_an_unknown_certificate_and_a_closed_port_are_connect_errors(
    server: tuple[Server, Origin],
    transport: Transport,
    monkeypatch: pytest.MonkeyPatch,
    nowhere: str,
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ConnectError):
        await ask(transport, server[1], Request("GET", "/"))
    with pytest.raises(ConnectError):
        await ask(transport, server[1]._replace(port=urlsplit(nowhere).port), Request("GET", "/"))
    await transport.aclose()


async def test_cancelling_https_leaves_nothing_behind(
    server: tuple[Server, Origin], transport: Transport
) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(ask, transport, server[1], Request("GET", "/silent"))
        await anyio.to_thread.run_sync(server[0].reached.wait, 20)
        group.cancel_scope.cancel()
    server[0].released.set()
    assert await ask(transport, server[1], Request("GET", "/")) == (200, b"hello")
    transport.release([])
    await transport.aclose()


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("node07", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("192.168.0.1", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("8.8.8.8", False),
        ("2001:4860:4860::8888", False),
        ("example.org", False),
        ("example.org.", False),
    ],
)
def test_proxies_are_for_hosts_outside(host: str, local: bool) -> None:
    assert is_local(host) is local
