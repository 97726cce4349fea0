"""Whether a folder may be read in the caller's event loop, or only in a worker thread.

A thread costs four times as much as a small read from the page cache, so such reads are made in the
loop: in folders on a file system of this machine, as long as they are quick there. What is not in
the page cache is left to a thread all the same (`StoredFile.read_now`).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from .worker_threads import offload

P = ParamSpec("P")
T = TypeVar("T")

QUICK = 0.02
"""Seconds that a look into a folder takes at most, or it is left to threads."""

TRUST = 1.0
"""Seconds that a quick look by a thread stands for those to come."""

_LOCAL = re.compile(
    "bcachefs|btrfs|erofs|exfat|ext[234]|f2fs|jfs|nilfs2|ntfs3|overlay|ramfs|reiserfs|rootfs|"
    "squashfs|tmpfs|vfat|xfs|zfs"
)
"""File systems without a server, nor a program (FUSE), behind them."""

_ESCAPED = re.compile(r"\\([0-7]{3})")


class FolderPace:
    """How quick the looks into one folder are. For any thread."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._trusted_until = 0.0

    @property
    def is_quick(self) -> bool:
        """Whether the next look may be made in the loop."""
        return time.monotonic() < self._trusted_until

    def here(self, look: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Look right here."""
        began = time.monotonic()
        try:
            return look(*args, **kwargs)
        finally:
            if time.monotonic() - began > QUICK:
                self._trusted_until = 0.0

    async def elsewhere(self, look: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Look in a worker thread; a cancellation waits for it to end."""

        def measured() -> T:
            began = time.monotonic()
            outcome = look(*args, **kwargs)
            now = time.monotonic()
            is_trusted = now - began < QUICK and is_local(self._directory)
            self._trusted_until = now + TRUST if is_trusted else 0.0
            return outcome

        return await offload(measured)


def is_local(directory: str) -> bool:
    """Whether a folder is on a file system of this machine, as far as Linux tells."""
    path = os.path.join(os.path.realpath(directory), "")
    best, kind = "", ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                where = _ESCAPED.sub(lambda code: chr(int(code[1], 8)), before.split(" ")[4])
                # The last of several at one place is the one that is seen.
                if path.startswith(os.path.join(where, "")) and len(where) >= len(best):
                    best, kind = where, after.split(" ")[0]
    except (OSError, IndexError):
        return False
    return _LOCAL.fullmatch(kind) is not None
