"""Tells a limit of this process, or of its machine, from a service that cannot be reached."""

from __future__ import annotations

import errno
import resource
import sys

from ..errors import ConnectError, OwnLimitError

_LACKS = {
    errno.EMFILE: "this process has no file descriptor left, of the {limit} that it may have "
    "(`ulimit -n`)",
    errno.ENFILE: "this machine has no file descriptor left",
    errno.EADDRNOTAVAIL: "this machine has no local port left for another connection",
    errno.ENOBUFS: "this machine has no memory left for another connection",
    errno.ENOMEM: "this machine has no memory left",
    errno.EAGAIN: "this process can start no thread",
}


def connect_error(what: str, failure: OSError) -> ConnectError:
    """What a failure to connect is to the user: an OwnLimitError if the service has no part in it.

    `what` says what was tried. Of several addresses that failed, those that answered count: their
    error has no number in common with the others (see `dialing`).
    """
    text = failure.strerror or str(failure) or type(failure).__name__
    lacks = _LACKS.get(failure.errno or 0)
    if lacks is None:
        return ConnectError(f"{what}: {text}")
    return OwnLimitError(f"{what}: {lacks.format(limit=descriptor_limit())} ({text})")


def descriptor_limit() -> int:
    """How many file descriptors this process may have at once, as of now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
