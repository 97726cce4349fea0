"""Checksums in the form this package uses: a SHA-256 as 64 lowercase hex digits."""

from __future__ import annotations

import re

from seamless import Checksum

from .validation import shown

_HEX = re.compile(r"[0-9a-f]{64}")

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The checksum of the empty buffer."""


def checksum_hex(checksum: Checksum | str | bytes) -> str:
    """A checksum as hex digits.

    TypeError or ValueError, as `seamless.Checksum` raises it, if it is not a valid checksum.
    """
    if isinstance(checksum, Checksum):
        return str(checksum.hex())
    try:
        return str(Checksum(checksum).hex())
    except (TypeError, ValueError) as exc:
        # Seamless's own message does not show the value.
        raise type(exc)(f"{shown(checksum)} is not a checksum: {exc}") from None


def is_checksum(value: object) -> bool:
    """Whether `value`, taken from a service's answer, is a checksum in hex digits."""
    return isinstance(value, str) and _HEX.fullmatch(value) is not None
