"""A jobserver whose jobs only take time: `python job_stub.py --host HOST --port PORT`.

A job is held open for `--seconds` and has its checksum's reverse as its result. A canceled job is
answered as such. `/counts` gives a JSON object: how many jobs are `running`, and, since it was last
asked, how many were `started` and `canceled`, and how many ran at once at the `most`. The stub ends
with its standard input, so none outlives the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import sys
from typing import ClassVar

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Connection(asyncio.Protocol):
    """A connection; one request on it at a time. What the class has is shared by all of them."""

    seconds = 0.0
    jobs: ClassVar[dict[str, tuple[_Connection, asyncio.TimerHandle]]] = {}
    started = canceled = most = 0

    def __init__(self) -> None:
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end])
        length = _LENGTH.search(head)
        missing = int(length[1]) if length else 0
        if len(self._received) >= end + 4 + missing:
            body = bytes(self._received[end + 4 :])
            self._received.clear()
            self._respond(head.split(b" ", 2)[1].decode(), body)

    def _respond(self, path: str, body: bytes) -> None:
        _, action, *rest = path.split("/")
        if action == "run-transformation":
            self._start(json.loads(body)["tf_checksum"])
        elif action == "cancel-transformation":
            held = self.jobs.pop(rest[0], None)
            if held is not None:
                connection, timer = held
                timer.cancel()
                _Connection.canceled += 1
                connection._answer("Transformation was canceled")
            status = "canceled" if held else "not-running"
            self._answer({"canceled": held is not None, "status": status})
        elif action == "transformation-status":
            self._answer({"status": "running" if rest[0] in self.jobs else "not-running"})
        elif action == "counts":
            counts = {"started": self.started, "canceled": self.canceled, "most": self.most}
            self._answer({"running": len(self.jobs), **counts})
            _Connection.started = _Connection.canceled = 0
            _Connection.most = len(self.jobs)
        else:
            self._answer("OK")

    def _start(self, checksum: str) -> None:
        timer = asyncio.get_running_loop().call_later(self.seconds, self._end, checksum)
        self.jobs[checksum] = self, timer
        _Connection.started += 1
        _Connection.most = max(self.most, len(self.jobs))

    def _end(self, checksum: str) -> None:
        # The job goes on without its connection, as at the real server.
        del self.jobs[checksum]
        self._answer({"result_checksum": checksum[::-1], "record_runtime": None})

    def _answer(self, content: str | dict[str, object]) -> None:
        if self._transport.is_closing():
            return
        kind = "text/plain" if isinstance(content, str) else "application/json"
        body = content if isinstance(content, str) else json.dumps(content)
        self._transport.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: {kind}; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nServer: stub\r\n\r\n{body}".encode()
        )


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--seconds", type=float)
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    _Connection.seconds = given.seconds
    loop = asyncio.new_event_loop()
    serving = loop.create_server(_Connection, given.host, given.port, backlog=4096)
    loop.run_until_complete(serving)
    loop.add_reader(sys.stdin, loop.stop)  # nothing is ever written to it
    loop.run_forever()


if __name__ == "__main__":
    _main()
