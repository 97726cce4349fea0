"""TCP connections: from a host name to a connected non-blocking socket.

Plain sockets, not anyio streams: a request then costs one wait, where a stream takes an extra turn
of the loop and a cancel scope for each send.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
from collections.abc import Sequence
from contextlib import closing
from errno import EAGAIN, ECONNREFUSED, EINPROGRESS, EWOULDBLOCK
from itertools import chain, zip_longest

from .name_lookup import Address, look_up
from .own_socket import OwnSocket
from .socket_waits import readable

# RFC 8305: the pause before the next address of a name is tried beside the earlier ones.
_HEAD_START = 0.25
_UNDER_WAY = (0, EINPROGRESS, EWOULDBLOCK, EAGAIN)

# A peer that vanishes without a word is noticed after 60 + 4 * 15 seconds of silence. This also
# keeps NAT routers and firewalls from forgetting the connection during a long call.
_KEEPALIVE = {
    "TCP_KEEPIDLE": 60,
    "TCP_KEEPALIVE": 60,  # what macOS calls TCP_KEEPIDLE
    "TCP_KEEPINTVL": 15,
    "TCP_KEEPCNT": 4,
}
_OPTIONS = [
    # A request is written in one piece: holding it back for more only delays it.
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in _KEEPALIVE.items()
        if hasattr(socket, name)
    ),
]
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


async def dial(host: str, port: int) -> socket.socket:
    """Connect to the first address of `host` that answers; OSError if none does.

    The socket is non-blocking, with TCP keepalive on. Cancelling this leaves no socket open.
    """
    addresses = _in_turns(await look_up(host, port))
    with closing(_Attempts()) as attempts:
        for address in addresses:
            if attempts.start(address):
                sock = await attempts.outcome(_HEAD_START)
                if sock is not None:
                    return sock
        while attempts.under_way:
            sock = await attempts.outcome()
            if sock is not None:
                return sock
        raise _summary(attempts.errors)


class _Attempts:
    """Attempts to connect side by side, of which the first that succeeds is wanted.

    One task waits for all of them: a selector has a descriptor of its own, which is readable when
    any of its sockets is ready. A task group would keep a loop alive that is closed too early (see
    `socket_waits`).
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets: set[socket.socket] = set()
        self.errors: list[OSError] = []

    @property
    def under_way(self) -> bool:
        return bool(self._sockets)

    def start(self, address: Address) -> bool:
        """Begin to connect; False if that fails at once."""
        try:
            sock = _begin(address)
        except OSError as exc:
            self.errors.append(exc)
            return False
        self._sockets.add(sock)
        self._selector.register(sock, selectors.EVENT_WRITE, sock)
        return True

    async def outcome(self, patience: float | None = None) -> socket.socket | None:
        """Wait until an attempt succeeds, and return its socket.

        None: an attempt has failed, or `patience` seconds have passed.
        """
        await readable(self._selector.fileno(), patience)
        for key, _ in self._selector.select(0):
            sock: socket.socket = key.data
            self._selector.unregister(sock)
            self._sockets.remove(sock)
            try:
                _check_connected(sock)
            except OSError as exc:
                sock.close()
                self.errors.append(exc)
            else:
                return sock
        return None

    def close(self) -> None:
        """Close the sockets of all attempts that are under way."""
        for sock in self._sockets:
            sock.close()
        self._selector.close()


def _in_turns(addresses: Sequence[Address]) -> list[Address]:
    """Both families in turn, beginning with the family of the first address."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    turns = chain.from_iterable(zip_longest(first, others))
    return [address for address in turns if address is not None]


def _summary(errors: Sequence[OSError]) -> OSError:
    """One error for all, of their own type if they agree."""
    texts = dict.fromkeys(exc.strerror or str(exc) for exc in errors)
    if len({exc.errno for exc in errors}) == 1:
        return OSError(errors[0].errno, "; ".join(texts))
    return OSError("; ".join(texts))


def _begin(address: Address) -> socket.socket:
    """A socket that connects to `address`, or is connected already."""
    family, target = address
    sock = OwnSocket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        for option in _OPTIONS:
            sock.setsockopt(*option)
        code = sock.connect_ex(target)
        if code not in _UNDER_WAY:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


def _check_connected(sock: socket.socket) -> None:
    """Raise the OSError with which connecting failed, if it did."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    # The kernel may choose the very port that is dialed for the local one, if that is of its
    # ephemeral range and nobody listens there. To TCP, both sides open the connection at once.
    if not code and sock.getsockname() == sock.getpeername():
        # The port would stay in TIME_WAIT, in the way of the service that belongs there.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        code = ECONNREFUSED
    if code:
        raise OSError(code, os.strerror(code))
