"""File descriptors: which were open at the start, which one a path names, and writing to one."""

from __future__ import annotations

import os
import re
import select

_LINKS = 8
"""How many links from a path to a descriptor are followed."""

_OWN = re.compile(r"/proc/(self|thread-self|[0-9]+)(/task/[0-9]+)?/fd|/dev/fd")


def open_descriptors() -> frozenset[int]:
    """The descriptors of this process that are open now."""
    try:
        numbers = [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        numbers = list(range(256))
    # The descriptor that the listing itself has used is closed again.
    return frozenset(number for number in numbers if is_open(number))


def is_open(descriptor: int) -> bool:
    """Whether a descriptor of this process is open."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def named_descriptor(path: str) -> int | None:
    """The descriptor that a path such as `/dev/stdout` or `/dev/fd/3` refers to, or None.

    Such a path must be neither replaced nor opened: the descriptor of a redirected file has an
    offset, and a newly opened one would start at 0.
    """
    # Follow links one at a time: `realpath` would resolve the descriptor as well, to its file.
    for _ in range(_LINKS):
        folder, name = os.path.split(path)
        if name.isascii() and name.isdigit() and _is_own_folder(folder):
            return int(name)
        if not os.path.islink(path):
            return None
        path = os.path.join(folder, os.readlink(path))
    return None


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, also where the descriptor is non-blocking. Errors as of `os.write`."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # A process that shares the descriptor may have made it non-blocking.
            _wait(descriptor, select.POLLOUT)


def read_all(descriptor: int, limit: int) -> bytes:
    """Read to the end, also where the descriptor is non-blocking; at most `limit` bytes and one."""
    pieces = []
    left = limit + 1
    while left > 0:
        try:
            piece = os.read(descriptor, min(left, 1 << 20))
        except BlockingIOError:
            _wait(descriptor, select.POLLIN)
            continue
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _wait(descriptor: int, event: int) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    poll.poll()


def _is_own_folder(folder: str) -> bool:
    """Whether this is the folder of this process's descriptors."""
    found = _OWN.fullmatch(folder) or _OWN.fullmatch(os.path.realpath(folder or "."))
    return found is not None and found[1] in (None, "self", "thread-self", str(os.getpid()))
