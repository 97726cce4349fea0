"""Host names to addresses, without blocking any event loop or interpreter exit.

A resolver may take minutes over a dead name. Each name that is being looked up has a daemon thread
of its own, so it delays no other name. Nothing is cached: that is the resolver's business.
"""

from __future__ import annotations

import socket
from typing import Any

from .daemon_threads import SharedThreads

Address = tuple[int, tuple[Any, ...]]
"""A socket family, and an address of it to connect to."""


async def look_up(host: str, port: int) -> list[Address]:
    """The addresses of `host`, in the resolver's order; an OSError if there are none.

    Literals and localhost need no look-up. Everyone who asks for the same host and port while a
    look-up is under way shares it, from any loop; cancelling one wait does not end it.
    """
    if not 0 < port < 65536:
        # glibc would take it modulo 65536.
        raise socket.gaierror(socket.EAI_SERVICE, f"{port} is not a port")
    if host == "localhost":
        # RFC 6761: localhost is the loopback address, and nobody need be asked. IPv4 comes first
        # because our services bind there.
        loopback: list[Address] = [(socket.AF_INET, ("127.0.0.1", port))]
        if socket.has_ipv6:
            loopback.append((socket.AF_INET6, ("::1", port, 0, 0)))
        return loopback
    if host in ("", "*") or "\0" in host:
        # glibc takes "*" for loopback and reads a name up to the NUL only.
        raise _not_a_name(host)
    try:
        return _literal(host, port)
    except socket.gaierror:
        return await _lookups.result_of((host, port))
    except UnicodeError:  # by Python's idna codec: a label is empty, too long, or has odd letters
        raise _not_a_name(host) from None


def _literal(host: str, port: int) -> list[Address]:
    """The address that `host` spells out, without blocking; gaierror if it is a name."""
    return _addresses(host, port, socket.AI_NUMERICHOST)


def _resolved(name: tuple[str, int]) -> list[Address]:
    return _addresses(*name, 0)


def _addresses(host: str, port: int, flags: int) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror:
        # To a resolver, a lack of descriptors is a name server that cannot be reached.
        socket.socket().close()
        raise
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _not_a_name(host: str) -> socket.gaierror:
    return socket.gaierror(socket.EAI_NONAME, f"{host!r} is not a host name")


_lookups: SharedThreads[tuple[str, int], list[Address]] = SharedThreads("name look-up", _resolved)
