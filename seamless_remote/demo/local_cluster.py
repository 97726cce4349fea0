"""A cluster on this machine in a temporary HOME, for the demo and for the tests.

Every process of it, the launched services included, inherits the HOME: that identifies them.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import psutil
import yaml

HOST = "127.0.0.1"
PORTS = range(20000, 32000)
"""Ports for services: below the range from which Linux picks ports of outgoing connections."""

FOREIGN_PREFIXES = ("SEAMLESS_", "HASHSERVER_", "REMOTE_HTTP_LAUNCHER", "RHL_", "DASK_", "XDG_")
"""Variables to remove from the environment: the user's own would redirect programs elsewhere."""


def cluster_definition(home: Path, *, name: str, workers: int) -> dict[str, Any]:
    """The content of clusters.yaml: one local cluster with all four services and a Dask queue.

    The data are under `home`. No service needs a conda environment.
    """
    ports = {"network_interface": HOST, "port_start": PORTS.start, "port_end": PORTS.stop - 1}
    services = {
        "hashserver": {"bufferdir": str(home / "buffers")},
        "database": {"database_dir": str(home / "database")},
        "jobserver": {"conda": None, **ports},
        "daskserver": ports,
    }
    queue = {
        "conda": None,
        "walltime": "1:00:00",
        "cores": workers,
        "memory": "2GB",
        "tmpdir": str(home / "tmp"),
        "unknown_task_duration": "1s",
        "target_duration": "1m",
        "maximum_jobs": 1,
        "interactive": True,
    }
    cluster = {
        "type": "local",
        "workers": workers,
        "frontends": [services],
        "queues": {"main": queue},
        "default_queue": "main",
    }
    return {"local_cluster": name, name: cluster}


def write_yaml(path: Path, content: object) -> None:
    """Write `content` to a YAML file, with mappings in their own order."""
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def processes_with(variable: str, value: str) -> list[psutil.Process]:
    """All processes started with this environment variable, except this one and zombies."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(variable) == value:
                found.append(process)
    return found
