"""The CHECKSUM arguments: hex digits, files that hold them, and lists from standard input."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from .checksum_lines import checksum_in, lines_of
from .descriptors import named_descriptor, read_all
from .statuses import Failure, Status

_SUFFIX = ".CHECKSUM"
_MAX_FILE_BYTES = 64 * 1024
_MAX_LIST_BYTES = 256 * 1024 * 1024
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Wanted:
    """A buffer to be fetched: its checksum, and a file name to go with it.

    The name is that of the `.CHECKSUM` file without the suffix, or what stands beside the checksum
    in a list; else it is the checksum. `label` is what the user calls it.
    """

    checksum: str
    name: str
    label: str
    is_listed: bool = False


def read_checksums(
    arguments: Sequence[str], open_at_start: frozenset[int]
) -> list[Wanted | Failure]:
    """What each argument stands for, in order; a Failure for one that is wrong."""
    found: list[Wanted | Failure] = []
    for argument in arguments:
        try:
            found += _read(argument, open_at_start)
        except Failure as exc:
            found.append(exc)
    return found


def _read(argument: str, open_at_start: frozenset[int]) -> list[Wanted]:
    bare = checksum_in(argument)
    if bare is not None:
        return [Wanted(bare[0], bare[1] or bare[0], argument)]
    if argument == "-":
        return _from_list(_read_descriptor(0, "standard input", open_at_start), "standard input")
    descriptor = named_descriptor(argument)
    if descriptor is not None:
        return _from_list(_read_descriptor(descriptor, argument, open_at_start), argument)
    if _is_pipe(argument):
        return _from_list(_read_file(argument, _MAX_LIST_BYTES), argument)
    if argument.endswith(_SUFFIX):
        return [_from_file(argument)]
    hint = f"did you mean {argument}{_SUFFIX}?" if os.path.exists(argument + _SUFFIX) else ""
    raise Failure(
        Status.MALFORMED_CHECKSUM,
        f"{_short(argument)} is not a checksum; "
        + (
            hint
            or f"give 64 hex digits, a file whose name ends in {_SUFFIX}, or - for a list from "
            "standard input"
        ),
    )


def _from_file(path: str) -> Wanted:
    content = _read_file(path, _MAX_FILE_BYTES)
    lines = [line for _, line in lines_of(content)]
    if len(lines) != 1:
        raise _malformed(
            path, f"expected one line besides blank lines and # comments, found {len(lines)}"
        )
    found = checksum_in(lines[0])
    if found is None:
        raise _malformed(path, f"{_short(lines[0])} is not 64 hex digits")
    name = os.path.basename(path).removesuffix(_SUFFIX)
    return Wanted(found[0], name or found[0], path)


def _from_list(content: bytes, name: str) -> list[Wanted]:
    """Any number of checksums but none; all of them must be right."""
    wanted = []
    for number, line in lines_of(content):
        found = checksum_in(line)
        if found is None:
            raise Failure(
                Status.MALFORMED_CHECKSUM,
                f"line {number} of {name} is not a checksum: {_short(line)}",
            )
        label = found[1] or found[0]
        wanted.append(Wanted(found[0], label, label, is_listed=True))
    if not wanted:
        raise Failure(Status.MALFORMED_CHECKSUM, f"there is no checksum in {name}")
    return wanted


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _read_descriptor(descriptor: int, name: str, open_at_start: frozenset[int]) -> bytes:
    if descriptor not in open_at_start:
        raise Failure(Status.UNREADABLE_FILE, f"cannot read {name}: it is closed")
    try:
        return _bounded(read_all(descriptor, _MAX_LIST_BYTES), name, _MAX_LIST_BYTES)
    except OSError as exc:
        raise _unreadable(name, exc) from exc


def _read_file(path: str, limit: int) -> bytes:
    try:
        with open(path, "rb") as file:
            # Bounded: a large file by this name is a mistake, and must not fill the memory.
            return _bounded(file.read(limit + 1), path, limit)
    except (OSError, ValueError) as exc:
        raise _unreadable(f"the checksum file {path}", exc) from exc


def _bounded(content: bytes, name: str, limit: int) -> bytes:
    if len(content) > limit:
        raise _malformed(name, f"it is longer than {limit} bytes")
    return content


def _unreadable(name: str, error: OSError | ValueError) -> Failure:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return Failure(Status.UNREADABLE_FILE, f"cannot read {name}: {reason}")


def _malformed(path: str, reason: str) -> Failure:
    return Failure(
        Status.MALFORMED_CHECKSUM, f"the checksum file {path} does not hold a checksum: {reason}"
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
