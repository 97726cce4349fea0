"""Clients of the buffer store: a hashserver, or a folder that is laid out like one."""

from __future__ import annotations

from seamless import Checksum

from ..buffers.folder import BufferFolder
from ..checksums import checksum_hex
from ..errors import ServiceError
from ..launching.launch import working_directory
from ..launching.placement import Placement
from ..nursery.calling import call
from ..validation import path_of
from .endpoint import Address, Endpoint, KnownAddress, LaunchedAddress
from .hashserver import HashserverClient


class BufferClient(HashserverClient):
    """A buffer store at a known URL, or a folder of buffers (then without any URL)."""

    has_folder = True

    def __init__(
        self, *, readonly: bool = True, url: str | None = None, directory: str | None = None
    ) -> None:
        """ValueError unless there is a valid `url` or a `directory`; a folder is read-only."""
        if url is not None:
            address: Address = KnownAddress(url)
        elif directory is not None:
            if not readonly:
                raise ValueError(f"the buffer folder {directory} can only be read")
            directory = path_of("the directory of a buffer client", directory)
            address = _NoAddress(directory)
        else:
            raise ValueError("a buffer client needs a url or a directory")
        self._begin(address, readonly, directory)

    def _begin(self, address: Address, readonly: bool, directory: str | None) -> None:
        super().__init__(address, readonly=readonly)
        self.folder = None if directory is None else BufferFolder(directory)

    @property
    def directory(self) -> str | None:
        return None if self.folder is None else self.folder.directory

    @property
    def has_server(self) -> bool:
        return not isinstance(self.address, _NoAddress)

    def ensure_initialized_sync(self, *, skip_healthcheck: bool = False) -> None:
        if self.has_server:
            super().ensure_initialized_sync(skip_healthcheck=skip_healthcheck)

    async def promise(self, checksum: Checksum | str) -> None:
        """Tell the server that this buffer is on its way: reads of it wait, at most ten minutes.

        ServiceError: the server could not be told.
        """
        self.require_usable("promise of a buffer")
        await call("promise", self.put_promise, checksum_hex(checksum))


class BufferLaunchedClient(BufferClient):
    """A hashserver that is launched on demand. If its folder is on this machine, it is read too."""

    def __init__(self, placement: Placement, *, readonly: bool) -> None:
        """seamless_config.ConfigurationError: the cluster has no hashserver."""
        self.placement = placement
        launch = placement.launch("hashserver", mode="ro" if readonly else "rw")
        self._begin(LaunchedAddress(launch), readonly, working_directory(launch.configure()))


class _NoAddress(Address):
    """There is no server: only a folder."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def current(self) -> None:
        return None

    async def acquire(self) -> Endpoint:
        return self.ensure()

    def ensure(self) -> Endpoint:
        raise ServiceError(f"the buffer folder {self._directory} has no server")

    def lose(self, endpoint: Endpoint) -> None:
        """There was none."""
