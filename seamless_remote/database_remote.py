"""Transformation results and what belongs to them: looked up in, and recorded in, databases.

seamless-config activates this module; seamless-core, seamless-transformer and seamless-dask call
it, from whatever loop and thread they are in. Reads ask the databases in order until one knows;
writes go to all writable ones at once. All calls of the process share one bound on requests in
flight (`SEAMLESS_DATABASE_MAX_INFLIGHT`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from seamless import Checksum

from .activation.fan_out import at_every, first_known
from .activation.registry import Registry
from .checksums import checksum_hex
from .clients.database import DatabaseClient, DatabaseLaunchedClient
from .launching.placement import Placement
from .nursery.calling import call
from .validation import json_object_of, shown, text_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

DISABLED = False
"""Set to True, it makes `activate()` do nothing."""

# Read by the Seamless packages, underscore or not.
_read_database_clients: list[DatabaseClient] = []
_write_database_clients: list[DatabaseClient] = []


def _sort(clients: Sequence[DatabaseClient]) -> None:
    _read_database_clients[:] = clients
    _write_database_clients[:] = [each for each in clients if not each.readonly]


def _make_launched(placement: Placement, readonly: bool) -> DatabaseClient:
    return DatabaseLaunchedClient(placement, readonly=readonly)


_registry: Registry[DatabaseClient] = Registry(
    "database_remote", _make_launched, _sort, is_disabled=lambda: DISABLED
)

activate = _registry.activate
activate_unlaunched = _registry.activate_unlaunched
launch = _registry.launch
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
    """Define a client of a running database, in place of an earlier one of that name.

    `type_` is `"database"`, with a `url`. TypeError for other types or parameters, ValueError if
    the url does not fit.
    """
    if type_ != "database":
        raise TypeError(
            f"extern client {name!r}: type {type_!r} is not supported; "
            "supported is 'database' (with a url)"
        )
    if params or directory is not None:
        raise TypeError(
            f"extern client {name!r}: a database takes a url, and nothing else: not "
            f"{shown(params or directory)}"
        )
    if url is None:
        raise ValueError(f"extern client {name!r}: a database needs a url")
    _registry.define_extern(name, DatabaseClient(readonly=readonly, url=url))


def has_read_server() -> bool:
    """Whether results can be looked up anywhere."""
    return bool(_read_database_clients)


def has_write_server() -> bool:
    """Whether results are recorded anywhere."""
    return bool(_write_database_clients)


async def get_transformation_result(tf_checksum: Checksum) -> Checksum | None:
    """The checksum of a transformation's result; None if no database knows one.

    This and the other reads raise ServiceError if no database knows but not all could be asked, and
    AnswerError or RefusedError if one gave no proper answer.
    """
    wanted = checksum_hex(tf_checksum)
    result = await _read("look-up of a result", DatabaseClient.get_result, wanted)
    logger.debug("result of %s: %s", wanted, result)
    return None if result is None else Checksum(result)


async def get_rev_transformations(result_checksum: Checksum) -> list[Checksum] | None:
    """The transformations that have this result: each once, in the order of their recording."""
    wanted = checksum_hex(result_checksum)
    found = await _read(
        "look-up of reverse transformations", DatabaseClient.get_rev_transformations, wanted
    )
    return None if found is None else [Checksum(each) for each in found]


async def get_execution_record(tf_checksum: Checksum) -> dict[str, Any] | None:
    """The execution record of a transformation, or None."""
    wanted = checksum_hex(tf_checksum)
    return await _read(
        "look-up of an execution record", DatabaseClient.get_execution_record, wanted
    )


async def get_bucket_probe(bucket_kind: str, label: str) -> dict[str, Any] | None:
    """The last probe of a bucket, or None. `bucket_kind` is `node`, `environment` and the like."""
    kind, name = text_of("the bucket kind", bucket_kind), text_of("the label", label)
    return await _read("look-up of a bucket probe", DatabaseClient.get_bucket_probe, kind, name)


async def get_irreproducible_records(
    tf_checksum: Checksum, result_checksum: Checksum | None = None
) -> list[dict[str, Any]] | None:
    """The contested results of a transformation (or only this one), or None."""
    wanted = checksum_hex(tf_checksum)
    result = None if result_checksum is None else checksum_hex(result_checksum)
    return await _read(
        "look-up of irreproducible records",
        DatabaseClient.get_irreproducible_records,
        wanted,
        result,
    )


async def set_transformation_result(tf_checksum: Checksum, result_checksum: Checksum) -> bool:
    """Record a transformation's result; True when it is written, False without a write server.

    This and the other writes go to every writable database at once. They raise ServiceError if
    none confirmed, and RefusedError if all refused; one that fails beside others is logged.
    """
    tf, result = checksum_hex(tf_checksum), checksum_hex(result_checksum)
    written = await _write("recording of a result", DatabaseClient.set_result, tf, result)
    logger.debug("result of %s set to %s: %s", tf, result, written)
    return written


async def set_execution_record(
    tf_checksum: Checksum, result_checksum: Checksum, record: Mapping[str, Any]
) -> bool:
    """Record how a transformation was executed; False if there is another one already."""
    tf, result = checksum_hex(tf_checksum), checksum_hex(result_checksum)
    value = json_object_of("the execution record", record)
    return await _write(
        "recording of an execution record", DatabaseClient.set_execution_record, tf, result, value
    )


async def set_bucket_probe(
    bucket_kind: str,
    label: str,
    bucket_checksum: Checksum,
    freshness_tokens: Mapping[str, Any],
    captured_at: str,
) -> bool:
    """Record a probe of a bucket, in place of an earlier one; True when it is written."""
    bucket = checksum_hex(bucket_checksum)
    kind, name = text_of("the bucket kind", bucket_kind), text_of("the label", label)
    tokens = json_object_of("the freshness tokens", freshness_tokens)
    time = text_of("the time of capture", captured_at)
    return await _write(
        "recording of a bucket probe",
        DatabaseClient.set_bucket_probe,
        kind,
        name,
        bucket,
        tokens,
        time,
    )


async def undo_transformation_result(tf_checksum: Checksum, result_checksum: Checksum) -> bool:
    """Contest a result and remove it; False if the transformation has another result."""
    tf, result = checksum_hex(tf_checksum), checksum_hex(result_checksum)
    return await _write("undoing of a result", DatabaseClient.undo_result, tf, result)


def _read(what: str, ask: Callable[..., Awaitable[T | None]], *args: Any) -> Awaitable[T | None]:
    clients = tuple(_read_database_clients)
    if not clients:
        return _nobody_knows()
    clients[0].require_usable(what)
    return call(what, first_known, clients, ask, *args)


async def _nobody_knows() -> None:
    return None


async def _write(what: str, do: Callable[..., Awaitable[bool]], *args: Any) -> bool:
    clients = tuple(_write_database_clients)
    if not clients:
        return False
    clients[0].require_usable(what)
    return all(await call(what, at_every, clients, do, *args))
