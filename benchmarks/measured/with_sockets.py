"""The floor of look-ups: sockets and httptools' C parser in one asyncio loop, and nothing else.

No retries, no time limits, no checksums, no cancellation: what a client cannot do without.
"""

from __future__ import annotations

import asyncio
import json
import socket
from urllib.parse import urlsplit

import httptools
from peer import Peer
from task import Task, require, result_of

_CONNECTIONS = 30
_RECEIVE = 1 << 18


class _Connection:
    """One connection with at most one request on it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._buffer = memoryview(bytearray(_RECEIVE))
        self._loop.add_reader(self._socket, self._readable)

    async def ask(self, request: bytes) -> tuple[int, bytearray]:
        """Send a small request; its answer's status and body."""
        self._answer: asyncio.Future[tuple[int, bytearray]] = self._loop.create_future()
        self._body = bytearray()
        self._parser = httptools.HttpResponseParser(self)
        self._socket.send(request)
        return await self._answer

    def _readable(self) -> None:
        count = self._socket.recv_into(self._buffer)
        if count:
            self._parser.feed_data(self._buffer[:count])
        elif not self._answer.done():
            self._answer.set_exception(ConnectionResetError("closed by the server"))

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self._answer.set_result((self._parser.get_status_code(), self._body))


class SocketPeer(Peer):
    """As many connections as the packages allow database requests in flight."""

    def connect(self, task: Task) -> None:
        server = urlsplit(task["database"])
        self._host = server.netloc
        self._address = server.hostname or "", server.port or 80
        # A place that has no connection yet is None. The last in is the first out, so that a
        # connection is opened only where none is idle.
        self._places: asyncio.LifoQueue[_Connection | None] = asyncio.LifoQueue()
        for _ in range(_CONNECTIONS):
            self._places.put_nowait(None)

    async def lookup(self, key: str) -> str:
        return await self._exchange("GET", checksum=key)

    async def record(self, key: str) -> None:
        await self._exchange("PUT", checksum=key, value=result_of(key))

    async def _exchange(self, method: str, **row: str) -> str:
        body = json.dumps({"type": "transformation", **row})
        head = f"{method} / HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(body)}"
        connection = await self._places.get() or _Connection(self._address)
        status, answer = await connection.ask(f"{head}\r\n\r\n{body}".encode())
        self._places.put_nowait(connection)
        require(status == 200, f"status {status}")
        return answer.decode()
