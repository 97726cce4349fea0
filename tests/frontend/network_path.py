"""The network between a laptop and its frontend: a TCP path that is silent, or gone.

One thread with a loop of its own passes the bytes of all connections on. What is lost is lost
silently: no connection ends, nothing is refused, and nothing comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import threading
from collections.abc import Callable
from typing import Any

HOST = "127.0.0.1"
PIECE = 262144


class Way(enum.Enum):
    """What becomes of a new connection."""

    OPEN = enum.auto()
    SILENT = enum.auto()
    """It is accepted, and nothing ever comes back."""
    CLOSED = enum.auto()
    """It is ended at once."""


class NetworkPath:
    """Leads from `port`, on this machine, to `target`. Any thread may change it."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.turned_away = 0
        """How many connections have found it closed."""
        self._way = Way.OPEN
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._run(self._listen)

    @property
    def connections(self) -> int:
        """How many connections are open, lost ones included."""
        return len(self._connections)

    def lose(self) -> None:
        """Silently lose what the connections of this moment send, from now on; new ones are well.

        As when a laptop has slept, or is in another network.
        """
        for connection in tuple(self._connections):
            connection.lost = True

    def put(self, way: Way) -> None:
        """What becomes of new connections, from now on."""
        self._way = way

    def cut(self) -> None:
        """End all connections of this moment."""
        self._run(self._cut)

    def close(self) -> None:
        self._run(self._close)
        self._run(self._cut)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, step: Callable[[], Any]) -> None:
        asyncio.run_coroutine_threadsafe(step(), self._loop).result()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, 0, backlog=256)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _cut(self) -> None:
        tasks = [connection.task for connection in self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._way is Way.CLOSED:
            self.turned_away += 1
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        connection = _Connection(self.target, task, lost=self._way is Way.SILENT)
        self._connections.add(connection)
        try:
            await connection.run(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(connection)
            writer.transport.abort()


class _Connection:
    def __init__(self, target: int, task: asyncio.Task[Any], *, lost: bool) -> None:
        self.target = target
        self.task = task
        self.lost = lost

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, self.target)
        try:
            await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))
        finally:
            back.transport.abort()

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(PIECE):
            if not self.lost:
                sink.write(data)
                await sink.drain()
        if not self.lost:
            with contextlib.suppress(OSError):
                sink.write_eof()
