"""Buffers: read from folders and hashservers, written to hashservers.

seamless-config activates this module; seamless-core, seamless-transformer and seamless-dask call
it, from whatever loop and thread they are in. Reads ask the folders first, then the servers, in
order; every buffer is verified against its checksum, and wrong bytes are never returned.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from seamless import Buffer, Checksum

from .activation.fan_out import at_every, first_known
from .activation.registry import Registry
from .buffers.hashing import checksum_of
from .buffers.ingest import Target
from .checksums import EMPTY, checksum_hex
from .clients.buffer_store import BufferClient, BufferLaunchedClient
from .clients.hashserver import MemoryDownload
from .errors import RemoteError, ServiceError, WrongBytesError
from .launching.placement import Placement
from .nursery.calling import call, share
from .nursery.calls import Call
from .validation import shown

DISABLED = False
"""Set to True, it makes `activate()` do nothing."""

# Read by the Seamless packages, underscore or not.
_read_folders_clients: list[BufferClient] = []
_read_server_clients: list[BufferClient] = []
_write_server_clients: list[BufferClient] = []


def _sort(clients: Sequence[BufferClient]) -> None:
    _read_folders_clients[:] = [each for each in clients if each.folder is not None]
    _read_server_clients[:] = [each for each in clients if each.has_server]
    _write_server_clients[:] = [each for each in _read_server_clients if not each.readonly]


def _make_launched(placement: Placement, readonly: bool) -> BufferClient:
    return BufferLaunchedClient(placement, readonly=readonly)


_registry: Registry[BufferClient] = Registry(
    "buffer_remote", _make_launched, _sort, is_disabled=lambda: DISABLED
)

activate = _registry.activate
activate_unlaunched = _registry.activate_unlaunched
launch = _registry.launch
launches = _registry.launches
define_launched_client = _registry.define_launched_client
ensure_initialized = _registry.ensure_initialized
inspect_extern_clients = _registry.inspect_extern_clients
inspect_launched_clients = _registry.inspect_launched_clients


def define_extern_client(
    name: str,
    type_: str,
    *,
    params: Mapping[str, Any] | None = None,
    directory: str | None = None,
    url: str | None = None,
    readonly: bool = True,
) -> None:
    """Define a client of a running service or a folder, in place of an earlier one of that name.

    `type_` is `"hashserver"` (with a `url`) or `"bufferfolder"` (with a `directory`, read-only).
    TypeError for other types, ValueError if the url or directory does not fit.
    """
    if type_ == "hashserver":
        if url is None:
            raise ValueError(f"extern client {name!r}: a hashserver needs a url")
        client = BufferClient(readonly=readonly, url=url)
    elif type_ == "bufferfolder":
        if directory is None:
            raise ValueError(f"extern client {name!r}: a bufferfolder needs a directory")
        client = BufferClient(readonly=readonly, directory=directory)
    else:
        raise TypeError(
            f"extern client {name!r}: type {type_!r} is not supported; "
            "supported are 'hashserver' (with a url) and 'bufferfolder' (with a directory)"
        )
    if params:
        raise TypeError(f"extern client {name!r}: {type_!r} takes no params, got {shown(params)}")
    _registry.define_extern(name, client)


def has_read_server() -> bool:
    """Whether buffers can be read from anywhere."""
    return bool(_read_folders_clients or _read_server_clients)


def has_write_server() -> bool:
    """Whether buffers are written to a server."""
    return bool(_write_server_clients)


async def get_buffer(checksum: Checksum) -> Buffer | None:
    """The buffer with this checksum; None if no source has it.

    Concurrent calls of one loop for one buffer share one transfer. A promised buffer is waited for.

    Raises:
        ServiceError: no source has it, but not all could be asked.
        RefusedError: no source has it, and one refused to say.
    """
    wanted = checksum_hex(checksum)
    folders, servers = tuple(_read_folders_clients), tuple(_read_server_clients)
    _require_usable(folders or servers, "reading a buffer")
    unsure: ServiceError | None = None
    for client in folders:
        assert client.folder is not None
        try:
            content = await client.folder.get(wanted)
        except ServiceError as exc:
            unsure = unsure or exc
            continue
        if content is not None:
            return Buffer(content, checksum=Checksum(wanted))
    if servers:
        content = await call(f"get_buffer {wanted}", _get_shared, servers, wanted)
        if content is not None:
            return Buffer(content, checksum=Checksum(wanted))
    if unsure is not None:
        raise unsure
    return None


async def copy_buffer(
    checksum: Checksum,
    target: Target,
    restart: Callable[[], None],
    *,
    before_servers: Callable[[], object] = lambda: None,
) -> bool:
    """Write a buffer to `target` (a file) in constant memory; False if no source has it.

    The bytes are verified once the last has been written: what is in the target counts only when
    this has returned True. `restart` must empty the target; it is called when the bytes begin
    anew, and after wrong ones. What a server sent before it broke off may be kept.
    `before_servers` is called when no folder has the buffer, before any server is asked.
    """
    wanted = checksum_hex(checksum)
    folders, servers = tuple(_read_folders_clients), tuple(_read_server_clients)
    _require_usable(folders or servers, "reading a buffer")
    unsure: ServiceError | None = None
    for client in folders:
        assert client.folder is not None
        try:
            if await client.folder.copy(wanted, target, restart):
                return True
        except ServiceError as exc:
            unsure = unsure or exc
    found = False
    if servers:
        before_servers()
        what = f"copy_buffer {wanted}"
        found = await call(what, _copy_from_servers, servers, wanted, target, restart)
    if unsure is not None and not found:
        raise unsure
    return found


async def get_buffer_lengths(checksums: Iterable[Checksum]) -> list[int | None]:
    """The length of each uncompressed buffer in bytes, None if unknown; in the order given."""
    if isinstance(checksums, (str, bytes)):
        raise TypeError(f"checksums are needed, not one of them: {shown(checksums)}")
    wanted = [checksum_hex(checksum) for checksum in checksums]
    folders, servers = tuple(_read_folders_clients), tuple(_read_server_clients)
    _require_usable(folders or servers, "asking for the lengths of buffers")
    known = {EMPTY: 0}
    missing = _missing(wanted, known)
    unsure: ServiceError | None = None
    for client in folders:
        assert client.folder is not None
        found, failure = await client.folder.lengths(missing)
        known.update(found)
        unsure = unsure or failure
        missing = _missing(wanted, known)
    if missing and servers:
        what = f"get_buffer_lengths of {len(missing)} buffers"
        known.update(await call(what, _lengths_from_servers, servers, missing))
    if unsure is not None and _missing(wanted, known):
        raise unsure
    return [known.get(each) for each in wanted]


def _missing(wanted: Sequence[str], known: Mapping[str, int]) -> list[str]:
    return list(dict.fromkeys(each for each in wanted if each not in known))


async def get_filename(checksum: Checksum) -> str | None:
    """The file in a read folder that is named as holding the uncompressed buffer (not verified)."""
    wanted = checksum_hex(checksum)
    for client in tuple(_read_folders_clients):
        assert client.folder is not None
        filename = await client.folder.filename(wanted)
        if filename is not None:
            return filename
    return None


async def promise(checksum: Checksum) -> None:
    """Tell every write server that this buffer is on its way: reads of it will wait.

    ServiceError: none of them could be told.
    """
    wanted = checksum_hex(checksum)
    servers = tuple(_write_server_clients)
    _require_usable(servers, "promising a buffer")
    if servers:
        await call(f"promise {wanted}", at_every, servers, BufferClient.put_promise, wanted)


async def write_buffer(checksum: Checksum, buffer: Buffer) -> bool:
    """Write a buffer to every write server at once; True when it is known to be stored.

    False if there is no write server. With several, one that fails is logged as long as another
    has stored the buffer.

    Raises:
        ServiceError: no server confirmed it.
        WrongBytesError: the buffer does not have this checksum; nothing was sent.
    """
    wanted = checksum_hex(checksum)
    servers = tuple(_write_server_clients)
    _require_usable(servers, "writing a buffer")
    if not servers:
        return False
    if not isinstance(buffer, Buffer):
        raise TypeError(f"a Buffer is needed, not {type(buffer).__name__}")
    content = buffer.content
    # Not `buffer.get_checksum()`, whose cache is not made for several threads at once.
    known: Checksum | None = getattr(buffer, "checksum", None)
    actual = await checksum_of(content) if known is None else known.hex()
    if actual != wanted:
        raise WrongBytesError(f"the buffer has checksum {actual}, not {wanted}; it is not written")
    what = f"write_buffer {wanted}"
    put = BufferClient.put_buffer
    return all(await call(what, at_every, servers, put, wanted, content))


def _require_usable(clients: Sequence[BufferClient], what: str) -> None:
    if clients:
        clients[0].require_usable(what)


def _get_shared(
    call: Call, servers: Sequence[BufferClient], checksum: str
) -> Awaitable[bytes | None]:
    return share(call, (checksum, servers), partial(_transfer, servers, checksum))


def _transfer(
    servers: Sequence[BufferClient], checksum: str
) -> Callable[[Call], Awaitable[bytes | None]]:
    downloads = [server.download(checksum) for server in servers]

    def run(call: Call) -> Awaitable[bytes | None]:
        return first_known(call, downloads, MemoryDownload.run)

    return run


async def _copy_from_servers(
    call: Call,
    servers: Sequence[BufferClient],
    checksum: str,
    target: Target,
    restart: Callable[[], None],
) -> bool:
    async def copy(client: BufferClient, call: Call) -> bool | None:
        return await client.copy_buffer(call, checksum, target, restart) or None

    return bool(await first_known(call, servers, copy))


async def _lengths_from_servers(
    call: Call, servers: Sequence[BufferClient], checksums: list[str]
) -> dict[str, int]:
    known: dict[str, int] = {}
    failure: RemoteError | None = None
    for client in servers:
        missing = [each for each in checksums if each not in known]
        if not missing:
            break
        try:
            lengths = await client.get_lengths(call, missing)
        except RemoteError as exc:
            failure = failure or exc
            continue
        known.update({k: v for k, v in zip(missing, lengths, strict=True) if v is not None})
    if failure is not None and len(known) < len(checksums):
        raise failure
    return known
