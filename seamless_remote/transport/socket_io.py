"""The socket under a connection: bytes in and out, without waiting, plain or over TLS."""

from __future__ import annotations

import select
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass

TLS_RECORD = 16384
"""The most that TLS sends in one piece (RFC 8446, 5.1)."""

# A TLS write that would block has to be repeated with the same bytes, so it must not be long.
_TLS_AT_ONCE = 4 * TLS_RECORD


class BrokenConnectionError(Exception):
    """The connection was reset, or closed. Never seen outside of `Connection`."""


@dataclass(slots=True)
class Traffic:
    """Bytes that went over the connections of a pool, heads included."""

    sent: int = 0
    received: int = 0


class SocketIO:
    """A connected, non-blocking socket (an `ssl.SSLSocket` after its handshake, over TLS)."""

    __slots__ = ("_blocked", "_poll", "_traffic", "is_tls", "sock")

    def __init__(self, sock: socket.socket, traffic: Traffic) -> None:
        self.sock = sock
        self.is_tls = isinstance(sock, ssl.SSLSocket)
        self._blocked: tuple[type[Exception], ...] = (BlockingIOError,)
        if self.is_tls:
            self._blocked = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._traffic = traffic

    def is_stale(self) -> bool:
        """Whether the server closed an idle connection, or spoke on it. One system call."""
        # What it said in the same TLS record as the last answer is in the kernel no more.
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return True
        if not self._poll.poll(0):
            return False
        if not self.is_tls:
            return True
        try:
            # A TLS server may send session tickets at any time; they are no data.
            self.sock.recv(1)
        except self._blocked:
            return False
        except OSError:
            return True
        return True

    def send(self, data: bytes | memoryview) -> int:
        """Hand bytes to the kernel; how many of them it took."""
        if self.is_tls:
            data = memoryview(data)[:_TLS_AT_ONCE]
        try:
            sent = self.sock.send(data)
        except self._blocked:
            return 0
        except OSError as exc:
            raise BrokenConnectionError(exc.strerror or str(exc)) from exc
        self._traffic.sent += sent
        return sent

    def receive(self, size: int) -> bytes | None:
        """What has come, at most `size` bytes: b"" at the end of the stream, None if nothing."""
        try:
            data = self.sock.recv(size)
        except self._blocked:
            return None
        except OSError as exc:
            raise BrokenConnectionError(exc.strerror or str(exc)) from exc
        self._traffic.received += len(data)
        return data

    def receive_into(self, room: memoryview) -> int | None:
        """Put what has come in `room`, which is not empty: how much, as `receive` says it."""
        try:
            count = self.sock.recv_into(room)
        except self._blocked:
            return None
        except OSError as exc:
            raise BrokenConnectionError(exc.strerror or str(exc)) from exc
        self._traffic.received += count
        return count

    def close(self) -> None:
        """Close the socket, now."""
        self.sock.close()

    def shut_down(self) -> None:
        """End it for both sides, from any thread; whoever waits for it sees a broken connection."""
        with suppress(OSError):
            # Not `SSLSocket.shutdown`, after which the socket would go on in plain text.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
