"""The operations of the load: each asks something of the services, and knows what may come back.

An operation raises `BrokenPromise` for a wrong answer, and lets typed errors through. It writes
what it has confirmed into the ledger.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
from seamless import Buffer, Checksum

from seamless_remote import buffer_remote, database_remote, jobserver_remote

from .customer import Customer
from .plan import CANCELLING, JOB_PATIENCE, REPEATED_AFTER, TOTAL_TIMEOUT
from .tally import BrokenPromise, Unfulfilled

SIZES = (*[(1, 4_000)] * 60, *[(50_000, 400_000)] * 4, (1_000_000, 6_000_000))
"""Ranges of bytes, each as probable as it is frequent: a kilobyte as a rule, megabytes at times."""

PROMISED_SHARE = 0.15

CODE = """
def job(customer, number):
    return number + 1
"""


@dataclass(frozen=True)
class Operation:
    """One kind of call: how often it is made beside the others, and how long it may take.

    `deadline` is in seconds. An operation that asks several services, or twice, has several total
    timeouts.
    """

    kind: str
    weight: int
    run: Callable[[Customer], Awaitable[None]]
    deadline: float = TOTAL_TIMEOUT


async def write(customer: Customer) -> None:
    """A new buffer, promised before at times."""
    low, high = customer.draw.choice(SIZES)
    content = customer.draw.randbytes(customer.draw.randint(low, high))
    checksum = Checksum(checksum_of(content))
    if customer.draw.random() < PROMISED_SHARE:
        await buffer_remote.promise(checksum)
    written = await buffer_remote.write_buffer(checksum, Buffer(content))
    _require(written is True, f"the writing of a buffer gave {written}")
    customer.ledger.confirm("buffer", checksum.hex(), str(len(content)))


async def write_again(customer: Customer) -> None:
    stored = customer.ledger.draw("buffer", customer.draw)
    if stored is not None:
        buffer = await _fetch(stored[0])
        written = await buffer_remote.write_buffer(Checksum(stored[0]), buffer)
        _require(written is True, f"the writing of a buffer gave {written}")


async def read(customer: Customer) -> None:
    stored = customer.ledger.draw("buffer", customer.draw)
    if stored is not None:
        buffer = await _fetch(stored[0])
        _require(len(buffer.content) == int(stored[1]), f"{stored} has another length")


async def read_archived(customer: Customer) -> None:
    await _fetch(customer.draw.choice(customer.archive))


async def read_unknown(customer: Customer) -> None:
    buffer = await buffer_remote.get_buffer(_drawn_checksum(customer))
    _require(buffer is None, "there is a buffer that nobody has written")


async def ask_lengths(customer: Customer) -> None:
    stored = [each for _ in range(5) if (each := customer.ledger.draw("buffer", customer.draw))]
    asked = [Checksum(checksum) for checksum, _ in stored] + [_drawn_checksum(customer)]
    lengths = await buffer_remote.get_buffer_lengths(asked)
    right = [*(int(length) for _, length in stored), None]
    _require(lengths == right, f"the lengths are {lengths}, not {right}")


async def set_result(customer: Customer) -> None:
    """A result that stays the only one of its transformation."""
    transformation, result = _drawn_checksum(customer), _drawn_checksum(customer)
    written = await database_remote.set_transformation_result(transformation, result)
    _require(written is True, f"the recording of a result gave {written}")
    customer.ledger.confirm("result", transformation.hex(), result.hex())


async def look_up(customer: Customer) -> None:
    known = customer.ledger.draw("result", customer.draw)
    if known is not None:
        found = await database_remote.get_transformation_result(Checksum(known[0]))
        _require(found == Checksum(known[1]), f"the result of {known[0]} is {found}")


async def look_up_unknown(customer: Customer) -> None:
    found = await database_remote.get_transformation_result(_drawn_checksum(customer))
    _require(found is None, f"there is a result {found} that nobody has recorded")


async def look_up_reverse(customer: Customer) -> None:
    known = customer.ledger.draw("result", customer.draw)
    if known is not None:
        found = await database_remote.get_rev_transformations(Checksum(known[1]))
        _require(found in (None, [Checksum(known[0])]), f"{known[1]} is said to come from {found}")


async def change_result(customer: Customer) -> None:
    """Set, or undo, the result of a transformation that is changed again and again."""
    changing = customer.one_changing()
    transformation = Checksum(changing.transformation)
    result = customer.draw.choice(customer.results)
    change = customer.draw.choice([result, result, None])
    before = changing.values()
    changing.begin(change)
    started = time.monotonic()
    if change is None:
        done = await database_remote.undo_transformation_result(transformation, Checksum(result))
        # The database also takes note of an undoing where there is no result at all.
        fits = {result, None} & {*before} if done else {*before} - {result, None}
        _require(bool(fits), f"undoing {result} gave {done} where there was one of {before}")
    else:
        done = await database_remote.set_transformation_result(transformation, Checksum(result))
        _require(done is True, f"the recording of a result gave {done}")
    if done:
        changing.confirm(change, repeated=time.monotonic() - started >= REPEATED_AFTER)
    else:
        changing.refuse(change)


async def look_up_changing(customer: Customer) -> None:
    changing = customer.one_changing()
    found = await database_remote.get_transformation_result(Checksum(changing.transformation))
    text, possible = None if found is None else found.hex(), changing.values()
    _require(text in possible, f"the result is {text}, not one of {possible}")


async def job(customer: Customer) -> None:
    """A cheap job that nobody has run before, cancelled by a caller who has waited long enough."""
    customer.jobs += 1
    number = customer.jobs
    with anyio.move_on_after(JOB_PATIENCE) as waiting:
        transformation: dict[str, Any] = {
            "__language__": "python",
            "__output__": ["result", "mixed", None],
            "code": ["python", "transformer", await _upload(CODE)],
            "customer": ["mixed", None, await _upload(json.dumps(customer.name) + "\n")],
            "number": ["mixed", None, await _upload(f"{number}\n")],
        }
        text = json.dumps(transformation, sort_keys=True, indent=2) + "\n"
        answer = await jobserver_remote.run_transformation(
            transformation, tf_checksum=Checksum(await _upload(text)), tf_dunder={}, scratch=False
        )
        buffer = await buffer_remote.get_buffer(answer["result_checksum"])
    if waiting.cancelled_caught:
        raise Unfulfilled(f"the job has not ended in {JOB_PATIENCE:g} s")
    if buffer is None:
        raise Unfulfilled("the job's result could not be stored")
    outcome = json.loads(buffer.content)
    _require(outcome == number + 1, f"the job made {outcome} of {number}")


OPERATIONS = (
    Operation("write", 23, write, 2 * TOTAL_TIMEOUT),
    Operation("write again", 3, write_again, 3 * TOTAL_TIMEOUT),
    Operation("read", 10, read, 2 * TOTAL_TIMEOUT),
    Operation("read from the archive", 10, read_archived, 2 * TOTAL_TIMEOUT),
    Operation("read what is not there", 5, read_unknown, 2 * TOTAL_TIMEOUT),
    Operation("ask for lengths", 6, ask_lengths, 2 * TOTAL_TIMEOUT),
    Operation("set result", 20, set_result),
    Operation("look up", 15, look_up),
    Operation("look up what is not there", 4, look_up_unknown),
    Operation("look up in reverse", 3, look_up_reverse),
    Operation("change result", 8, change_result, 2 * TOTAL_TIMEOUT),
    Operation("look up what changes", 5, look_up_changing),
)

JOB = Operation("job", 2, job, JOB_PATIENCE + CANCELLING)
"""Only some customers order jobs: each occupies a worker process."""


def checksum_of(content: bytes) -> str:
    """By hashlib, to share nothing with ours."""
    return hashlib.sha256(content).hexdigest()


def _require(right: bool, otherwise: str) -> None:
    if not right:
        raise BrokenPromise(otherwise)


async def _upload(text: str) -> str:
    """A part of a job: its checksum."""
    content = text.encode()
    checksum = checksum_of(content)
    await buffer_remote.write_buffer(Checksum(checksum), Buffer(content))
    return checksum


async def _fetch(checksum: str) -> Buffer:
    """A buffer that is stored, and is what its checksum says."""
    buffer = await buffer_remote.get_buffer(Checksum(checksum))
    if buffer is None:
        raise BrokenPromise(f"the buffer {checksum} is stored, and was not found")
    _require(checksum_of(buffer.content) == checksum, f"wrong bytes for {checksum}")
    return buffer


def _drawn_checksum(customer: Customer) -> Checksum:
    """A checksum of nothing that exists."""
    return Checksum(customer.draw.randbytes(32).hex())
