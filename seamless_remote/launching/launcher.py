"""One call of remote-http-launcher: it starts a service, or finds it running, and says where.

A service on this machine is taken up as soon as it says in its status file that it runs and answers
its healthcheck. The launcher, which looks at that once a second, comes to its end on a thread of
its own: it checks the same again, and leaves the address for programs that come later.
"""

from __future__ import annotations

import concurrent.futures
import logging
import sys
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from typing import Any

from ..nursery.process import start_worker
from .status_file import StatusFile

logger = logging.getLogger(__name__)

LOOK_INTERVAL = 0.02
"""Seconds between two looks at a status file."""

Told = Future[dict[str, Any]]
"""What the launcher says of a service: its `hostname`, `port` and more."""


def launch(name: str, launch_dict: dict[str, Any]) -> dict[str, Any]:
    """Where the service is: its `hostname` and `port`, and more where the launcher says more.

    The calling thread waits, for seconds. What the launcher raises (an OSError, a ValueError, or
    its LauncherError, which is a RuntimeError) comes out as it is.
    """
    status_file = StatusFile.of(launch_dict)
    if status_file is None or sys.is_finalizing():  # when no other thread runs any more
        return _run(launch_dict)
    with ExitStack() as stack:
        stack.enter_context(status_file.lock())
        # The launcher ends one that is not well, and starts another: it is left to its judgement.
        found_before = status_file.running()
        told = _start(name, launch_dict)
        while not told.done():
            concurrent.futures.wait([told], LOOK_INTERVAL)
            found = status_file.running()
            if found is not None and found != found_before and status_file.answers(found):
                # Two launchers of one service would get into each other's way.
                lock = stack.pop_all()
                told.add_done_callback(partial(_end, name, lock))
                return {"hostname": found.host, "port": found.port}
        return told.result()


def _run(launch_dict: dict[str, Any]) -> dict[str, Any]:
    import remote_http_launcher

    result: dict[str, Any] = remote_http_launcher.run(launch_dict)
    return result


def _start(name: str, launch_dict: dict[str, Any]) -> Told:
    told: Told = Future()

    def run() -> None:
        try:
            told.set_result(_run(launch_dict))
        except BaseException as exc:
            told.set_exception(exc)

    try:
        start_worker(f"launcher of {name}", run)
    except RuntimeError:  # the interpreter ends
        run()
    return told


def _end(name: str, lock: ExitStack, told: Told) -> None:
    lock.close()
    # Its callers have an address; where nothing answers there any more, they notice themselves.
    error = told.exception()
    if error is not None:
        logger.info("remote-http-launcher on %s, which had started: %s", name, error)
