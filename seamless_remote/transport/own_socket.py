"""The sockets of this package: quiet when collected, and not shared with forked children."""

from __future__ import annotations

import os
import socket
import weakref
from typing import Any

_live: weakref.WeakSet[OwnSocket] = weakref.WeakSet()


class OwnSocket(socket.socket):
    """A socket whose collection closes it without a ResourceWarning.

    Dropping an event loop drops its tasks, and the collector may come to the socket of a task
    before it comes to the code that closes it. At interpreter exit, nobody closes what is idle.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> OwnSocket:
        self: OwnSocket = super().__new__(cls, *args, **kwargs)
        _live.add(self)
        return self

    def __del__(self) -> None:
        # Not `socket.socket.close`, which fails on one that could not be made.
        socket.SocketType.close(self)


def abandon_after_fork() -> None:
    """In the child of a fork: cut every inherited socket off from the parent's.

    Each descriptor then is one of the null device, which may be read, written, shut down and
    closed without the parent's server taking notice. Call it before any thread is started.
    """
    inherited = [sock for sock in _live if sock.fileno() >= 0]
    if inherited:
        null = os.open(os.devnull, os.O_RDWR)
        try:
            for sock in inherited:
                os.dup2(null, sock.fileno(), inheritable=False)
        finally:
            os.close(null)
    _live.clear()
