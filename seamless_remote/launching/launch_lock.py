"""The file lock that serializes the launches of one service by several processes."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

LOCK_INTERVAL = 0.05
"""Seconds between two attempts to take the lock."""


@contextlib.contextmanager
def launch_lock(path: Path, patience: float) -> Iterator[None]:
    """Hold the lock at `path`; a process that dies lets go of it.

    Without it, two processes that find no service running would start one each. Blocks the thread
    until the lock is free. Goes on without the lock after `patience` seconds, and if the file
    system has no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        logger.debug("cannot take the launch lock %s: %s", path, exc)
        yield
        return
    try:
        _acquire(lock, path, patience)
        yield
    finally:
        with contextlib.suppress(OSError):
            # Unlock explicitly: closing does not release the lock if a process was forked
            # meanwhile, because the child has the same open file.
            fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)


def _acquire(lock: int, path: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                logger.warning(
                    "another process has held the launch lock %s for %g s; launching anyway",
                    path,
                    patience,
                )
                return
            time.sleep(LOCK_INTERVAL)
        except OSError as exc:
            # Some network file systems have no locks.
            logger.debug("cannot take the launch lock %s: %s", path, exc)
            return
