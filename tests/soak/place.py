"""The services of a soak, all in its HOME: two that the clients launch, and two that are there.

The hashserver and the database are launched, each on a port of its own, for the jobserver knows
them by their addresses. The archive is a second, read-only hashserver: what is only there, comes
over HTTP, where the launched one's folder is read directly.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import cast

import seamless.config
import yaml
from seamless import Checksum
from services import (
    HOST,
    Home,
    Service,
    cluster_definition,
    free_port,
    start_hashserver,
    start_jobserver,
)

from seamless_remote import buffer_remote, database_remote, jobserver_remote

from .operations import checksum_of

ARCHIVED = (*[1_000] * 20, *[200_000] * 10, *[5_000_000] * 3)
"""Bytes of each buffer of the archive."""


class Place:
    """`archived` has the checksums of what is at the archive."""

    def __init__(self, home: Home, draw: random.Random) -> None:
        self.home = home
        self.ports = {"hashserver": free_port(), "database": free_port()}
        directory = home.path / "archive"
        self.archived = [self._archive(draw.randbytes(size)) for size in ARCHIVED]
        self.archive = start_hashserver(directory, writable=False)
        self.jobserver = start_jobserver(
            home.path / "jobserver",
            workers=2,
            hashserver=self._launched("hashserver"),
            database=self._launched("database"),
        )
        (home.path / "folder").mkdir()
        self._stages = [["archive"], ["archive", "folder"]]

    def activate(self) -> None:
        """Activate the clients of the launched services as a program does, then the others."""
        definition = cluster_definition(self.home.path)
        (frontend,) = definition[self.home.cluster]["frontends"]
        for tool, port in self.ports.items():
            frontend[tool].update(network_interface=HOST, port_start=port, port_end=port)
        clusters = self.home.path / ".seamless" / "clusters.yaml"
        clusters.write_text(yaml.safe_dump(definition))
        seamless.config.set_workdir(str(self.home.project))
        seamless.config.init()

        folder = str(self.home.path / "folder")
        buffer_remote.define_extern_client("archive", "hashserver", url=self.archive.url)
        buffer_remote.define_extern_client("folder", "bufferfolder", directory=folder)
        jobserver_remote.define_extern_client("jobserver", "jobserver", url=self.jobserver.url)
        jobserver_remote.activate(no_main=True, extern_clients=["jobserver"])
        self.change_stage()
        buffer_remote.ensure_initialized()
        database_remote.ensure_initialized()

    def change_stage(self) -> None:
        """Put another set of clients in effect; most of them are in both."""
        self._stages.reverse()
        buffer_remote.activate(extern_clients=self._stages[0])
        database_remote.activate()

    def close(self) -> None:
        """End the services that are not launched."""
        self.jobserver.close()
        self.archive.close()

    def _launched(self, tool: str) -> Service:
        """Where a launched service is going to be: that is all that a jobserver needs of it."""
        return cast(Service, SimpleNamespace(url=f"http://{HOST}:{self.ports[tool]}"))

    def _archive(self, content: bytes) -> str:
        """Write a buffer as a hashserver does; its checksum."""
        checksum: str = Checksum(checksum_of(content)).hex()
        folder = self.home.path / "archive" / checksum[:2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / checksum).write_bytes(content)
        return checksum
