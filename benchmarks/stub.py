"""A server that answers at once: what a client takes against it is the client's own cost.

`python stub.py PORT_FILE [--pause SECONDS]`. It speaks as much of seamless-database and hashserver
as the cases need: every transformation has its checksum's reverse as its result; every buffer is
absent, and may be uploaded, which is confirmed after the pause if its bytes are right. It also
tells on how many connections it has been asked at once. It ends with its standard input, so none
outlives the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

_CHECKSUM = re.compile(rb"[0-9a-f]{64}")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class _Connections:
    """Those that are open and have been asked on: how many, and the most since it was told."""

    def __init__(self) -> None:
        self._asked: set[_Answering] = set()
        self._most = 0

    def add(self, connection: _Answering) -> None:
        self._asked.add(connection)
        self._most = max(self._most, len(self._asked))

    def discard(self, connection: _Answering) -> None:
        self._asked.discard(connection)

    def tell_most(self) -> int:
        most, self._most = self._most, len(self._asked)
        return most


class _Answering(asyncio.Protocol):
    """A connection; one request on it at a time."""

    def __init__(self, pause: float, connections: _Connections) -> None:
        self._pause = pause
        self._connections = connections
        self._head = b""
        self._received = bytearray()
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._head:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = bytes(self._received[:end])
            del self._received[: end + 4]
            length = _LENGTH.search(self._head)
            if length is None and _CHUNKED.search(self._head):
                self._answer(b"this stub knows no chunks", status=b"501 Not Implemented")
                self._transport.close()
                return
            self._missing = int(length[1]) if length else 0
            if b"100-continue" in self._head:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if len(self._received) >= self._missing:
            head, body = self._head, bytes(self._received)
            self._head = b""
            self._received.clear()
            self._respond(head, body)

    def _respond(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        if path == b"/healthcheck":
            self._answer(b"OK")
        elif path == b"/most-connections":
            self._answer(b"%d" % self._connections.tell_most())
        elif path == b"/":
            self._connections.add(self)
            found = _CHECKSUM.search(body)
            self._answer(found[0][::-1] if found else b"OK")
        elif path in (b"/has", b"/has-now"):
            count = len(_CHECKSUM.findall(body))
            self._answer(b"[" + b",".join([b"false"] * count) + b"]")
        elif path == b"/buffer-length":
            count = len(_CHECKSUM.findall(body))
            self._answer(b"[" + b",".join([b"0"] * count) + b"]")
        elif path.startswith(b"/promise/"):
            self._answer(b'{"expires_in": 600.0}', status=b"202 Accepted")
        elif method == b"PUT":
            right = hashlib.sha256(body).hexdigest().encode() == path[1:]
            status = b"200 OK" if right else b"400 Bad Request"
            asyncio.get_running_loop().call_later(self._pause, self._answer, b"", status)
        else:
            self._answer(b"Not found", status=b"404 Not Found")

    def _answer(self, body: bytes, status: bytes = b"200 OK") -> None:
        self._transport.write(
            b"HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
            b"Server: stub\r\n\r\n%s" % (status, len(body), body)
        )


async def _serve(announce: Callable[[int], object], pause: float) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    connections = _Connections()
    server = await loop.create_server(lambda: _Answering(pause, connections), "127.0.0.1", 0)

    def closed() -> None:
        loop.remove_reader(sys.stdin)
        ended.set_result(None)

    loop.add_reader(sys.stdin, closed)  # nothing is ever written to it
    announce(server.sockets[0].getsockname()[1])
    await ended


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port_file", type=Path)
    parser.add_argument("--pause", type=float, default=0.0)
    arguments = parser.parse_args()
    asyncio.run(_serve(lambda port: arguments.port_file.write_text(f"{port}\n"), arguments.pause))
