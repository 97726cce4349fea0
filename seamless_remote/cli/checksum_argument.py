"""The CHECKSUM argument: 64 hex digits, or a file that contains them."""

from __future__ import annotations

import os
import re

from .statuses import Failure, Status

_SUFFIX = ".CHECKSUM"
_MAX_FILE_BYTES = 64 * 1024
_HEX = re.compile(r"[0-9a-fA-F]{64}")
_SHOWN = 80


def read_checksum(argument: str) -> str:
    """The checksum as 64 lowercase hex digits.

    Failure if it is malformed, or if its file cannot be read.
    """
    if _HEX.fullmatch(argument):
        return argument.lower()
    if argument.endswith(_SUFFIX):
        return _from_file(argument)
    hint = f"did you mean {argument}{_SUFFIX}?" if os.path.exists(argument + _SUFFIX) else ""
    raise Failure(
        Status.MALFORMED_CHECKSUM,
        f"{_short(argument)} is not a checksum; "
        + (hint or f"give 64 hex digits, or a file whose name ends in {_SUFFIX}"),
    )


def _from_file(path: str) -> str:
    try:
        with open(path, "rb") as file:
            # Bounded: a large file by this name is a mistake, and must not fill the memory.
            content = file.read(_MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:
        reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
        raise Failure(
            Status.UNREADABLE_FILE, f"cannot read the checksum file {path}: {reason}"
        ) from exc
    if len(content) > _MAX_FILE_BYTES:
        raise _malformed(path, f"it is longer than {_MAX_FILE_BYTES} bytes")
    lines = [line.strip() for line in content.decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if len(lines) != 1:
        raise _malformed(
            path, f"expected one line besides blank lines and # comments, found {len(lines)}"
        )
    if not _HEX.fullmatch(lines[0]):
        raise _malformed(path, f"{_short(lines[0])} is not 64 hex digits")
    return lines[0].lower()


def _malformed(path: str, reason: str) -> Failure:
    return Failure(
        Status.MALFORMED_CHECKSUM, f"the checksum file {path} does not hold a checksum: {reason}"
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
