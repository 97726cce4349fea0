"""Tunnels through an HTTP proxy: the CONNECT method of RFC 9110, 9.3.6."""

from __future__ import annotations

import contextlib
import re
import socket

from .socket_waits import readable, writable

_MAX_HEAD = 16384
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.\d (\d{3})(?: ([^\r\n]*))?\r?\n")


async def open_tunnel(sock: socket.socket, proxy_host: str, host: str, port: int) -> None:
    """Have the proxy that a non-blocking socket is connected to connect it on to `host`.

    What the other end of the tunnel sends stays in the socket, from its first byte. Any failure is
    an OSError that names the proxy and what it said. After an error or a cancellation the socket is
    closed.
    """
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        await _send(sock, _request(target))
        head = await _receive_head(sock)
        if (refusal := _refusal(head)) is not None:
            raise ConnectionError(f"it answered {refusal}")
    except OSError as exc:
        sock.close()
        reason = exc.strerror or str(exc)
        raise ConnectionError(f"no tunnel to {target} by proxy {proxy_host}: {reason}") from exc
    except BaseException:
        sock.close()
        raise


def _request(target: str) -> bytes:
    # A blank or a line break would be read as a different request.
    if not re.fullmatch("[!-~]+", target):
        raise OSError("the request would hold characters that no request can hold")
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode("ascii")


async def _send(sock: socket.socket, data: bytes) -> None:
    while data:
        await writable(sock)
        with contextlib.suppress(BlockingIOError):
            data = data[sock.send(data) :]


async def _receive_head(sock: socket.socket) -> bytes:
    """Receive up to the empty line, and not a byte more: the next one may be the server's."""
    head = b""
    while len(head) < _MAX_HEAD:
        await readable(sock)
        try:
            coming = sock.recv(_MAX_HEAD - len(head), socket.MSG_PEEK)
        except BlockingIOError:
            continue
        if not coming:
            when = "within its answer" if head else "without an answer"
            raise ConnectionError(f"it closed the connection {when}")
        end = _END_OF_HEAD.search(head + coming)
        head += sock.recv(end.end() - len(head) if end else len(coming))
        if end and len(head) == end.end():
            return head
    raise ConnectionError(f"its answer has no end within {_MAX_HEAD} bytes")


def _refusal(head: bytes) -> str | None:
    """What the proxy said, if that is not that the tunnel is open."""
    status = _STATUS_LINE.match(head)
    if status is None:
        return repr(head[:80])
    code, reason = status.groups()
    if code.startswith(b"2"):
        return None
    return " ".join((code + b" " + (reason or b"")).decode("latin-1").split())
