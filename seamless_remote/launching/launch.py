"""Launching: a launch dict in, an address out; once for all who ask, and again when it died.

It blocks for seconds, so it is done in the calling thread where the caller is synchronous, and in a
worker thread otherwise. What is done is `launcher`'s business.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ..errors import LaunchError
from .launcher import launch
from ..nursery.event_loops import wait_for
from ..nursery.process import start_worker

logger = logging.getLogger(__name__)

LaunchDict = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Launched:
    """Where a launched service is: from here (`url`), and inside its cluster (`remote_url`).

    `port` is the one that it listens on.
    """

    url: str
    remote_url: str
    port: int
    launch_dict: LaunchDict
    result: dict[str, Any]


def working_directory(launch_dict: LaunchDict) -> str | None:
    """The service's folder on this machine; None where it runs on another.

    The launch dict of the local cluster names no host.
    """
    if launch_dict.get("hostname") is not None:
        return None
    workdir: str = launch_dict["workdir"]
    return os.path.abspath(os.path.expanduser(workdir))


def http_url(host: str, port: int) -> str:
    """The plain HTTP URL of a host (a name or an address) and a port."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Launch:
    """One service that is launched on demand. Any thread may ask for it.

    `configure` makes its launch dict; it is called anew for each launch, in the launching thread.
    A service that `keeps_port` is launched again at the port that it had, if that is still free:
    others (a jobserver) were told its address and are not told another.
    """

    def __init__(
        self, name: str, configure: Callable[[], LaunchDict], *, keeps_port: bool = False
    ) -> None:
        self.name = name
        self._configure = configure
        self._keeps_port = keeps_port
        self._port: int | None = None
        self._lock = threading.Lock()
        self._future: Future[Launched] | None = None

    def configure(self) -> LaunchDict:
        """The launch dict as the configuration has it now."""
        return self._configure()

    def current(self) -> Launched | None:
        """Where the service is, if it has been launched."""
        future = self._future
        if future is None or not future.done() or future.exception() is not None:
            return None
        return future.result()

    def start(self) -> Future[Launched]:
        """Begin launching in a worker thread, unless it has been launched or is being launched."""
        future, mine = self._join()
        if mine:
            try:
                start_worker(f"launch of {self.name}", lambda: self._run(future))
            except RuntimeError:
                self._run(future)
        return future

    def ensure(self) -> Launched:
        """Launch in the calling thread, or wait for the launch under way; or a LaunchError."""
        future, mine = self._join()
        if mine:
            self._run(future)
        return future.result()

    async def acquire(self) -> Launched:
        """The same from a task. Cancelling it leaves the launch to others and to later calls."""
        future = self._future
        if future is not None and future.done() and future.exception() is None:
            return future.result()
        return await wait_for(self.start())

    def drop(self, launched: Launched) -> None:
        """Forget an address at which nothing answers any more: who asks next launches again."""
        with self._lock:
            if self.current() is launched:
                self._future = None
                logger.warning("%s is gone from %s; it is launched again", self.name, launched.url)

    def after_fork_in_child(self) -> None:
        """Start from nothing but a known address: the thread that was launching is not here."""
        self._lock = threading.Lock()
        if self.current() is None:
            self._future = None

    def _join(self) -> tuple[Future[Launched], bool]:
        with self._lock:
            if self._future is not None:
                return self._future, False
            self._future = Future()
            return self._future, True

    def _run(self, future: Future[Launched]) -> None:
        try:
            launched = self._launch()
        except BaseException as exc:
            with self._lock:
                if self._future is future:
                    self._future = None
            future.set_exception(exc)
            if not isinstance(exc, Exception):
                raise
        else:
            logger.info("%s runs at %s", self.name, launched.url)
            future.set_result(launched)

    def _launch(self) -> Launched:
        launch_dict = self._configure()
        launched = self._launch_at_former_port(launch_dict) or self._launch_with(launch_dict)
        self._port = launched.port
        return launched

    def _launch_at_former_port(self, launch_dict: LaunchDict) -> Launched | None:
        if not self._keeps_port or self._port is None:
            return None
        ports = {"port_start": self._port, "port_end": self._port}
        try:
            return self._launch_with({**launch_dict, **ports})
        except LaunchError as exc:
            logger.info("%s does not get port %d again: %s", self.name, self._port, exc)
            return None

    def _launch_with(self, launch_dict: LaunchDict) -> Launched:
        try:
            result = launch(self.name, launch_dict)
        except (OSError, RuntimeError, ValueError) as exc:
            # The launcher's own words may be a whole traceback; its last line says why.
            reason = (str(exc).strip() or "no reason given").splitlines()[-1]
            log_file = launch_dict.get("log_file", "remote-http-launcher's log")
            raise LaunchError(
                f"{self.name} could not be launched: {type(exc).__name__}: {reason}. Is what it "
                f"needs installed, and on the PATH? See {log_file}"
            ) from exc
        remote_host = launch_dict.get("hostname") or result["hostname"]
        port = result.get("tunneled-port", result["port"])
        return Launched(
            url=http_url(result["hostname"], result["port"]),
            remote_url=http_url(remote_host, port),
            port=port,
            launch_dict=launch_dict,
            result=result,
        )
