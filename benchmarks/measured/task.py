"""What the driver hands to a peer's process, and the data that both sides know."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Task = dict[str, Any]
"""The settings of the case, `measure`, `peer`, and where the services and the material are."""

LOOKUPS = 3000
"""How many results the database has."""

NUMBERED = 20_000
"""How many numbered buffers the stub has."""


def lookup_key(number: int) -> str:
    """The checksum of the transformation with this number."""
    return checksum_of(f"look-up {number}".encode())


def result_of(key: str) -> str:
    """The result that the database, and the stub, hold for it."""
    return key[::-1]


def numbered_buffer(number: int) -> bytes:
    """The content of the buffer with this number."""
    return f"buffer {number}\n".encode() * 40


def checksum_of(content: bytes) -> str:
    """The SHA-256 of the content, in hex."""
    return hashlib.sha256(content).hexdigest()


def file_checksum(path: Path) -> str:
    """The SHA-256 of a file, in hex; in pieces, for programs are to start from a small process."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def take_stored(folder: str, checksum: str) -> None:
    """Remove a buffer from a server's folder, where it must be."""
    path = Path(folder, checksum[:2], checksum)
    require(file_checksum(path) == checksum, "the stored bytes")
    path.unlink()


def ask_database(url: str, method: str, rows: Iterable[dict[str, str]]) -> list[str]:
    """GET or PUT rows of transformations, on one plain connection; the bodies of the answers."""
    answers = []
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc)) as connection:
        for row in rows:
            connection.request(method, "/", json.dumps({"type": "transformation", **row}))
            answer = connection.getresponse()
            answers.append(answer.read().decode())
            require(answer.status == 200, f"{answers[-1]!r} from the database")
    return answers


def require(condition: object, what: str) -> None:
    """Fail the run where a result is not what it must be (an assert would vanish under -O)."""
    if not condition:
        raise RuntimeError(f"wrong result: {what}")
