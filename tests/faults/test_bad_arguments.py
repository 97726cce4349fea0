"""Arguments that make no sense: an error that names them, before anything is sent."""

from __future__ import annotations

import io
import re
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from fault_proxy import FaultProxy
from nursery_runs import BACKENDS, HURRIED, PATIENT, in_nursery
from request_kinds import checksum_of, use
from seamless import Buffer, Checksum
from services import Service
from wrong_inputs import NO_BUFFERS, NO_CHECKSUMS, NO_LISTS, NO_RECORDS, NO_TEXTS

from seamless_remote import buffer_remote as buffers
from seamless_remote import database_remote as database
from seamless_remote.buffer_client import BufferClient
from seamless_remote.errors import WrongBytesError

Call = Callable[[Any], Awaitable[Any]]

CONTENT = b"a buffer"
CS = checksum_of(CONTENT)
PROBE = {"hostname": "here"}


def _nothing() -> None:
    """There is nothing in the target to take away."""


async def _promise_at_client(checksum: Any) -> None:
    (client,) = buffers._write_server_clients
    assert isinstance(client, BufferClient)
    await client.promise(checksum)


TAKES_CHECKSUM: dict[str, Call] = {
    "get_buffer": buffers.get_buffer,
    "copy_buffer": lambda cs: buffers.copy_buffer(cs, io.BytesIO(), _nothing),
    "get_buffer_lengths": lambda cs: buffers.get_buffer_lengths([CS, cs]),
    "get_filename": buffers.get_filename,
    "promise": buffers.promise,
    "BufferClient.promise": _promise_at_client,
    "write_buffer": lambda cs: buffers.write_buffer(cs, Buffer(CONTENT)),
    "get_transformation_result": database.get_transformation_result,
    "get_rev_transformations": database.get_rev_transformations,
    "get_execution_record": database.get_execution_record,
    "get_irreproducible_records": database.get_irreproducible_records,
    "set_transformation_result": lambda cs: database.set_transformation_result(cs, CS),
    "set_transformation_result to": lambda cs: database.set_transformation_result(CS, cs),
    "set_execution_record": lambda cs: database.set_execution_record(cs, CS, {}),
    "set_execution_record of": lambda cs: database.set_execution_record(CS, cs, {}),
    "set_bucket_probe": lambda cs: database.set_bucket_probe("node", "x", cs, PROBE, "now"),
    "undo_transformation_result": lambda cs: database.undo_transformation_result(cs, CS),
    "undo_transformation_result to": lambda cs: database.undo_transformation_result(CS, cs),
}

TAKES_OTHERS: dict[str, tuple[dict[str, Any], Call]] = {
    "the list of get_buffer_lengths": (NO_LISTS, buffers.get_buffer_lengths),
    "the result of get_irreproducible_records": (
        {name: value for name, value in NO_CHECKSUMS.items() if value is not None},
        lambda cs: database.get_irreproducible_records(CS, cs),
    ),
    "the buffer of write_buffer": (NO_BUFFERS, lambda buf: buffers.write_buffer(CS, buf)),
    "the record of set_execution_record": (
        NO_RECORDS,
        lambda record: database.set_execution_record(CS, CS, record),
    ),
    "the tokens of set_bucket_probe": (
        NO_RECORDS,
        lambda tokens: database.set_bucket_probe("node", "x", CS, tokens, "now"),
    ),
    "the kind of set_bucket_probe": (
        NO_TEXTS,
        lambda kind: database.set_bucket_probe(kind, "x", CS, PROBE, "now"),
    ),
    "the label of set_bucket_probe": (
        NO_TEXTS,
        lambda label: database.set_bucket_probe("node", label, CS, PROBE, "now"),
    ),
    "the time of set_bucket_probe": (
        NO_TEXTS,
        lambda time: database.set_bucket_probe("node", "x", CS, PROBE, time),
    ),
    "the kind of get_bucket_probe": (NO_TEXTS, lambda kind: database.get_bucket_probe(kind, "x")),
    "the label of get_bucket_probe": (
        NO_TEXTS,
        lambda label: database.get_bucket_probe("node", label),
    ),
}

ARGUMENTS: dict[str, tuple[dict[str, Any], Call]] = {
    **{f"the checksum of {name}": (NO_CHECKSUMS, call) for name, call in TAKES_CHECKSUM.items()},
    **TAKES_OTHERS,
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("argument", ARGUMENTS)
def test_a_wrong_argument_is_an_error_that_names_it_and_nothing_is_sent(
    backend: str,
    argument: str,
    shared_hashserver: Service,
    shared_database: Service,
    faulty: Callable[[Service], FaultProxy],
    tried: Callable[[str], None],
) -> None:
    wrong, call = ARGUMENTS[argument]
    faults = []

    async def body() -> None:
        proxies = [faulty(shared_hashserver), faulty(shared_database)]
        for module, proxy in zip((buffers, database), proxies, strict=True):
            use(module, proxy.url)
        for name, value in wrong.items():
            fault = await fault_of(call, value)
            if fault is not None:
                faults.append(f"{name}: {fault}")
            tried(f"{argument}: {name}")
        for proxy in proxies:
            assert not proxy.requests()

    in_nursery(backend, HURRIED, body)
    assert not faults, "\n".join(faults)


async def fault_of(call: Call, value: Any) -> str | None:
    """What is wrong with how a call takes a wrong argument; None where nothing is."""
    with anyio.move_on_after(20):
        try:
            outcome = await call(value)
        except (TypeError, ValueError) as exc:
            return None if names(str(exc), value) else f"is not named by {exc!r}"
        except Exception as exc:
            return f"raised {exc!r}"
        return f"was taken, for {outcome!r}"
    return "took 20 seconds"


def names(message: str, value: Any) -> bool:
    """Whether a message shows the beginning of a value, or at least its type."""
    return repr(value)[:20] in message or type(value).__name__ in message


@pytest.mark.parametrize("other", [b"", b"another", CONTENT + b"!", CONTENT[:-1], bytes(1 << 20)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_buffer_of_another_checksum_is_not_sent(
    backend: str,
    other: bytes,
    shared_hashserver: Service,
    faulty: Callable[[Service], FaultProxy],
    tried: Callable[[str], None],
) -> None:
    proxy = faulty(shared_hashserver)

    async def body() -> None:
        use(buffers, proxy.url)
        with pytest.raises(WrongBytesError, match=re.escape(CS.hex())):
            await buffers.write_buffer(CS, Buffer(other))
        assert not proxy.requests()

    in_nursery(backend, HURRIED, body)
    tried(f"a buffer that does not match: {other[:20]!r}")


ACCEPTED = {
    "text": CS.hex(),
    "capitals": CS.hex().upper(),
    "mixed": CS.hex()[:32].upper() + CS.hex()[32:],
    "bytes": CS.bytes(),
    "a Checksum": CS,
}


@pytest.mark.parametrize("form", ACCEPTED)
def test_every_form_of_a_checksum_means_the_same(
    form: str, shared_hashserver: Service, shared_database: Service
) -> None:
    given = ACCEPTED[form]

    async def body() -> None:
        use(buffers, shared_hashserver.url)
        use(database, shared_database.url)
        assert await buffers.write_buffer(given, Buffer(CONTENT))
        found = await buffers.get_buffer(given)
        assert found is not None
        assert found.content == CONTENT
        assert await buffers.get_buffer_lengths([given, CS]) == [len(CONTENT)] * 2
        assert await database.set_transformation_result(given, given)
        assert await database.get_transformation_result(CS) == Checksum(CS)

    in_nursery("trio", PATIENT, body)
