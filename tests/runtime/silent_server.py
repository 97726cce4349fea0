"""A server that takes every request and answers none, until it dies."""

from __future__ import annotations

import selectors
import socket
import struct
import threading

PATIENCE = 30.0
RESET = struct.pack("ii", 1, 0)


class SilentServer:
    """Listens on a port of its own; one thread serves all connections."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._condition = threading.Condition()
        self._heads: list[bytes] = []
        self._connections: set[socket.socket] = set()
        self._orders, self._ears = socket.socketpair()
        self._dead = False
        self._thread = threading.Thread(target=self._serve, name="silent server")
        self._thread.start()

    def count(self, text: str) -> int:
        """How many requests had this text in their first line."""
        return sum(text.encode() in head for head in self._heads)

    def wait_for(self, text: str, count: int = 1) -> None:
        """Block until so many requests with this text have come."""
        with self._condition:
            if not self._condition.wait_for(lambda: self.count(text) >= count, PATIENCE):
                raise AssertionError(f"{self.count(text)} of {count} requests have come")

    def die(self) -> None:
        """Reset all connections, and let nobody in any more."""
        if not self._dead:
            self._dead = True
            self._orders.send(b"q")
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive()
            self._orders.close()

    def close(self) -> None:
        self.die()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector, self._listener, self._ears:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._ears, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    ready = key.fileobj
                    assert isinstance(ready, socket.socket)
                    if ready is self._listener:
                        connection, _ = ready.accept()
                        self._connections.add(connection)
                        selector.register(connection, selectors.EVENT_READ)
                    elif ready is not self._ears:
                        self._receive(selector, ready)
                    else:
                        for each in self._connections:
                            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                            each.close()
                        return

    def _receive(self, selector: selectors.BaseSelector, connection: socket.socket) -> None:
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            selector.unregister(connection)
            connection.close()
            self._connections.discard(connection)
            return
        with self._condition:
            self._heads.append(data.split(b"\r\n", 1)[0])
            self._condition.notify_all()
