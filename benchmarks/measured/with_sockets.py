"""The floor: non-blocking sockets and httptools' C parser in one asyncio loop, and nothing else.

No retries, no time limits, no checksums, no cancellation: what a client cannot do without.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import socket
from collections import deque
from pathlib import Path
from urllib.parse import urlsplit

import httptools
from peer import Peer
from task import Task, require, result_of

_CONNECTIONS = 30
_RECEIVE = 1 << 18


class _Connection:
    """One connection with at most one request on it."""

    def __init__(self, address: tuple[str, int], loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._buffer = memoryview(bytearray(_RECEIVE))
        loop.add_reader(self._socket, self._readable)

    async def ask(self, head: bytes, body: bytes = b"") -> tuple[int, bytearray]:
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
        self._folder = task.get("folder")
        url = task.get("database") or (task.get("servers") or [""])[0]
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._host = parts.netloc
        self._idle: list[_Connection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._room = _CONNECTIONS

    async def lookup(self, key: str) -> str:
        body = json.dumps({"type": "transformation", "checksum": key}).encode()
        status, answer = await self._exchange(f"GET / HTTP/1.1\r\nHost: {self._host}\r\n", body)
        require(status == 200, f"status {status}")
        return answer.decode()

    async def record(self, key: str) -> object:
        row = {"type": "transformation", "checksum": key, "value": result_of(key)}
        head = f"PUT / HTTP/1.1\r\nHost: {self._host}\r\n"
        status, _ = await self._exchange(head, json.dumps(row).encode())
        return status

    async def get(self, checksum: str) -> bytearray:
        head = f"GET /{checksum} HTTP/1.1\r\nHost: {self._host}\r\n"
        status, answer = await self._exchange(head, b"")
        require(status == 200, f"status {status}")
        return answer

    async def put(self, checksum: str, content: bytes) -> bool:
        head = f"PUT /{checksum} HTTP/1.1\r\nHost: {self._host}\r\n"
        status, _ = await self._exchange(head, content)
        return status in (200, 201)

    def resolve(self, checksum: str) -> bytes:
        if self._folder:
            content = Path(self._folder, checksum[:2], checksum).read_bytes()
            require(hashlib.sha256(content).hexdigest() == checksum, "the file's checksum")
            return content
        if not hasattr(self, "_plain"):
            self._plain = http.client.HTTPConnection(*self._address)
        self._plain.request("GET", f"/{checksum}")
        return self._plain.getresponse().read()

    async def _exchange(self, head: str, body: bytes) -> tuple[int, bytearray]:
        loop = asyncio.get_running_loop()
        while not self._idle and not self._room:
            turn = loop.create_future()
            self._waiting.append(turn)
            await turn
        if self._idle:
            connection = self._idle.pop()
        else:
            self._room -= 1
            connection = _Connection(self._address, loop)
        answer = await connection.ask(f"{head}Content-Length: {len(body)}\r\n\r\n".encode(), body)
        self._idle.append(connection)
        if self._waiting:
            self._waiting.popleft().set_result(None)
        return answer
