"""What the driver hands to a peer's process, and the rules for data that both sides know."""

from __future__ import annotations

import hashlib
from typing import Any

Task = dict[str, Any]
"""The settings of the case, `peer`, and where the services and the material are."""


def lookup_key(number: int) -> str:
    """The checksum of the transformation with this number."""
    return hashlib.sha256(f"look-up {number}".encode()).hexdigest()


def result_of(key: str) -> str:
    """The result that the database, and the stub, hold for it."""
    return key[::-1]


LOOKUPS = 3000
"""How many results the database has."""

NUMBERED = 20_000
"""How many numbered buffers the stub has."""


def numbered_buffer(number: int) -> bytes:
    """The content of the buffer with this number."""
    return f"buffer {number}\n".encode() * 40


def checksum_of(content: bytes) -> str:
    """The SHA-256 of the content, in hex."""
    return hashlib.sha256(content).hexdigest()


def require(condition: object, what: str) -> None:
    """Fail the run where a result is not what it must be (an assert would vanish under -O)."""
    if not condition:
        raise RuntimeError(f"wrong result: {what}")
