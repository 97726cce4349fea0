"""Checksums as this package handles them inside: 64 lowercase hex digits of a SHA-256."""

from __future__ import annotations

import re

from seamless import Checksum

from .validation import shown

CHECKSUM = re.compile(r"[0-9a-f]{64}")

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The checksum of no bytes at all."""


def checksum_hex(checksum: Checksum | str | bytes) -> str:
    """The hex form of a checksum. TypeError or ValueError, naming it, for anything that is none."""
    if isinstance(checksum, Checksum):
        return str(checksum.hex())
    try:
        return str(Checksum(checksum).hex())
    except (TypeError, ValueError) as exc:
        raise type(exc)(f"{shown(checksum)} is not a checksum: {exc}") from None


def is_checksum(value: object) -> bool:
    """Whether `value`, as a service sent it, is a checksum in its hex form."""
    return isinstance(value, str) and CHECKSUM.fullmatch(value) is not None
