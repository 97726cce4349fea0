"""TLS: one context, and handshakes that end well or say why not. On real certificates."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import certifi
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scripted_server import Peer, Script, ScriptedServer

from seamless_remote.transport import tls
from seamless_remote.transport.dialing import dial
from seamless_remote.transport.tls import client_context, handshake

pytestmark = pytest.mark.anyio
PATIENCE = 60.0
Serve = Callable[..., ScriptedServer]


class Certificate(NamedTuple):
    key: Path
    chain: Path


class Certificates(NamedTuple):
    """Self-signed ones. `good`, `elsewhere` and `expired` are trusted; `unknown` is not."""

    good: Certificate
    elsewhere: Certificate
    expired: Certificate
    unknown: Certificate
    trusted: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")

    def make(name: str, names: str, days: int = 2) -> Certificate:
        key, request, chain = (folder / f"{name}.{kind}" for kind in ("key", "request", "pem"))
        subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={names}"]
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, *subject)
        lifetime = ["-days", str(days), "-copy_extensions", "copy"]
        openssl("x509", "-req", "-in", request, "-signkey", key, "-out", chain, *lifetime)
        return Certificate(key, chain)

    here = "DNS:localhost,IP:127.0.0.1,IP:::1"
    good = make("good", here)
    elsewhere = make("elsewhere", "DNS:example.org")
    expired = make("expired", here, days=-1)
    trusted = folder / "trusted.pem"
    trusted.write_text("".join(each.chain.read_text() for each in (good, elsewhere, expired)))
    return Certificates(good, elsewhere, expired, make("unknown", here), trusted)


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(autouse=True)
def fresh_context(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.trusted))
    tls.forget_context()
    yield
    tls.forget_context()


def server_context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def speaks_tls(
    certificate: Certificate, act: Callable[[ssl.SSLSocket], object] | None = None
) -> Script:
    """A script that does a handshake, then `act`s, or echoes."""
    context = server_context(certificate)

    def script(peer: Peer) -> None:
        with context.wrap_socket(peer.sock, server_side=True) as secure:
            if act is not None:
                act(secure)
            else:
                while data := secure.recv(65536):
                    secure.sendall(data)

    return script


async def connect(host: str, server: ScriptedServer) -> ssl.SSLSocket:
    return await handshake(await dial(host, server.port), host)


async def receive(secure: ssl.SSLSocket) -> bytes:
    while True:
        try:
            return secure.recv(65536)
        except ssl.SSLWantReadError:
            pass
        await anyio.wait_readable(secure)


async def until(event: threading.Event) -> None:
    assert await anyio.to_thread.run_sync(event.wait, PATIENCE)


# The context.


class Loading:
    """In the place of `ssl.create_default_context`: may be made to wait, and says who called it."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.real = ssl.create_default_context

    def __call__(self) -> ssl.SSLContext:
        self.threads.append(threading.current_thread())
        self.begun.set()
        self.go_on.wait(PATIENCE)
        return self.real()


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loading]:
    loading = Loading()
    monkeypatch.setattr(ssl, "create_default_context", loading)
    yield loading
    loading.go_on.set()
    for thread in loading.threads:
        thread.join(PATIENCE)


async def test_the_context_is_made_once_on_a_daemon_thread_while_loops_go_on(
    loading: Loading, anyio_backend_name: str, anyio_backend_options: dict[str, Any]
) -> None:
    contexts: list[ssl.SSLContext] = []

    async def ask() -> None:
        contexts.append(await client_context())

    def another_loop() -> None:
        anyio.run(ask, backend=anyio_backend_name, backend_options=anyio_backend_options)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask)
        await until(loading.begun)
        group.start_soon(anyio.to_thread.run_sync, another_loop)
        await anyio.wait_all_tasks_blocked()
        assert contexts == []
        loading.go_on.set()
    contexts.append(await client_context())
    assert len(contexts) == 5
    assert len(set(contexts)) == 1
    [thread] = loading.threads
    assert thread.daemon


async def test_a_cancelled_wait_leaves_the_context_to_the_others(loading: Loading) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(client_context)
        await until(loading.begun)
        group.cancel_scope.cancel()
    loading.go_on.set()
    await client_context()
    assert len(loading.threads) == 1


async def test_a_context_that_could_not_be_made_is_an_error_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(certifi, "where", lambda: str(tmp_path / "gone"))
        with pytest.raises(FileNotFoundError):
            await client_context()
    await client_context()


async def test_the_context_checks_everything_and_offers_http_1_1_only() -> None:
    context = await client_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    # certifi's as well as the three that are the system's here.
    assert context.cert_store_stats()["x509"] > 100


# Handshakes that end well.


@pytest.mark.parametrize(
    ("host", "address"),
    [("localhost", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("localhost.", "::1")],
)
async def test_a_server_is_known_by_its_name_or_its_address(
    serve: Serve, certificates: Certificates, host: str, address: str
) -> None:
    server = serve(speaks_tls(certificates.good), host=address)
    with await handshake(await dial(address, server.port), host) as secure:
        assert secure.selected_alpn_protocol() == "http/1.1"
        assert not secure.getblocking()
        secure.send(b"hello")
        assert await receive(secure) == b"hello"


async def test_a_connection_that_ends_without_tls_goodbye_is_an_error(
    serve: Serve, certificates: Certificates
) -> None:
    def cut(secure: ssl.SSLSocket) -> None:
        secure.sendall(b"part")
        secure.shutdown(socket.SHUT_WR)

    def end(secure: ssl.SSLSocket) -> None:
        secure.sendall(b"whole")
        secure.unwrap()

    with await connect("localhost", serve(speaks_tls(certificates.good, cut))) as secure:
        assert await receive(secure) == b"part"
        with pytest.raises(ssl.SSLEOFError):
            await receive(secure)
    with await connect("localhost", serve(speaks_tls(certificates.good, end))) as secure:
        assert await receive(secure) == b"whole"
        assert await receive(secure) == b""


# Handshakes that fail.


@pytest.mark.parametrize(
    ("which", "host", "fault"),
    [
        ("elsewhere", "localhost", "Hostname mismatch, certificate is not valid for 'localhost'"),
        ("elsewhere", "127.0.0.1", "IP address mismatch, certificate is not valid for '127.0.0.1'"),
        ("expired", "localhost", "certificate has expired"),
        ("unknown", "localhost", "self.signed certificate.*SSL_CERT_FILE"),
    ],
)
async def test_the_fault_of_a_certificate_is_told(
    serve: Serve, certificates: Certificates, which: str, host: str, fault: str
) -> None:
    server = serve(speaks_tls(getattr(certificates, which)))
    with pytest.raises(ssl.SSLCertVerificationError, match=f"is not accepted: {fault}") as caught:
        await connect(host, server)
    assert "_ssl.c" not in str(caught.value)
    assert caught.value.strerror == str(caught.value)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"<!DOCTYPE HTML>", b"SSH-2"]
)
async def test_a_server_that_speaks_something_else_is_recognised(
    serve: Serve, answer: bytes
) -> None:
    def speak(peer: Peer) -> None:
        peer.sock.recv(65536)
        peer.send(answer)
        peer.wait_for_end()

    with pytest.raises(OSError, match="does not speak TLS there: is it http://"):
        await connect("localhost", serve(speak))


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        # What OpenSSL calls plain HTTP from 3.2 on.
        ("PACKET_LENGTH_TOO_LONG", "is it http://"),
        ("RECORD_LAYER_FAILURE", "is it http://"),
        ("TLSV1_ALERT_INTERNAL_ERROR", "the TLS handshake failed: tlsv1 alert internal error"),
        ("", "the TLS handshake broke off: some text"),
    ],
)
def test_what_openssl_says_is_told_in_words(reason: str, told: str) -> None:
    error = ssl.SSLError(ssl.SSL_ERROR_SSL, "some text")
    error.reason = reason
    assert told in tls._explanation(error)


async def test_a_server_without_a_common_protocol_is_told(
    serve: Serve, certificates: Certificates
) -> None:
    context = server_context(certificates.good)
    context.set_ciphers("PSK")

    def script(peer: Peer) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.wrap_socket(peer.sock, server_side=True)

    with pytest.raises(ssl.SSLError, match=r"handshake failed: .*handshake failure"):
        await connect("localhost", serve(script))


def leave(peer: Peer) -> None:
    peer.sock.recv(65536)


def leave_after_a_part(peer: Peer) -> None:
    peer.sock.recv(65536)
    peer.send(b"\x16\x03\x03\x00\x7a\x02")


def reset(peer: Peer) -> None:
    peer.sock.recv(65536)
    peer.reset()


@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [
        (leave, ssl.SSLEOFError, "closed the connection during the TLS handshake"),
        (leave_after_a_part, ssl.SSLEOFError, "closed the connection during the TLS handshake"),
        (reset, ConnectionResetError, "TLS handshake broke off: Connection reset by peer"),
    ],
)
async def test_a_server_that_leaves_during_the_handshake_ends_the_wait(
    serve: Serve, script: Script, kind: type[OSError], text: str
) -> None:
    async def fail() -> None:
        with pytest.raises(kind, match=text):
            await connect("localhost", server)

    def when_told(peer: Peer) -> None:
        peer.wait()
        script(peer)

    server = serve(when_told)
    await client_context()
    async with anyio.create_task_group() as group:
        group.start_soon(fail)
        await anyio.wait_all_tasks_blocked()
        server.release()


async def test_a_connection_that_has_gone_before_the_handshake_is_an_error(serve: Serve) -> None:
    server = serve(Peer.reset)
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.setblocking(False)
        await anyio.wait_readable(sock)
        with pytest.raises(OSError, match=r"Connection reset by peer"):
            await handshake(sock, "localhost")
        assert sock.fileno() == -1


async def test_a_context_that_cannot_be_made_closes_the_socket(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here, there = socket.socketpair()
    monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "gone"))
    with here, there:
        with pytest.raises(FileNotFoundError):
            await handshake(here, "localhost")
        assert here.fileno() == -1


async def test_a_cancelled_handshake_closes_the_socket(loading: Loading) -> None:
    async def shake_hands(sock: socket.socket) -> None:
        await handshake(sock, "localhost")

    for context_first in (False, True):
        here, there = socket.socketpair()
        here.setblocking(False)
        if context_first:
            loading.go_on.set()
            await client_context()
        with here, there:
            async with anyio.create_task_group() as group:
                group.start_soon(shake_hands, here)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
            assert there.recv(65536)[:1] == (b"\x16" if context_first else b"")
            there.setblocking(False)
            # The end of the stream: nobody holds the other end any more.
            assert there.recv(1) == b""


@given(host=st.one_of(st.text(), st.text(".a-%[]:*\0\u00e9\ud800", max_size=70)))
@example("")
@example(".")
@example(".a")
@example("a\0b")
@example("a..b")
@example("%")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_odd_hosts_give_an_oserror_and_close_the_socket(host: str) -> None:
    here, there = socket.socketpair()
    here.setblocking(False)
    there.shutdown(socket.SHUT_WR)
    with here, there:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - of any kind
            await handshake(here, host)
        assert str(caught.value)
        assert here.fileno() == -1
