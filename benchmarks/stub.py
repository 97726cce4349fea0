"""A server that answers at once: what a client takes against it is the client's own cost.

`python stub.py --host HOST --port PORT [--pause SECONDS] [--pace SECONDS]`. It speaks as much of
seamless-database and hashserver as the cases need: every transformation has its checksum's reverse
as its result; the numbered buffers are there, and each takes the pace, one after another; all
others are absent, and may be uploaded, which is confirmed after the pause if the bytes are right.
It counts its connections. It ends with its standard input, so none outlives the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import sys
import time
from typing import ClassVar

from measured.task import NUMBERED, checksum_of, numbered_buffer

_CHECKSUM = re.compile(rb"[0-9a-f]{64}")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Connection(asyncio.Protocol):
    """A connection; one request on it at a time. What the class has is shared by all of them."""

    pause = pace = 0.0
    open = most = 0
    buffers: ClassVar = {
        checksum_of(content).encode(): content for content in map(numbered_buffer, range(NUMBERED))
    }

    def __init__(self) -> None:
        self._head = b""
        self._received = bytearray()
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        _Connection.open += 1
        _Connection.most = max(self.most, self.open)

    def connection_lost(self, exc: Exception | None) -> None:
        _Connection.open -= 1

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._head:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = bytes(self._received[:end])
            del self._received[: end + 4]
            length = _LENGTH.search(self._head)
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
        elif path == b"/connections":
            # At the most since this was last asked; the connection that asks is not counted.
            self._answer(b"%d" % (self.most - 1))
            _Connection.most = self.open
        elif path == b"/":
            asked = _CHECKSUM.search(body)
            self._answer(asked[0][::-1] if asked else b"OK")
        elif path in (b"/has", b"/has-now", b"/buffer-length"):
            lengths = [len(self.buffers.get(each, b"")) for each in _CHECKSUM.findall(body)]
            found = lengths if path == b"/buffer-length" else [length > 0 for length in lengths]
            self._answer(json.dumps(found).encode())
        elif method == b"PUT":
            right = checksum_of(body).encode() == path[1:]
            status = b"200 OK" if right else b"400 Bad Request"
            loop = asyncio.get_running_loop()
            loop.call_later(self.pause, self._answer, b"", status)
        elif path[1:] in self.buffers:
            time.sleep(self.pace)
            self._answer(self.buffers[path[1:]])
        else:
            self._answer(b"Not found", status=b"404 Not Found")

    def _answer(self, body: bytes, status: bytes = b"200 OK") -> None:
        self._transport.write(
            b"HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
            b"Server: stub\r\n\r\n%s" % (status, len(body), body)
        )


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--pace", type=float, default=0.0)
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    _Connection.pause, _Connection.pace = given.pause, given.pace
    loop = asyncio.new_event_loop()
    serving = loop.create_server(_Connection, given.host, given.port, backlog=4096)
    loop.run_until_complete(serving)
    loop.add_reader(sys.stdin, loop.stop)  # nothing is ever written to it
    loop.run_forever()


if __name__ == "__main__":
    _main()
