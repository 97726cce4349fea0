"""The buffers and results that the cases ask for, made before the services start."""

from __future__ import annotations

import concurrent.futures
import hashlib
import http.client
import json
import os
import random
from pathlib import Path
from typing import Any

from .measured.task import checksum_of, lookup_key, result_of

_SMALL_BUFFERS = 1001
_SMALL_SIZE = 1000
_MEDIUM_SIZE = 16 * 1024 * 1024


def store_buffers(folder: Path, *, large_mebibytes: int, huge_mebibytes: int) -> dict[str, Any]:
    """Fill a buffer folder, in the prefix layout of hashserver; their checksums by size.

    There are many small buffers, and no huge one where that has no bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".HASHSERVER_PREFIX").touch()
    return {
        "small": [_store(folder, random.randbytes(_SMALL_SIZE)) for _ in range(_SMALL_BUFFERS)],
        "medium": _store(folder, random.randbytes(_MEDIUM_SIZE)),
        "large": _store_large(folder, large_mebibytes),
        "huge": _store_large(folder, huge_mebibytes) if huge_mebibytes else "",
    }


def store_results(url: str, *, count: int) -> None:
    """Give a database the results of so many transformations."""
    host = url.removeprefix("http://")

    def put(numbers: range) -> None:
        connection = http.client.HTTPConnection(host)
        for number in numbers:
            key = lookup_key(number)
            row = {"type": "transformation", "checksum": key, "value": result_of(key)}
            connection.request("PUT", "/", json.dumps(row))
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"the database answered {answer.status} to a result")
        connection.close()

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(put, [range(0, count, 2), range(1, count, 2)]))


def _store(folder: Path, content: bytes) -> str:
    checksum = checksum_of(content)
    path = folder / checksum[:2] / checksum
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return checksum


def _store_large(folder: Path, mebibytes: int) -> str:
    """In pieces, to stay small: a process starts its life with its parent's peak memory."""
    digest = hashlib.sha256()
    piece = os.urandom(1 << 20)  # nothing on the way would find out that they are all the same
    unnamed = folder / ".large"
    with unnamed.open("wb") as file:
        for _ in range(mebibytes):
            digest.update(piece)
            file.write(piece)
    checksum = digest.hexdigest()
    (folder / checksum[:2]).mkdir(exist_ok=True)
    unnamed.rename(folder / checksum[:2] / checksum)
    return checksum
