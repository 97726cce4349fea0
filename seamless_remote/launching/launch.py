"""Launches a service once for all callers, and again after it died: launch dict in, address out.

Launching blocks for seconds. A synchronous caller launches in its own thread, an async caller in a
worker thread. `external_launcher` does the launch itself.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ..errors import LaunchError
from ..nursery.process import start_worker
from ..nursery.waiter import wait_for
from .external_launcher import EndedAtStartError, run_launcher
from .folders import OtherFolderError
from .frontend_launch import FrontendLaunchError, frontend_of
from .service_log import ServiceLog

logger = logging.getLogger(__name__)

LaunchDict = dict[str, Any]
"""A launch dict of seamless-config, the input of remote-http-launcher."""

PORT_PATIENCE = 3.0
"""Seconds that a service's former port is given to become free."""

PORT_POLL = 0.1
"""Seconds between two looks at whether it is."""


@dataclass(frozen=True, slots=True)
class Launched:
    """The address of a launched service.

    `url` is the address from this machine, perhaps through a tunnel; `remote_url` and `port` are
    the address inside the cluster. `launch_dict` is the one in effect, perhaps under a key of the
    folder's own; `result` is what the launcher returned.
    """

    url: str
    remote_url: str
    port: int
    launch_dict: LaunchDict
    result: dict[str, Any]

    @property
    def frontend(self) -> str | None:
        """The name by which ssh knows the service's machine; None if it is this one."""
        return frontend_of(self.launch_dict)

    @property
    def is_tunneled(self) -> bool:
        """Whether the way to it is an ssh tunnel."""
        return "tunneled-port" in self.result


def working_directory(launch_dict: LaunchDict) -> str | None:
    """The service's folder on this machine, or None if the service runs on another machine."""
    # Launch dicts for the local cluster have no hostname.
    if launch_dict.get("hostname") is not None:
        return None
    workdir: str = launch_dict["workdir"]
    return os.path.abspath(os.path.expanduser(workdir))


def http_url(host: str, port: int) -> str:
    """The `http://` URL of a host name or IP address and a port."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _becomes_free(port: int) -> bool:
    """Whether a service of this machine can listen at a port, now or soon.

    A listener stays, but the port may also be that of another program's connection, for a moment.
    """
    patience_ends = time.monotonic() + PORT_PATIENCE
    while True:
        try:
            with socket.create_server(("", port)):
                return True
        except OSError:
            if time.monotonic() > patience_ends:
                return False
        time.sleep(PORT_POLL)


class Launch:
    """A service that is launched on demand. Thread-safe.

    `name` stands for the service in messages. `configure` makes its launch dict; it is called for
    each launch, in the launching thread, so that a relaunch follows the current configuration.
    With `keeps_port`, a relaunch tries the former port first, and again where that failed although
    it is free: other services (a jobserver) were given the address and will not be given another.
    """

    def __init__(
        self, name: str, configure: Callable[[], LaunchDict], *, keeps_port: bool = False
    ) -> None:
        self.name = name
        self._configure = configure
        self._keeps_port = keeps_port
        self.frontend: str | None = None
        """The machine on which it ran last, by the name that ssh knows; None if it is this one."""
        self.on_relaunch: Callable[[], object] | None = None
        """Called in the launching thread when a relaunch begins, unless it was begun for others."""
        self._port: int | None = None
        self._lock = threading.Lock()
        self._future: Future[Launched] | None = None
        self._launched: Launched | None = None
        """The outcome of the future, for the calls of a running service to find at no cost."""

    def configure(self) -> LaunchDict:
        """The launch dict according to the current configuration."""
        return self._configure()

    def current(self) -> Launched | None:
        """The address if the service has been launched. Does not launch, does not block."""
        return self._launched

    @property
    def has_run(self) -> bool:
        """Whether a launch has succeeded before."""
        return self._port is not None

    def start(self, *, with_others: bool = True) -> Future[Launched]:
        """Launch in a worker thread unless launched or being launched already. Does not block.

        `with_others`: a relaunch is told to `on_relaunch`.
        """
        future, mine = self._join()
        if mine:
            try:
                start_worker(f"launch of {self.name}", lambda: self._run(future, with_others))
            except RuntimeError:
                # No thread can be started while the interpreter exits.
                self._run(future, with_others)
        return future

    def ensure(self) -> Launched:
        """Launch in this thread, or wait for the launch in progress. LaunchError if it fails."""
        future, mine = self._join()
        if mine:
            self._run(future)
        return future.result()

    async def acquire(self) -> Launched:
        """Launch in a worker thread, or wait for the launch in progress. LaunchError if it fails.

        Cancelling the wait does not stop the launch: other callers may need it.
        """
        known = self._launched
        return await wait_for(self.start()) if known is None else known

    def drop(self, launched: Launched) -> None:
        """Forget an address that no longer answers; the next caller launches again.

        Does nothing if the service has been relaunched since.
        """
        with self._lock:
            if self._launched is launched:
                self._future = self._launched = None
                logger.warning(
                    "%s no longer answers at %s; the next call launches it again",
                    self.name,
                    launched.url,
                )

    def after_fork_in_child(self) -> None:
        """Make this usable in a forked child: replace the lock, forget a launch in progress.

        The child has no launching thread. A known address stays valid.
        """
        self._lock = threading.Lock()
        if self._launched is None:
            self._future = None

    def _join(self) -> tuple[Future[Launched], bool]:
        """The future of the launch, and whether the caller has to run it."""
        with self._lock:
            if self._future is not None:
                return self._future, False
            self._future = Future()
            return self._future, True

    def _run(self, future: Future[Launched], with_others: bool = True) -> None:
        try:
            if with_others and self.has_run and self.on_relaunch is not None:
                self.on_relaunch()
            launched = self._launch()
        except BaseException as exc:
            # Clear it before waking the callers, so that their next attempt launches again.
            with self._lock:
                if self._future is future:
                    self._future = None
            future.set_exception(exc)
            if not isinstance(exc, Exception):
                raise
        else:
            logger.info("%s runs at %s", self.name, launched.url)
            self._launched = launched
            future.set_result(launched)

    def _launch(self) -> Launched:
        if not os.path.isabs(os.path.expanduser("~")):
            raise LaunchError(
                f"could not launch {self.name}: HOME is not set, and this user has no entry in the "
                "list of users; services are noted in the home folder: set HOME"
            )
        launch_dict = self._configure()
        launched = self._launch_at_former_port(launch_dict) or self._launch_with(launch_dict)
        self._port, self.frontend = launched.port, launched.frontend
        return launched

    def _launch_at_former_port(self, launch_dict: LaunchDict) -> Launched | None:
        port = self._port
        if not self._keeps_port or port is None:
            return None
        at_port = {**launch_dict, "port_start": port, "port_end": port}
        is_here = working_directory(launch_dict) is not None
        for attempt in range(2 if is_here else 1):
            if attempt and not _becomes_free(port):
                break
            try:
                return self._launch_with(at_port)
            except LaunchError as exc:
                if isinstance(exc.__cause__, FrontendLaunchError) and exc.__cause__.cannot_log_in:
                    raise
                logger.info("could not launch %s at its former port %d: %s", self.name, port, exc)
        return None

    def _launch_with(self, launch_dict: LaunchDict) -> Launched:
        started = time.time()
        # Its key may be changed by the launch (see `folders`): each try begins with that given.
        in_effect = dict(launch_dict)
        try:
            try:
                result = run_launcher(self.name, in_effect)
            except RuntimeError as exc:
                # A service says that it is running before it listens. On a busy machine the
                # launcher's check of the port may come in between; now it listens.
                if "rhl-verify-port" not in str(exc):
                    raise
                logger.info("%s was not ready yet: %s; looking again", self.name, exc)
                in_effect = dict(launch_dict)
                result = run_launcher(self.name, in_effect)
            return _launched(in_effect, result)
        except FrontendLaunchError as exc:
            raise LaunchError(f"could not launch {self.name}: {exc}") from exc
        except Exception as exc:
            cause = _cause(exc, in_effect, started)
            raise LaunchError(f"could not launch {self.name}: {cause}") from exc


def _cause(exc: Exception, launch_dict: LaunchDict, started: float) -> str:
    """What went wrong, and what to do about it or where to look."""
    if isinstance(exc, OtherFolderError):
        return str(exc)
    if isinstance(exc, EndedAtStartError):
        return f"{exc}. {_words(launch_dict, started)}"
    # The launcher's message may end with a whole traceback. Its last line is the reason.
    reason = (str(exc).strip() or "no reason given").splitlines()[-1].rstrip(".")
    field = reason.partition(" ")[0]
    if field in launch_dict and " must " in reason:
        # It refuses the launch dict, and does not say what it has found there.
        return f"{reason}, not {launch_dict[field]!r}: see to it in ~/.seamless/clusters.yaml"
    return f"{type(exc).__name__}: {reason}. {_words(launch_dict, started)}"


def _words(launch_dict: LaunchDict, started: float) -> str:
    """What the service itself has said since its launch, or where to look for that."""
    log = ServiceLog.of(launch_dict)
    # Times of files may be coarse.
    if log is not None and log.last_lines(started - 1.0, 1):
        return log.shown(started - 1.0)
    log_file = launch_dict.get("log_file", "the log of remote-http-launcher")
    return f"Check that the service is installed and on the PATH; see {log_file}"


def _launched(launch_dict: LaunchDict, result: dict[str, Any]) -> Launched:
    """The address that the launcher's result gives."""
    remote_host = launch_dict.get("hostname") or result["hostname"]
    port = result.get("tunneled-port", result["port"])
    return Launched(
        url=http_url(result["hostname"], result["port"]),
        remote_url=http_url(remote_host, port),
        port=port,
        launch_dict=launch_dict,
        result=result,
    )
