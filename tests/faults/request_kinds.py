"""Every kind of request to the buffer and result services: how it is made, and when it is right."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
from malformed_contents import (
    NO_CHECKSUM,
    NO_CHECKSUMS,
    NO_LENGTHS,
    NO_OBJECT,
    NO_PRESENCE,
    NO_RECORDS,
    WRONG_BYTES,
)
from played_answers import PlayedAnswer
from seamless import Buffer, Checksum

from seamless_remote import buffer_remote, database_remote
from seamless_remote.clients.health import Health

_numbers = itertools.count()
_names = itertools.count()


def fresh_content(size: int = 100) -> bytes:
    """Bytes that no other test has."""
    return (b"%d in %d;" % (next(_numbers), os.getpid())).ljust(size, b".")


def fresh_checksum() -> Checksum:
    return checksum_of(fresh_content())


def checksum_of(content: bytes) -> Checksum:
    return Checksum(hashlib.sha256(content).hexdigest())


def use(module: Any, url: str) -> None:
    """Make a service the only one of its kind."""
    name = f"fault-{next(_names)}"
    type_ = "hashserver" if module is buffer_remote else "database"
    module.define_extern_client(name, type_, url=url, readonly=False)
    module.activate(no_main=True, extern_clients=[name])


@dataclass(frozen=True)
class RequestKind:
    """A request of one kind.

    `prepare` makes what it needs on the good service and gives the call; the call's outcome must be
    `right`, or may be one of `nothing_known` where the service gave a bad answer. `accepts` tells
    which statuses alone make it succeed, whatever the body; `only` in the request line tells the
    request that is meant from others of the same call.
    """

    name: str
    module: Any
    prepare: Callable[[], Awaitable[Callable[[], Awaitable[Any]]]]
    right: Callable[[Any], bool] = lambda outcome: outcome is True
    nothing_known: tuple[Any, ...] = ()
    accepts: Callable[[int], bool] = lambda status: False
    bad_contents: tuple[PlayedAnswer, ...] = ()
    only: str = ""
    takes_body: bool = False


async def _stored(size: int) -> tuple[bytes, Checksum]:
    content = fresh_content(size)
    checksum = checksum_of(content)
    assert await buffer_remote.write_buffer(checksum, Buffer(content))
    return content, checksum


async def _get() -> Callable[[], Awaitable[Any]]:
    content, checksum = await _stored(1000)

    async def call() -> bool | None:
        buffer = await buffer_remote.get_buffer(checksum)
        return None if buffer is None else buffer.content == content

    return call


async def _copy() -> Callable[[], Awaitable[Any]]:
    content, checksum = await _stored(700_000)

    async def call() -> bool:
        target = io.BytesIO()

        def restart() -> None:
            target.seek(0)
            target.truncate()

        found = await buffer_remote.copy_buffer(checksum, target, restart)
        assert target.getvalue() == (content if found else b"")
        return found

    return call


async def _lengths() -> Callable[[], Awaitable[Any]]:
    _, checksum = await _stored(1234)
    return lambda: buffer_remote.get_buffer_lengths([checksum])


async def _lengths_of_promised() -> Callable[[], Awaitable[Any]]:
    _, checksum = await _stored(1234)
    await buffer_remote.promise(checksum)
    return lambda: buffer_remote.get_buffer_lengths([checksum])


async def _promise() -> Callable[[], Awaitable[Any]]:
    checksum = fresh_checksum()

    async def call() -> bool:
        await buffer_remote.promise(checksum)
        return True

    return call


def _write(size: int) -> Callable[[], Awaitable[Callable[[], Awaitable[Any]]]]:
    async def prepare() -> Callable[[], Awaitable[Any]]:
        content = fresh_content(size)
        return lambda: buffer_remote.write_buffer(checksum_of(content), Buffer(content))

    return prepare


def _healthcheck(module: Any) -> Callable[[], Awaitable[Callable[[], Awaitable[Any]]]]:
    async def prepare() -> Callable[[], Awaitable[Any]]:
        lists = (buffer_remote._read_server_clients, database_remote._read_database_clients)
        (client,) = lists[module is database_remote]
        # The first ping of keepalive comes by itself, and must not be taken for the call's own.
        while client.health.state is Health.UNKNOWN:  # noqa: ASYNC110 - it sets no event
            await anyio.sleep(0.001)

        async def call() -> bool:
            client.health.state = Health.UNKNOWN
            await anyio.to_thread.run_sync(client.ensure_initialized_sync)
            return True

        return call

    return prepare


RECORD = {"schema_version": 1, "wall_time": 1.5}
PROBE = {"hostname": "here"}


async def _result() -> Callable[[], Awaitable[Any]]:
    tf, result = fresh_checksum(), fresh_checksum()
    assert await database_remote.set_transformation_result(tf, result)

    async def call() -> bool | None:
        found = await database_remote.get_transformation_result(tf)
        return None if found is None else found == result

    return call


async def _rev_transformations() -> Callable[[], Awaitable[Any]]:
    tf, result = fresh_checksum(), fresh_checksum()
    assert await database_remote.set_transformation_result(tf, result)

    async def call() -> bool | None:
        found = await database_remote.get_rev_transformations(result)
        return None if found is None else found == [tf]

    return call


async def _execution_record() -> Callable[[], Awaitable[Any]]:
    tf, write = await _writable_record()
    assert await write()

    async def call() -> bool | None:
        found = await database_remote.get_execution_record(tf)
        return None if found is None else found["wall_time"] == RECORD["wall_time"]

    return call


async def _writable_record() -> tuple[Checksum, Callable[[], Awaitable[Any]]]:
    tf, result = fresh_checksum(), fresh_checksum()
    assert await database_remote.set_transformation_result(tf, result)
    record = {**RECORD, "tf_checksum": tf.hex(), "result_checksum": result.hex()}
    return tf, lambda: database_remote.set_execution_record(tf, result, record)


async def _set_execution_record() -> Callable[[], Awaitable[Any]]:
    return (await _writable_record())[1]


async def _set_probe() -> Callable[[], Awaitable[Any]]:
    label, bucket = fresh_content().decode(), fresh_checksum()
    return lambda: database_remote.set_bucket_probe("node", label, bucket, PROBE, "2026-01-01")


async def _probe() -> Callable[[], Awaitable[Any]]:
    label, bucket = fresh_content().decode(), fresh_checksum()
    assert await database_remote.set_bucket_probe("node", label, bucket, PROBE, "2026-01-01")

    async def call() -> bool | None:
        found = await database_remote.get_bucket_probe("node", label)
        return None if found is None else found["bucket_checksum"] == bucket.hex()

    return call


async def _irreproducible() -> Callable[[], Awaitable[Any]]:
    tf, result = fresh_checksum(), fresh_checksum()
    assert await database_remote.set_transformation_result(tf, result)
    assert await database_remote.undo_transformation_result(tf, result)

    async def call() -> bool | None:
        found = await database_remote.get_irreproducible_records(tf)
        return None if found is None else [each["result"] for each in found] == [result.hex()]

    return call


async def _set_result() -> Callable[[], Awaitable[Any]]:
    tf, result = fresh_checksum(), fresh_checksum()
    return lambda: database_remote.set_transformation_result(tf, result)


async def _undo() -> Callable[[], Awaitable[Any]]:
    async def call() -> bool:
        # What has been undone once cannot be again: each call has a result of its own.
        tf, result = pairs.pop()
        return await database_remote.undo_transformation_result(tf, result)

    pairs = [(fresh_checksum(), fresh_checksum()) for _ in range(300)]
    for tf, result in pairs[:2]:
        assert await database_remote.set_transformation_result(tf, result)
    return call


def _ok(status: int) -> bool:
    return status == 200


def _stored_or_there(status: int) -> bool:
    return status in (200, 201)


def _any_success(status: int) -> bool:
    return 200 <= status < 300


def _is_length(outcome: Any) -> bool:
    return bool(outcome == [1234])


BUFFER_KINDS = [
    RequestKind(
        "get_buffer", buffer_remote, _get, nothing_known=(None,), bad_contents=(*WRONG_BYTES,)
    ),
    RequestKind(
        "copy_buffer", buffer_remote, _copy, nothing_known=(False,), bad_contents=(*WRONG_BYTES,)
    ),
    RequestKind(
        "get_buffer_lengths", buffer_remote, _lengths, _is_length, bad_contents=(*NO_LENGTHS,)
    ),
    RequestKind(
        "get_buffer_lengths of promised",
        buffer_remote,
        _lengths_of_promised,
        _is_length,
        bad_contents=(*NO_PRESENCE,),
        only="/has-now",
    ),
    RequestKind("promise", buffer_remote, _promise, accepts=_any_success),
    RequestKind("write_buffer, small", buffer_remote, _write(100), accepts=_stored_or_there),
    RequestKind(
        "write_buffer, before the go", buffer_remote, _write(200_000), accepts=_stored_or_there
    ),
    RequestKind(
        "write_buffer, after the body",
        buffer_remote,
        _write(3_000_000),
        accepts=_stored_or_there,
        takes_body=True,
    ),
    RequestKind(
        "healthcheck of a hashserver",
        buffer_remote,
        _healthcheck(buffer_remote),
        accepts=_any_success,
    ),
]

DATABASE_KINDS = [
    RequestKind(
        "get_transformation_result", database_remote, _result, bad_contents=(*NO_CHECKSUM,)
    ),
    RequestKind(
        "get_rev_transformations",
        database_remote,
        _rev_transformations,
        bad_contents=(*NO_CHECKSUMS,),
    ),
    RequestKind(
        "get_execution_record", database_remote, _execution_record, bad_contents=(*NO_OBJECT,)
    ),
    RequestKind("get_bucket_probe", database_remote, _probe, bad_contents=(*NO_OBJECT,)),
    RequestKind(
        "get_irreproducible_records", database_remote, _irreproducible, bad_contents=(*NO_RECORDS,)
    ),
    RequestKind("set_transformation_result", database_remote, _set_result, accepts=_ok),
    RequestKind("set_execution_record", database_remote, _set_execution_record, accepts=_ok),
    RequestKind("set_bucket_probe", database_remote, _set_probe, accepts=_ok),
    RequestKind(
        "undo_transformation_result",
        database_remote,
        _undo,
        accepts=_ok,
        only="PUT",
    ),
    RequestKind(
        "healthcheck of a database",
        database_remote,
        _healthcheck(database_remote),
        accepts=_any_success,
    ),
]

KINDS = {kind.name: kind for kind in [*BUFFER_KINDS, *DATABASE_KINDS]}
