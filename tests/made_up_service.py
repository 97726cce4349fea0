"""A service that answers what a test tells it to: for answers that no real service gives."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, str, bytes], tuple[int, bytes]]
"""Given method, path and body of a request: the status and the body of its answer."""


class MadeUpService:
    """An HTTP server on a port of its own, on threads of its own; it notes every request."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self._sockets: list[socket.socket] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # A head and its body go out apart: the second would wait for the client's ACK.
            disable_nagle_algorithm = True

            def setup(self) -> None:
                service._sockets.append(self.request)
                super().setup()

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                service.requests.append((self.command, self.path, body))
                status, content = answer(self.command, self.path, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = _answer

            def log_message(self, *_: Any) -> None:
                """Standard error is not for this."""

        class Server(ThreadingHTTPServer):
            daemon_threads = False
            request_queue_size = 128  # as aiohttp's servers have it
            block_on_close = True

            def handle_error(self, *_: Any) -> None:
                """A client may go at any time."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._accept()

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Let nobody in who is not in already: further connections do not come about."""
        self._server.shutdown()
        self._thread.join()
        with contextlib.ExitStack() as waiting:
            # More than the kernel lets wait, so that those who come now are not even heard.
            for _ in range(2 * self._server.request_queue_size):
                one = waiting.enter_context(socket.socket())
                one.setblocking(False)
                one.connect_ex(self._server.server_address)
            yield
        self._accept()

    def _accept(self) -> None:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._server.server_close()


def always(status: int, body: bytes) -> Answer:
    """The same answer to everything."""
    return lambda method, path, sent: (status, body)
