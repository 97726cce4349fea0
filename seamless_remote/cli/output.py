"""The value of `--output`: which destination each buffer has."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence

from .checksum_argument import Wanted
from .descriptors import named_descriptor
from .destination import Destination
from .file_destination import FileDestination
from .statuses import Failure, Status
from .stream_destination import Stream, StreamDestination

_PLACEHOLDERS = ("{checksum}", "{name}")


def destinations_for(
    output: str | None,
    wanted: Sequence[Wanted],
    *,
    standard_output: int | None,
    open_at_start: frozenset[int],
    in_place: bool,
) -> list[Destination]:
    """The destination of each wanted buffer, in their order.

    `standard_output` is the descriptor of standard output, None if it is closed. Several buffers go
    into a folder, which is made if there is none of that name, or where a pattern says.

    Failure if that cannot be: two buffers would go to one file, or the output is a folder where a
    file is needed or the other way round, or a descriptor that cannot be written.
    """
    stream = _stream(output, standard_output, open_at_start)
    if stream is not None:
        return [StreamDestination(stream) for _ in wanted]
    assert output is not None
    if any(each in output for each in _PLACEHOLDERS):
        names = [_filled(output, each) for each in wanted]
    elif len(wanted) > 1 or (wanted[0].is_listed and _is_folder(output)):
        _require_folder(output)
        names = [os.path.join(output, each.name) for each in wanted]
    else:
        names = [output]
    _refuse_clashes(names, wanted)
    for name in names:
        if _is_folder(name):
            raise _unwritable(name, "it is a folder; give the path of a file")
    return [FileDestination(name, in_place=in_place) for name in names]


def _stream(
    output: str | None, standard_output: int | None, open_at_start: frozenset[int]
) -> Stream | None:
    """The stream that the output is; None for files."""
    if output is None or output == "-":
        return _standard(standard_output, refuse_binary=output is None)
    if not output:
        raise Failure(Status.UNWRITABLE_OUTPUT, "cannot write the output: the file name is empty")
    descriptor = named_descriptor(output)
    if descriptor == 1:
        return _standard(standard_output, refuse_binary=False)
    if descriptor is not None:
        if descriptor not in open_at_start:
            raise _unwritable(output, f"descriptor {descriptor} is not open")
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise _unwritable(output, f"descriptor {descriptor} is open for reading only")
        return Stream(output, descriptor, refuse_binary=False)
    if os.path.exists(output) and not os.path.isfile(output) and not _is_folder(output):
        return Stream(output, None, refuse_binary=False)
    return None


def _standard(descriptor: int | None, *, refuse_binary: bool) -> Stream:
    if descriptor is None:
        raise Failure(Status.UNWRITABLE_OUTPUT, "standard output is closed; use --output FILE")
    return Stream("standard output", descriptor, refuse_binary=refuse_binary)


def _filled(pattern: str, wanted: Wanted) -> str:
    # The name last: it may have braces of its own.
    return pattern.replace("{checksum}", wanted.checksum).replace("{name}", wanted.name)


def _is_folder(path: str) -> bool:
    return path.endswith(os.sep) or os.path.isdir(path)


def _require_folder(path: str) -> None:
    """Make a folder if there is nothing by this name."""
    try:
        os.mkdir(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise _unwritable(
                path,
                "it is a file; for several buffers give a folder, or a pattern with {checksum} or "
                "{name}",
            ) from None
    except OSError as exc:
        raise _unwritable(path, f"this folder cannot be made: {exc.strerror}") from exc


def _refuse_clashes(names: Sequence[str], wanted: Sequence[Wanted]) -> None:
    checksums: dict[str, str] = {}
    for name, each in zip(names, wanted, strict=True):
        other = checksums.setdefault(name, each.checksum)
        if other != each.checksum:
            raise _unwritable(
                name,
                f"both {other} and {each.checksum} would go there; use {{checksum}} in a pattern",
            )


def _unwritable(name: str, reason: str) -> Failure:
    return Failure(Status.UNWRITABLE_OUTPUT, f"cannot write {name}: {reason}")
