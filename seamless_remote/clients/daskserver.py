"""The handle of a launched Dask scheduler: connected to, and handed to seamless-dask.

Synchronous, as `distributed.Client` is: its sockets live in Dask's own loop. Dask and seamless-dask
are imported when a scheduler is connected to.
"""

from __future__ import annotations

import logging
import socket
import threading
from typing import Any

from ..errors import LaunchError, ServiceError
from ..launching.launch import Launch, Launched
from ..launching.placement import Placement

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
"""Seconds that the scheduler may take to answer."""

CLOSE_TIMEOUT = 2.0
"""Seconds that closing a client may take."""


class DaskserverLaunchedHandle:
    """A launched Dask scheduler with its clients: Dask's own, and seamless-dask's on top of it."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self._launch = placement.launch("daskserver", substage=True)
        self._lock = threading.Lock()
        self._dask_client: Any = None
        self._seamless_client: Any = None
        self.scheduler_address: str | None = None

    def ensure_initialized(self) -> None:
        """Launch the scheduler if need be, connect to it, and hand the client to seamless-dask.

        Raises:
            LaunchError: it could not be launched, or not without a conda environment.
            ServiceError: it does not answer in time; the message names the launcher's log.
        """
        with self._lock:
            if self._dask_client is not None and self._dask_client.status == "running":
                return
            self._close()
            _require_conda_or_local(self._launch)
            known = self._launch.current()
            if known is not None:
                try:
                    self._connect(known)
                    return
                except ServiceError as exc:
                    logger.warning("%s; it is launched again", exc)
            self._connect(self._launch.ensure())

    def close(self) -> None:
        """Disconnect, and take the client back from seamless-dask. Safe to call twice."""
        with self._lock:
            self._close()

    def _connect(self, launched: Launched) -> None:
        try:
            self._connect_to(launched)
        except BaseException:
            self._launch.drop(launched)
            self._close()
            raise

    def _connect_to(self, launched: Launched) -> None:
        import distributed
        from seamless_config import collect_remote_clients
        from seamless_dask.client import SeamlessDaskClient
        from seamless_dask.transformer_client import set_seamless_dask_client

        hostname, port = launched.result["hostname"], launched.result["port"]
        self.scheduler_address = f"tcp://{hostname}:{port}"
        try:
            _require_answer(hostname, port)
            self._dask_client = distributed.Client(
                self.scheduler_address, timeout=f"{CONNECT_TIMEOUT}s", set_as_default=False
            )
        except (OSError, ValueError) as exc:
            raise ServiceError(
                f"the Dask scheduler at {self.scheduler_address} does not answer within "
                f"{CONNECT_TIMEOUT:g} s: {exc!r}. See {launched.launch_dict.get('log_file')}"
            ) from exc
        parameters = launched.launch_dict["file_parameters"]
        self._seamless_client = SeamlessDaskClient(
            self._dask_client,
            worker_plugin_workers=parameters["cores"],
            remote_clients=collect_remote_clients(self.placement.cluster),
            is_local_cluster="LocalCluster" in launched.launch_dict["cluster_string"],
            interactive=parameters.get("interactive", False),
        )
        set_seamless_dask_client(self._seamless_client)
        logger.info("connected to the Dask scheduler at %s", self.scheduler_address)

    def _close(self) -> None:
        dask_client, self._dask_client = self._dask_client, None
        seamless_client, self._seamless_client = self._seamless_client, None
        if seamless_client is not None:
            from seamless_dask.transformer_client import (
                get_seamless_dask_client,
                set_seamless_dask_client,
            )

            if get_seamless_dask_client() is seamless_client:
                set_seamless_dask_client(None)
            # Its thread that prunes caches has no other way to end (seamless-dask 0.4).
            seamless_client._prune_stop.set()
            if seamless_client._prune_thread is not None:
                seamless_client._prune_thread.join(CLOSE_TIMEOUT)
        if dask_client is not None:
            dask_client.close(timeout=f"{CLOSE_TIMEOUT}s")


def _require_answer(hostname: str, port: int) -> None:
    """OSError unless something at this address speaks within the timeout.

    A scheduler greets each connection first. `distributed.Client` awaits that greeting for ever,
    whatever its timeout (distributed 2026.8), where a scheduler accepts and then stays silent.
    """
    with socket.create_connection((hostname, port), timeout=CONNECT_TIMEOUT) as probe:
        if not probe.recv(1):
            raise ConnectionResetError("it closed the connection without a word")


def _require_conda_or_local(launch: Launch) -> None:
    launch_dict = launch.configure()
    if not launch_dict.get("conda") and launch_dict.get("hostname") is not None:
        raise LaunchError(
            f"{launch.name} runs on {launch_dict['hostname']}, where it needs a conda environment: "
            "give the cluster's queue a 'conda' entry (only a local cluster can do without)"
        )
