"""The launched services that are in effect, by frontend: after an outage they come back together.

A tunnel for each service leads to a frontend. When its path was lost, so were all of them, and to
launch them one after the other, as each is used, would take as many times longer.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..nursery.process import start_worker
from .endpoint import Address, LaunchedAddress

logger = logging.getLogger(__name__)

_in_effect: list[LaunchedAddress] = []
_lock = threading.RLock()
"""Reentrant: a dropped loop leaves a block at any moment."""


@contextmanager
def in_effect(address: Address) -> Iterator[None]:
    """In the block, a service comes back with the others of its frontend."""
    if not isinstance(address, LaunchedAddress):
        yield
        return
    with _lock:
        _in_effect.append(address)
    address.launch.on_relaunch = lambda: _bring_back_others(address)
    try:
        yield
    finally:
        with _lock:
            _in_effect.remove(address)


def _bring_back_others(address: LaunchedAddress) -> None:
    """Look at the other services of a frontend at which one is launched again. Does not block."""
    frontend = address.launch.frontend
    if frontend is None:
        return
    with _lock:
        others = {each for each in _in_effect if each is not address}
    for other in others:
        if other.launch.frontend == frontend:
            try:
                start_worker(f"look at {other.launch.name}", other.come_back)
            except RuntimeError as exc:
                logger.debug("%s is not looked at: %s", other.launch.name, exc)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    _in_effect.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
