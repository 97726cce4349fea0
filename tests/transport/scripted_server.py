"""Servers that play what a test tells them, on real sockets, in threads of their own."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any

from seamless_remote.transport.urls import Origin

Script = Callable[["Peer"], None]
PATIENCE = 60.0


class Peer:
    """The server's end of one connection, in a thread of its own."""

    def __init__(self, sock: socket.socket, server: ScriptedServer) -> None:
        self.sock = sock
        self.server = server
        self.buffer = b""

    def request(self) -> tuple[bytes, bytes]:
        """Read one request: its head and its body. EOFError when the client has gone."""
        head = self.head()
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return head, self.exactly(length)

    def head(self) -> bytes:
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head

    def exactly(self, length: int) -> bytes:
        while len(self.buffer) < length:
            self._more()
        data, self.buffer = self.buffer[:length], self.buffer[length:]
        return data

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, body: bytes = b"", status: str = "200 OK", extra: str = "") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        self.send(head.encode() + body)

    def wait(self) -> None:
        """Do nothing until the test says `server.release()`, or ends."""
        self.server.released.wait(PATIENCE)

    def wait_for_end(self) -> int:
        """Until the client closes; how many bytes came before that."""
        received = 0
        with contextlib.suppress(OSError):
            while data := self.sock.recv(65536):
                received += len(data)
        return received

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def cut(self) -> None:
        """Close with FIN, over TLS without its goodbye."""
        # Not `SSLSocket.shutdown`, after which the thread would read in plain text.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def say_goodbye(self) -> None:
        """Over TLS: tell the client that this is the end, without waiting for its answer."""
        if isinstance(self.sock, ssl.SSLSocket):
            with contextlib.suppress(OSError):
                self.sock.setblocking(False)
                self.sock.unwrap()

    def _more(self) -> None:
        data = self.sock.recv(262144)
        if not data:
            raise EOFError
        self.buffer += data


class _ServerSocket(ssl.SSLSocket):
    """`wrap_socket` leaks its socket if the client has reset the connection by then."""

    def getpeername(self) -> Any:
        with contextlib.suppress(OSError):
            return super().getpeername()


class ScriptedServer:
    """Plays a script for each connection; the last script serves all further ones.

    A connection whose script has come to its end is closed, over TLS (with a `context`) with its
    goodbye.
    """

    def __init__(
        self,
        *scripts: Script,
        host: str = "127.0.0.1",
        backlog: int = 128,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.scripts = scripts
        self.released = threading.Event()
        self.reached = threading.Event()
        self.requests: list[bytes] = []
        self.bodies: list[bytes] = []
        self.accepted = 0
        self.ended = 0
        self.most_open = 0
        """The most connections that were open at once."""
        if context is not None:
            context.sslsocket_class = _ServerSocket
        self._context = context
        self._lock = threading.Lock()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=backlog)
        self.port: int = self._listener.getsockname()[1]
        self.origin = Origin("http" if context is None else "https", host, self.port)
        self._peers: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._context is not None:
                    sock = self._context.wrap_socket(
                        sock, server_side=True, do_handshake_on_connect=False
                    )
            except OSError:
                return
            script = self.scripts[min(self.accepted, len(self.scripts) - 1)]
            with self._lock:
                self.accepted += 1
                self.most_open = max(self.most_open, self.accepted - self.ended)
            self._peers.append(sock)
            thread = threading.Thread(target=self._play, args=(script, sock), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _play(self, script: Script, sock: socket.socket) -> None:
        # The client may go at any point of a script.
        with sock, contextlib.suppress(EOFError, OSError):
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            peer = Peer(sock, self)
            script(peer)
            peer.say_goodbye()
        with self._lock:
            self.ended += 1

    def release(self) -> None:
        self.released.set()

    def close(self) -> None:
        self.release()
        if self._listener.fileno() < 0:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(PATIENCE)
        for sock in self._peers:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def echo(peer: Peer) -> None:
    """Answers every request with its own body, for ever."""
    while True:
        head, body = peer.request()
        peer.server.requests.append(head)
        peer.server.bodies.append(body)
        peer.answer(body or b"hello")


def answer_when_released(peer: Peer) -> None:
    """Answers every request once the test says `server.release()`."""
    while True:
        peer.request()
        peer.server.reached.set()
        peer.wait()
        peer.answer(b"late")


def open_sockets() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found
