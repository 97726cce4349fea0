"""Servers that play what a test tells them, on real sockets, in threads of their own."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable

from seamless_remote.transport import Origin

Script = Callable[["Peer"], None]
PATIENCE = 20.0


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

    def wait_for_end(self) -> None:
        """Until the client closes."""
        with contextlib.suppress(OSError):
            while self.sock.recv(65536):
                continue

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _more(self) -> None:
        data = self.sock.recv(262144)
        if not data:
            raise EOFError
        self.buffer += data


class ScriptedServer:
    """Plays a script for each connection; the last script serves all further ones."""

    def __init__(self, *scripts: Script, host: str = "127.0.0.1", backlog: int = 128) -> None:
        self.scripts = scripts
        self.released = threading.Event()
        self.reached = threading.Event()
        self.requests: list[bytes] = []
        self.bodies: list[bytes] = []
        self.accepted = 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=backlog)
        self.port: int = self._listener.getsockname()[1]
        self.origin = Origin("http", host, self.port)
        self._peers: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            script = self.scripts[min(self.accepted, len(self.scripts) - 1)]
            self.accepted += 1
            self._peers.append(sock)
            thread = threading.Thread(target=self._play, args=(script, sock), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _play(self, script: Script, sock: socket.socket) -> None:
        # The client may go at any point of a script.
        with sock, contextlib.suppress(EOFError, OSError):
            script(Peer(sock, self))

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
                sock.shutdown(socket.SHUT_RDWR)
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
