"""The services of a soak, all in its HOME: two that the clients launch, and two that are there.

The hashserver and the database are launched. The archive is a second, read-only hashserver: what is
only there comes over HTTP, whereas the launched one's folder is read directly. The jobserver is
extern: seamless-config cannot tell a launched one where in the cluster an extern hashserver is.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
from types import ModuleType, SimpleNamespace
from typing import cast

import seamless.config
from services import Home, Service, start_hashserver, start_jobserver

from seamless_remote import buffer_remote, database_remote, jobserver_remote

from .operations import checksum_of

SERVICES = ("hashserver", "database", "jobserver", "archive")

ARCHIVED = (*[1_000] * 20, *[200_000] * 10, *[5_000_000] * 3)
"""Bytes of each buffer of the archive."""


class Place:
    """`archived` has the checksums of what is at the archive."""

    def __init__(self, home: Home, draw: random.Random) -> None:
        self._home = home
        self._stages = [["archive"], ["archive", "folder"]]
        self.archived = [self._archive(draw.randbytes(size)) for size in ARCHIVED]
        self._extern = {"archive": start_hashserver(home.path / "archive", writable=False)}
        (home.path / "folder").mkdir()

    def activate(self) -> None:
        """Activate the clients of the launched services as a program does, then the others."""
        seamless.config.set_workdir(str(self._home.project))
        seamless.config.init()
        folder, archive = str(self._home.path / "folder"), self._extern["archive"]
        buffer_remote.define_extern_client("archive", "hashserver", url=archive.url)
        buffer_remote.define_extern_client("folder", "bufferfolder", directory=folder)
        self.change_stage()
        buffer_remote.ensure_initialized()
        database_remote.ensure_initialized()
        self._extern["jobserver"] = jobserver = start_jobserver(
            self._home.path / "jobserver",
            workers=2,
            hashserver=_address(buffer_remote),
            database=_address(database_remote),
        )
        jobserver_remote.define_extern_client("jobserver", "jobserver", url=jobserver.url)
        jobserver_remote.activate(no_main=True, extern_clients=["jobserver"])

    def change_stage(self) -> None:
        """Put another set of clients in effect; most of them are in both."""
        self._stages.reverse()
        buffer_remote.activate(extern_clients=self._stages[0])
        database_remote.activate()

    def signal(self, name: str, number: signal.Signals) -> bool:
        """Send a service and its workers a signal; False where it does not run."""
        if name in self._extern:
            process = self._extern[name].process
            leaders = [process.pid] if process.poll() is None else []
        else:
            # The state may be of a process that has ended, and its number another's by now.
            own = {process.pid for process in self._home.processes()}
            states = self._home.services().items()
            known = [state.get("pid") for key, state in states if key.startswith(f"{name}-")]
            leaders = [pid for pid in known if pid in own]
        for leader in leaders:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader, number)
        return bool(leaders)

    def revive(self, name: str) -> None:
        """Start an extern service again; whoever needs a launched one launches it."""
        if name in self._extern:
            self._extern[name].restart()

    def close(self) -> None:
        """End the services that are not launched."""
        for service in self._extern.values():
            service.close()

    def _archive(self, content: bytes) -> str:
        """Write a buffer as a hashserver does; its checksum."""
        checksum = checksum_of(content)
        folder = self._home.path / "archive" / checksum[:2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / checksum).write_bytes(content)
        return checksum


def _address(remote: ModuleType) -> Service:
    """All that a jobserver needs of a launched service, which keeps its port."""
    (launched,) = remote.inspect_launched_clients()
    return cast(Service, SimpleNamespace(url=launched["url"]))
