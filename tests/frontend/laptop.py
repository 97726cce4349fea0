"""A laptop whose clusters are behind a frontend that it reaches over a real OpenSSH server."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from network_path import NetworkPath
from services import Home, wait_until

from seamless_remote.demo.frontend import Frontend
from seamless_remote.demo.local_cluster import write_yaml

VARIANTS = {"tunneled": True, "direct": False}
"""Clusters by name, and whether they are reached through tunnels."""


class Laptop(Home):
    """A HOME whose clusters are behind a frontend, which is reached by `network`."""

    def __init__(self, path: Path, folder: Path) -> None:
        super().__init__(path)
        with contextlib.ExitStack() as stack:
            self.frontend = Frontend(folder, path)
            stack.callback(self.frontend.close)
            self.network = NetworkPath(self.frontend.port)
            stack.callback(self.network.close)
            self._stack = stack.pop_all()
        self.frontend.write_ssh_config(self.network.port)
        self.env["PATH"] = os.pathsep.join([str(self.frontend.ssh_folder), self.env["PATH"]])
        self.clusters = {
            name: self.frontend.cluster(tunnel=tunnel) for name, tunnel in VARIANTS.items()
        }
        """The content of clusters.yaml."""
        write_yaml(path / ".seamless" / "clusters.yaml", self.clusters)

    def change(self, key: str, value: object) -> None:
        """Change an entry of the hashserver's in all clusters."""
        for cluster in self.clusters.values():
            cluster["frontends"][0]["hashserver"][key] = value
        write_yaml(self.path / ".seamless" / "clusters.yaml", self.clusters)

    def choose(self, variant: str, *, level: int = 2, **options: Any) -> None:
        """Write the project's configuration, for a cluster."""
        self.cluster = variant
        self.configure(level=level, **options)

    def service_pid(self, prefix: str) -> int:
        """The process id of the service on the frontend whose key starts with `prefix`."""
        return self.there.service_pid(prefix)

    @property
    def there(self) -> Home:
        """The frontend's HOME, as far as its launched services are concerned."""
        home = Home.__new__(Home)
        home.path, home.state = self.frontend.home, self.frontend.home / ".remote-http-launcher"
        return home

    def tunnels_to(self, tool: str) -> list[int]:
        """The processes of the tunnels to a service, without the monitors."""
        (noted,) = (self.state / "client").glob(f"{tool}-*.tunnels")
        return [int(line.split()[0]) for line in noted.read_text().splitlines()]

    def close(self) -> None:
        """End everything, and fail if something is left that outlives no program by design."""
        try:
            self._stack.close()
        finally:
            super().close()


def wait_for_end(pid: int) -> None:
    """Wait until a process that was killed has ended."""
    wait_until(lambda: not os.path.exists(f"/proc/{pid}") or _is_zombie(pid), what=f"end of {pid}")


def _is_zombie(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    return True
