"""The registered clients of each activation module, and the set that is in effect.

This is the one place that holds registered clients. A change of stage swaps the set in effect; a
client that is in both sets stays the same object and keeps its connections.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

# `seamless.close()` looks for `seamless_remote.client` among the imported modules.
from .. import client as _client  # noqa: F401
from ..clients.base import Client
from ..clients.endpoint import LaunchedAddress
from ..launching.launch import Launched
from ..launching.placement import Placement
from ..nursery import process
from ..validation import name_of, shown, text_of
from .keepalive import ClientSet

C = TypeVar("C", bound=Client)

LaunchedKey = tuple[Placement, bool]
"""A launched client by its placement and whether it is read-only."""

DESCRIPTION_KEYS = ("readonly", "cluster", "project", "subproject", "stage", "substage")
"""What the description of an extra launched client may hold."""


class Registry(Generic[C]):
    """The clients of one activation module: defined ones, and the set that is in effect.

    Its public methods are the module's functions of the same names. Any thread may call them,
    inside a running loop or not. `on_change` is called under its lock with the clients of each new
    set. While `is_disabled` says so, `activate` does nothing. `substages` says that the service has
    one for each substage.
    """

    def __init__(
        self,
        name: str,
        make_launched: Callable[[Placement, bool], C],
        on_change: Callable[[Sequence[C]], None],
        is_disabled: Callable[[], bool],
        *,
        substages: bool = False,
    ) -> None:
        self.name = name
        self._make_launched = make_launched
        self._on_change = on_change
        self._is_disabled = is_disabled
        self._substages = substages
        self._lock = threading.RLock()
        self._launched: dict[LaunchedKey, C] = {}
        self._extern: dict[str, C] = {}
        self._active: tuple[C, ...] = ()
        _registries[name] = self

    def define_launched_client(
        self,
        readonly: bool,
        cluster: str | None = None,
        project: str | None = None,
        subproject: str | None = "",
        stage: str | None = "",
        substage: str | None = "",
    ) -> None:
        """Define a service to launch. None stands for the part that is currently selected."""
        self._launched_client(self._key(readonly, cluster, project, subproject, stage, substage))

    def define_extern(self, name: str, client: C) -> None:
        """Define an extern client, in place of an earlier one of that name.

        TypeError or ValueError if it is not a name.
        """
        name = name_of(f"{self.name}: the name of an extern client", name)
        with self._lock:
            self._extern[name] = client

    def activate(
        self,
        *,
        readonly: bool = False,
        extra_launched_clients: Iterable[Mapping[str, Any]] = (),
        extern_clients: Iterable[str] = (),
        no_main: bool = False,
    ) -> None:
        """Put clients in effect: the current cluster's, unless `no_main`, and the named ones.

        Returns when the new set is in effect; launching goes on in the background, and the first
        use waits for it. Requests of the old set go on; it gives up its connections and pings when
        they have ended.

        Raises:
            RuntimeError: an extern client is not defined, or a launched one is named twice.
            TypeError: the description of a launched client is not a mapping, or extern clients are
                not named in a list.
        """
        if self._is_disabled():
            return
        self._put_in_effect(readonly, extra_launched_clients, extern_clients, no_main)
        self.launch()

    def activate_unlaunched(self) -> None:
        """Put the current cluster's client in effect, as `activate` does, but launch nothing.

        `launch` launches its service, and so does the first use that needs it.
        """
        if not self._is_disabled():
            self._put_in_effect(False, (), (), False)

    def launch(self) -> None:
        """Begin to launch the services in effect that are not launched yet. Does not block."""
        for address in map(_launched_address, self._active):
            if address is not None:
                address.start()

    def launches(self) -> bool:
        """Whether a service in effect is launched on demand."""
        return any(_launched_address(client) is not None for client in self._active)

    def active(self) -> tuple[C, ...]:
        """The set in effect."""
        return self._active

    def ensure_initialized(self) -> None:
        """Bring up every launched client of the set, side by side; the calling thread waits.

        ServiceError: one could not be launched, or does not answer.
        """
        self.launch()
        for client in self._active:
            if _launched_address(client) is not None:
                client.ensure_initialized_sync()

    def inspect_extern_clients(self) -> list[dict[str, Any]]:
        """The defined extern clients: `name`, `readonly`, `url`, `directory` of each."""
        with self._lock:
            return [
                {
                    "name": name,
                    "readonly": client.readonly,
                    "url": client.url,
                    "directory": client.directory,
                }
                for name, client in self._extern.items()
            ]

    def inspect_launched_clients(self) -> list[dict[str, Any]]:
        """The launched clients in effect, launched if they are not yet: of each its `cluster`,
        `readonly`, `url`, `remote_url` (inside the cluster), `directory`, `remote_directory`.

        LaunchError: one could not be launched.
        """
        self.launch()
        with self._lock:
            keys = {id(client): key for key, client in self._launched.items()}
        found = []
        for client in self._active:
            address = _launched_address(client)
            if address is not None:
                placement, readonly = keys[id(client)]
                launched = address.launch.ensure()
                found.append(_inspection(placement.cluster, readonly, client, launched))
        return found

    def after_fork_in_child(self) -> None:
        """Locks that a thread of the parent held are free here, and no launch is under way."""
        self._lock = threading.RLock()
        for client in self._launched.values():
            address = _launched_address(client)
            if address is not None:
                address.launch.after_fork_in_child()

    def _put_in_effect(
        self,
        readonly: bool,
        extra_launched_clients: Iterable[Mapping[str, Any]],
        extern_clients: Iterable[str],
        no_main: bool,
    ) -> None:
        if isinstance(extern_clients, (str, bytes)):
            raise TypeError(f"{self.name}: a list of names is needed, not {shown(extern_clients)}")
        keys = [] if no_main else [self._key(readonly)]
        for description in extra_launched_clients:
            key = self._described_key(readonly, description)
            if key in keys:
                raise RuntimeError(f"{self.name}: launched client named twice: {key[0]}")
            keys.append(key)
        with self._lock:
            extern = [self._extern_client(name) for name in extern_clients]
            launched = [self._launched_client(key) for key in keys]
            self._set_active(tuple(dict.fromkeys([*launched, *extern])))

    def _key(
        self,
        readonly: bool,
        cluster: str | None = None,
        project: str | None = None,
        subproject: str | None = None,
        stage: str | None = None,
        substage: str | None = None,
    ) -> LaunchedKey:
        for part in (cluster, project, subproject, stage, substage):
            if part is not None:
                text_of(f"{self.name}: each part of a launched client's place", part)
        substage = substage if self._substages else ""
        return Placement.of(cluster, project, subproject, stage, substage), bool(readonly)

    def _described_key(self, readonly: bool, description: Mapping[str, Any]) -> LaunchedKey:
        if not isinstance(description, Mapping):
            raise TypeError(
                f"{self.name}: {shown(description)} does not describe a launched client"
            )
        unknown = [key for key in description if key not in DESCRIPTION_KEYS]
        if unknown:
            raise TypeError(f"{self.name}: unknown in a launched client: {shown(unknown)}")
        return self._key(**{"readonly": readonly, **description})

    def _launched_client(self, key: LaunchedKey) -> C:
        with self._lock:
            client = self._launched.get(key)
            if client is None:
                client = self._launched[key] = self._make_launched(*key)
            return client

    def _extern_client(self, name: str) -> C:
        if not isinstance(name, str) or name not in self._extern:
            known = ", ".join(sorted(self._extern)) or "none"
            raise RuntimeError(f"{self.name}: unknown extern client {name!r} (defined: {known})")
        return self._extern[name]

    def _set_active(self, clients: tuple[C, ...]) -> None:
        self._active = clients
        self._on_change(clients)
        process.install(ClientSet(self.name, clients))


_registries: dict[str, Registry[Any]] = {}


def _launched_address(client: Client) -> LaunchedAddress | None:
    address = client.address
    return address if isinstance(address, LaunchedAddress) else None


def _inspection(cluster: str, readonly: bool, client: Client, launched: Launched) -> dict[str, Any]:
    # The folder inside the cluster serves readers there; only a store that is written has one.
    with_folder = client.has_folder and not readonly
    return {
        "cluster": cluster,
        "readonly": readonly,
        "url": launched.url,
        "remote_url": launched.remote_url,
        "directory": client.directory,
        "remote_directory": launched.launch_dict["workdir"] if with_folder else None,
    }


def _after_fork_in_child() -> None:
    for registry in _registries.values():
        registry.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
