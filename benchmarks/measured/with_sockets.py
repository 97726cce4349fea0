"""The floor: non-blocking sockets and httptools' C parser in one asyncio loop, and nothing else.

No retries, no time limits, no checksums, no cancellation: what a client cannot do without.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httptools
from peer import Peer
from task import Task, checksum_of, require, result_of

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

    async def ask(self, head: bytes, body: bytes) -> tuple[int, bytearray]:
        """Send a request; its answer's status and body."""
        self._answer: asyncio.Future[tuple[int, bytearray]] = self._loop.create_future()
        self._body = bytearray()
        self._parser = httptools.HttpResponseParser(self)
        if len(body) <= _RECEIVE:
            self._socket.send(head + body)
        else:
            await self._loop.sock_sendall(self._socket, head)
            await self._loop.sock_sendall(self._socket, body)
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
        self._folder = task.get("folder", "")
        server = urlsplit(task.get("database") or task.get("servers", [""])[0])
        self._host = server.netloc
        self._address = server.hostname or "", server.port or 80
        self._plain = http.client.HTTPConnection(self._host)
        # A place that has no connection yet is None. The last in is the first out, so that a
        # connection is opened only where none is idle.
        self._places: asyncio.LifoQueue[_Connection | None] = asyncio.LifoQueue()
        for _ in range(_CONNECTIONS):
            self._places.put_nowait(None)

    async def lookup(self, key: str) -> str:
        question = json.dumps({"type": "transformation", "checksum": key}).encode()
        return (await self._exchange("GET", "", question)).decode()

    async def record(self, key: str) -> None:
        row = {"type": "transformation", "checksum": key, "value": result_of(key)}
        await self._exchange("PUT", "", json.dumps(row).encode())

    async def get(self, checksum: str) -> bytearray:
        return await self._exchange("GET", checksum)

    async def put(self, checksum: str, content: bytes) -> bool:
        await self._exchange("PUT", checksum, content)
        return True

    def resolve(self, checksum: str) -> bytes:
        if self._folder:
            content = Path(self._folder, checksum[:2], checksum).read_bytes()
            require(checksum_of(content) == checksum, "the file's checksum")
            return content
        self._plain.request("GET", f"/{checksum}")
        return self._plain.getresponse().read()

    async def _exchange(self, method: str, path: str, body: bytes = b"") -> bytearray:
        head = f"{method} /{path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(body)}"
        connection = await self._places.get() or _Connection(self._address)
        status, answer = await connection.ask(f"{head}\r\n\r\n".encode(), body)
        self._places.put_nowait(connection)
        require(status in (200, 201), f"status {status}")
        return answer
