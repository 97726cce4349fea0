"""Cheap jobs for the jobserver, made by hand."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from seamless import Buffer, Checksum

from seamless_remote import buffer_remote, jobserver_remote

from .customer import Customer

CODE = """
def job(customer, number):
    return number + 1
"""


async def run_job(customer: Customer) -> tuple[int, int | None]:
    """Run a job that nobody has run before: the number that it is given, and what it gives.

    None where the jobserver had no place to store the result.
    """
    customer.jobs += 1
    number = customer.jobs
    transformation: dict[str, Any] = {
        "__language__": "python",
        "__output__": ["result", "mixed", None],
        "code": ["python", "transformer", await _upload(CODE.encode())],
        "customer": ["mixed", None, await _upload(_plain(customer.name))],
        "number": ["mixed", None, await _upload(_plain(number))],
    }
    text = json.dumps(transformation, sort_keys=True, indent=2) + "\n"
    checksum = Checksum(await _upload(text.encode()))
    answer = await jobserver_remote.run_transformation(
        transformation, tf_checksum=checksum, tf_dunder={}, scratch=False
    )
    buffer = await buffer_remote.get_buffer(answer["result_checksum"])
    return number, None if buffer is None else json.loads(buffer.content)


async def _upload(content: bytes) -> str:
    checksum = hashlib.sha256(content).hexdigest()
    await buffer_remote.write_buffer(Checksum(checksum), Buffer(content))
    return checksum


def _plain(value: object) -> bytes:
    return (json.dumps(value) + "\n").encode()
