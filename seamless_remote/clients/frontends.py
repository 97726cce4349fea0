"""Services on frontends, to which the path gets lost.

A tunnel for each service leads to a frontend. When its path was lost, so were all of them, and to
launch them one after the other, as each is used, would take as many times longer. So those that are
in effect come back together.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from ..launching.frontend_launch import answers_by_another_way
from ..nursery.calls import Call
from ..nursery.process import outcome_of_worker, start_worker
from ..nursery.waiter import wait_for
from .endpoint import Address, Endpoint, LaunchedAddress

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


async def is_path_lost(call: Call, endpoint: Endpoint, name: str) -> bool:
    """Whether a service that is silent is well, and only the path of its tunnel lost."""
    launched = endpoint.launched
    if launched is None:
        return False
    call.waits_for = "an answer by another way"
    look = partial(answers_by_another_way, launched.launch_dict, launched.result)
    if await wait_for(outcome_of_worker(f"another way to {name}", look)):
        logger.warning("%s is silent, and answers by another way: the path is lost", name)
        return True
    logger.info("%s is silent, and does not answer by another way", name)
    return False


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
