"""Buffers, their checksums, and the files in which a hashserver's folder holds them."""

from __future__ import annotations

import gzip
import hashlib
import random
from pathlib import Path

import zstandard
from seamless import Buffer, Checksum

_random = random.Random()


def fresh(size: int) -> bytes:
    """Bytes that no other test has; each half is easy to compress."""
    seed = _random.randbytes(min(size, 32))
    return (seed * (size // max(len(seed), 1) + 1))[:size]


def incompressible(size: int) -> bytes:
    """Random bytes, of any size: blocks of one random megabyte, each marked by its number."""
    block = _random.randbytes(min(size, 1 << 20))
    count = size // max(len(block), 1) + 1
    return b"".join(number.to_bytes(8, "big") + block for number in range(count))[:size]


def checksum_of(content: bytes) -> Checksum:
    return Checksum(hashlib.sha256(content).hexdigest())


def buffer_of(content: bytes) -> Buffer:
    """A buffer whose checksum nobody has calculated yet."""
    return Buffer(content)


def path_of(folder: Path, checksum: Checksum, suffix: str = "", *, layout: str = "prefix") -> Path:
    """Where a folder of this layout has a buffer."""
    name = checksum.hex()
    return folder / name[:2] / (name + suffix) if layout == "prefix" else folder / (name + suffix)


def put_file(
    folder: Path,
    content: bytes,
    suffix: str = "",
    *,
    stored: bytes | None = None,
    layout: str = "prefix",
) -> Checksum:
    """Put a buffer into a folder by hand; `stored` is what the file holds, if not the content."""
    checksum = checksum_of(content)
    path = path_of(folder, checksum, suffix, layout=layout)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compress(content, suffix) if stored is None else stored)
    return checksum


def compress(content: bytes, suffix: str, *, parts: int = 1) -> bytes:
    """The content in the form that a suffix stands for, as so many frames or members in a row."""
    compressor = {
        "": bytes,
        ".zst": zstandard.ZstdCompressor().compress,
        ".gz": gzip.compress,
    }[suffix]
    step = len(content) // parts + 1
    pieces = [content[start : start + step] for start in range(0, len(content) or 1, step)]
    return b"".join(compressor(piece) for piece in pieces)
