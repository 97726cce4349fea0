"""Runs remote-http-launcher: it starts a service, or finds it running, and returns its address.

The launcher polls a starting service only once a second. For a service on this machine, poll its
status file and its healthcheck more often instead, and return as soon as it is healthy. The
launcher finishes on a worker thread: it makes the same checks, and records the address for programs
that start later.
"""

from __future__ import annotations

import concurrent.futures
import logging
import math
import os
import subprocess
import sys
import time
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from ..nursery import process
from ..nursery.process import outcome_of_worker
from .frontend_launch import frontend_of, launch_on_frontend
from .launcher_report import too_long
from .local_choice import choose_here
from .status_file import StatusFile

logger = logging.getLogger(__name__)

POLL_INTERVAL = 0.02
"""Seconds between two reads of the status file."""


class EndedAtStartError(RuntimeError):
    """The process of a service has ended before it listened."""


LauncherFuture = Future[dict[str, Any]]
"""The launcher's result: `hostname`, `port` and more."""


def run_launcher(name: str, launch_dict: dict[str, Any]) -> dict[str, Any]:
    """Launch a service; returns its `hostname` and `port`, with any others the launcher returns.

    Where another service of the launch dict's key serves other folders, the launch dict is changed
    to one with a key of its own (see `folders`).

    Blocks the calling thread for seconds. Errors of the launcher pass through: OSError, ValueError,
    and its LauncherError, a RuntimeError. EndedAtStartError: the service's process has ended; the
    launcher may take ten seconds more to notice. FrontendLaunchError, for one on another machine.
    OtherFolderError: what runs serves another folder, and nothing else can be launched.
    TimeoutError after `Settings.launch_timeout`; the launcher goes on, on its thread.
    """
    if frontend_of(launch_dict) is not None:
        return launch_on_frontend(name, launch_dict)
    common = StatusFile.of(launch_dict)
    # While the interpreter exits, a worker thread would never get to run.
    if sys.is_finalizing():
        return _run_at_exit(launch_dict, common)
    timeout = process.settings().launch_timeout
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    if common is None:
        launcher = _start(name, launch_dict)
        concurrent.futures.wait([launcher], timeout)
        return _result(launcher, launch_dict, timeout)
    with ExitStack() as stack:
        stack.enter_context(common.lock())
        status_file = choose_here(launch_dict, common)
        # A service that was running before may be unhealthy. The launcher decides whether to keep
        # it or to replace it, so only accept a service that the launcher has started since.
        found_before, content_before = status_file.running(), status_file.content()
        launcher = _start(name, launch_dict)
        while not launcher.done() and time.monotonic() < deadline:
            concurrent.futures.wait([launcher], POLL_INTERVAL)
            content = status_file.content()
            # In a conda environment, the launcher may repair something and try again.
            if content != content_before and _has_ended(content) and not launch_dict.get("conda"):
                lock = stack.pop_all()
                launcher.add_done_callback(partial(_finish, name, lock))
                raise EndedAtStartError(f"its process, {content.get('pid')}, ended at its start")
            found = status_file.running()
            if found is not None and found != found_before and status_file.answers(found):
                # Keep the lock until the launcher ends: two launchers of one service would both
                # write its status file.
                lock = stack.pop_all()
                launcher.add_done_callback(partial(_finish, name, lock))
                return {"hostname": found.host, "port": found.port}
        if not launcher.done():
            lock = stack.pop_all()
            launcher.add_done_callback(partial(_finish, name, lock))
        return _result(launcher, launch_dict, timeout)


def _run_at_exit(launch_dict: dict[str, Any], common: StatusFile | None) -> dict[str, Any]:
    if common is None:
        return _run(launch_dict)
    with common.lock():
        choose_here(launch_dict, common)
        return _run(launch_dict)


def _start(name: str, launch_dict: dict[str, Any]) -> LauncherFuture:
    return outcome_of_worker(f"launcher of {name}", partial(_run, launch_dict))


def _result(
    launcher: LauncherFuture, launch_dict: dict[str, Any], timeout: float | None
) -> dict[str, Any]:
    if not launcher.done():
        assert timeout is not None
        raise TimeoutError(too_long(launch_dict, timeout))
    return launcher.result()


def _has_ended(content: dict[str, Any]) -> bool:
    """Whether a service that was being started will never run."""
    pid = content.get("pid")
    if content.get("status") == "failed":
        return True
    if content.get("status") != "starting" or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
        # One that has ended stays in the table until its parent, here `init`, has noticed.
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return True
    except OSError:
        return False


class _WithoutInput:
    """The module `subprocess`, but that a process has no standard input unless it is given one.

    The launcher's processes inherit ours. What they read the user's program misses; and the service
    would keep a pipe open for as long as it runs, on which whoever writes to that then waits.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    @staticmethod
    def run(*args: Any, **options: Any) -> Any:
        if options.get("input") is None:
            options["stdin"] = subprocess.DEVNULL
        return subprocess.run(*args, **options)


def _run(launch_dict: dict[str, Any]) -> dict[str, Any]:
    import remote_http_launcher

    remote_http_launcher.subprocess = _WithoutInput()
    result: dict[str, Any] = remote_http_launcher.run(launch_dict)
    return result


def _finish(name: str, lock: ExitStack, launcher: LauncherFuture) -> None:
    lock.close()
    # Only log: the callers have the address already, and notice themselves if it stops answering.
    error = launcher.exception()
    if error is not None:
        logger.info("remote-http-launcher failed after %s had started: %s", name, error)
