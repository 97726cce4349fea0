"""Answers that no real service gives, as bytes on a socket and what follows them."""

from __future__ import annotations

import contextlib
import enum
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

PIECE = 65536


class End(enum.Enum):
    """What becomes of the connection after an answer."""

    STAY = enum.auto()
    CLOSE = enum.auto()
    RESET = enum.auto()


@dataclass(frozen=True)
class PlayedAnswer:
    """The pieces of an answer, each sent after a `pause` (in seconds), and the `end`.

    `status` is that of an answer that is HTTP as it should be, after which the connection may
    serve again; None where it must be closed. `takes_body` says that a body that waits for the
    server's go is let come first.
    """

    name: str
    pieces: Callable[[], Iterable[bytes]]
    end: End = End.STAY
    status: int | None = None
    pause: float = 0.0
    takes_body: bool = False


def play(client: socket.socket, answer: PlayedAnswer) -> End:
    """Read one request and answer it; how the connection is to end."""
    _read_request(client, takes_body=answer.takes_body)
    # The client goes as soon as it has seen enough.
    with contextlib.suppress(OSError):
        for piece in answer.pieces():
            time.sleep(answer.pause)
            client.sendall(piece)
    return answer.end


def _read_request(client: socket.socket, *, takes_body: bool) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(client)
    head, _, body = data.partition(b"\r\n\r\n")
    missing = _length(head) - len(body)
    if b"expect: 100-continue" in head.lower():
        if not takes_body:
            return
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    while missing > 0:
        missing -= len(_more(client))


def _more(client: socket.socket) -> bytes:
    data = client.recv(PIECE)
    if not data:
        raise ConnectionResetError("the client has gone")
    return data


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
