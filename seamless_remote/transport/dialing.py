"""Opening TCP connections: name in, connected non-blocking socket out.

Plain sockets, not anyio streams: a request then costs one wait, where a stream takes an extra turn
of the loop and a cancel scope for each send.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from errno import EAGAIN, EINPROGRESS, EWOULDBLOCK
from itertools import chain, zip_longest
from typing import Any

import anyio

Address = tuple[int, tuple[Any, ...]]

# RFC 8305: the pause before the next address of a name is tried beside the earlier ones.
_HEAD_START = 0.25
_UNDER_WAY = (0, EINPROGRESS, EWOULDBLOCK, EAGAIN)


async def dial(host: str, port: int) -> socket.socket:
    """A socket connected to the first address of `host` that answers; OSError if none does.

    Cancellation-safe: a cancelled call leaves no socket open.
    """
    addresses = await _resolve(host, port)
    if len(addresses) == 1:
        return await _connect(addresses[0])
    connected: list[socket.socket] = []
    errors: list[OSError] = []

    async def attempt(address: Address, failed: anyio.Event) -> None:
        try:
            connected.append(await _connect(address))
        except OSError as exc:
            errors.append(exc)
            failed.set()
        else:
            group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            for address in addresses:
                failed = anyio.Event()
                group.start_soon(attempt, address, failed)
                with anyio.move_on_after(_HEAD_START):
                    await failed.wait()
        if not connected:
            raise _summary(errors)
        return connected.pop(0)
    finally:
        for loser in connected:
            loser.close()


def _summary(errors: Sequence[OSError]) -> OSError:
    texts = dict.fromkeys(exc.strerror or str(exc) for exc in errors)
    return OSError("; ".join(texts))


async def _connect(address: Address) -> socket.socket:
    family, target = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # A request is written in one piece: holding it back for more only delays it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(target)
        if code in _UNDER_WAY:
            await anyio.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


async def _resolve(host: str, port: int) -> list[Address]:
    """The addresses of `host`, both families in turn. Literals and localhost need no look-up."""
    if host == "localhost":
        # RFC 6761 lets localhost mean loopback without asking. IPv4 first: our services bind there.
        return [
            (socket.AF_INET, ("127.0.0.1", port)),
            *([(socket.AF_INET6, ("::1", port, 0, 0))] if socket.has_ipv6 else []),
        ]
    try:
        # In this form it does not block.
        found = _addresses(
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        )
    except socket.gaierror:
        found = _addresses(await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    first = [address for address in found if address[0] == found[0][0]]
    others = [address for address in found if address[0] != found[0][0]]
    turns = chain.from_iterable(zip_longest(first, others))
    return [address for address in turns if address is not None]


def _addresses(found: Iterable[tuple[int, int, int, str, tuple[Any, ...]]]) -> list[Address]:
    return list(dict.fromkeys((family, target) for family, _, _, _, target in found))
