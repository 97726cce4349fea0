"""Transformation results and what belongs to them: looked up in, and recorded in, databases.

seamless-config activates this module; seamless-core, seamless-transformer and seamless-dask call
it, from whatever loop and thread they are in. Reads ask the databases in order until one knows;
writes go to all writable ones at once. All calls of the process share one bound on requests in
flight (`SEAMLESS_DATABASE_MAX_INFLIGHT`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from seamless import Checksum

from .activation.registry import Registry
from .validation import json_object_of, shown, text_of
from .checksums import checksum_hex
from .clients.database import DatabaseClient, DatabaseLaunchedClient
from .activation.fan_out import at_every, first_known
from .nursery.process import call
from .nursery.scope import Scope
from .launching.placement import Placement

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


_registry: Registry[DatabaseClient] = Registry("database_remote", _make_launched, _sort)


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

    `type_` is `"database"`, with a `url`. TypeError for other types or parameters, ValueError where
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


def activate(
    *,
    readonly: bool = False,
    extra_launched_clients: Iterable[Mapping[str, Any]] = (),
    extern_clients: Iterable[str] = (),
    no_main: bool = False,
) -> None:
    """Put clients in effect: the current cluster's database, unless `no_main`, and the named ones.

    Returns when the new set is in effect; launching goes on in the background, and the first use
    waits for it. From any thread, inside a running loop or not.
    """
    if not DISABLED:
        _registry.activate(
            readonly=readonly,
            extra_launched_clients=extra_launched_clients,
            extern_clients=extern_clients,
            no_main=no_main,
        )


def has_read_server() -> bool:
    """Whether results can be looked up anywhere."""
    return bool(_read_database_clients)


def has_write_server() -> bool:
    """Whether results are recorded anywhere."""
    return bool(_write_database_clients)


async def get_transformation_result(tf_checksum: Checksum) -> Checksum | None:
    """The checksum of a transformation's result; None where no database knows one.

    This and the other reads raise ServiceError where no database knows, but not all could be asked;
    AnswerError or RefusedError where one gave no answer of the kind that was asked for.
    """
    wanted = checksum_hex(tf_checksum)
    result = await _read("result", DatabaseClient.get_result, wanted)
    logger.debug("result of %s: %s", wanted, result)
    return None if result is None else Checksum(result)


async def get_rev_transformations(result_checksum: Checksum) -> list[Checksum] | None:
    """The transformations that have this result: each once, in the order of their recording."""
    wanted = checksum_hex(result_checksum)
    found = await _read("reverse transformation", DatabaseClient.get_rev_transformations, wanted)
    return None if found is None else [Checksum(each) for each in found]


async def get_execution_record(tf_checksum: Checksum) -> dict[str, Any] | None:
    """The execution record of a transformation, or None."""
    wanted = checksum_hex(tf_checksum)
    return await _read("execution record", DatabaseClient.get_execution_record, wanted)


async def get_bucket_probe(bucket_kind: str, label: str) -> dict[str, Any] | None:
    """The last probe of a bucket, or None. `bucket_kind` is `node`, `environment` and the like."""
    kind, name = text_of("the bucket kind", bucket_kind), text_of("the label", label)
    return await _read("bucket probe", DatabaseClient.get_bucket_probe, kind, name)


async def get_irreproducible_records(
    tf_checksum: Checksum, result_checksum: Checksum | None = None
) -> list[dict[str, Any]] | None:
    """The contested results of a transformation (or only this one), or None."""
    wanted = checksum_hex(tf_checksum)
    result = None if result_checksum is None else checksum_hex(result_checksum)
    return await _read(
        "irreproducible record", DatabaseClient.get_irreproducible_records, wanted, result
    )


async def set_transformation_result(tf_checksum: Checksum, result_checksum: Checksum) -> bool:
    """Record a transformation's result; True when it is written, False without a write server.

    This and the other writes go to every writable database at once. They raise ServiceError where
    none confirmed, and RefusedError where all refused; one that fails beside others is logged.
    """
    tf, result = checksum_hex(tf_checksum), checksum_hex(result_checksum)
    written = await _write("result", DatabaseClient.set_result, tf, result)
    logger.debug("result of %s set to %s: %s", tf, result, written)
    return written


async def set_execution_record(
    tf_checksum: Checksum, result_checksum: Checksum, record: Mapping[str, Any]
) -> bool:
    """Record how a transformation was executed; False where another record of it is there."""
    tf, result = checksum_hex(tf_checksum), checksum_hex(result_checksum)
    value = json_object_of("the execution record", record)
    return await _write("execution record", DatabaseClient.set_execution_record, tf, result, value)


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
        "bucket probe", DatabaseClient.set_bucket_probe, kind, name, bucket, tokens, time
    )


async def undo_transformation_result(tf_checksum: Checksum, result_checksum: Checksum) -> bool:
    """Contest a result and remove it; False where the transformation has another result."""
    tf, result = checksum_hex(tf_checksum), checksum_hex(result_checksum)
    return await _write("undoing", DatabaseClient.undo_result, tf, result)


def _read(what: str, ask: Callable[..., Awaitable[T | None]], *args: Any) -> Awaitable[T | None]:
    clients = tuple(_read_database_clients)
    if not clients:
        return _nobody_knows()
    clients[0].require_usable(f"the look-up of a {what}")
    return call(_read_in, clients, ask, args, limited=True)


async def _nobody_knows() -> None:
    return None


def _read_in(
    scope: Scope,
    clients: Sequence[DatabaseClient],
    ask: Callable[..., Awaitable[T | None]],
    args: tuple[Any, ...],
) -> Awaitable[T | None]:
    return first_known(clients, ask, scope, *args)


async def _write(what: str, do: Callable[..., Awaitable[bool]], *args: Any) -> bool:
    clients = tuple(_write_database_clients)
    if not clients:
        return False
    clients[0].require_usable(f"the recording of a {what}")
    return await call(_write_in, clients, do, args, limited=True)


async def _write_in(
    scope: Scope,
    clients: Sequence[DatabaseClient],
    do: Callable[..., Awaitable[bool]],
    args: tuple[Any, ...],
) -> bool:
    return all(await at_every(clients, do, scope, *args))
