"""What callers give besides checksums, looked at before anything of it is sent."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

_SHOWN = 100


def shown(value: object) -> str:
    """A value as it stands in an error message: at most 100 characters."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def text_of(what: str, value: str) -> str:
    """`value`, where it is text that can be sent. TypeError or ValueError, naming it, otherwise."""
    if not isinstance(value, str):
        raise TypeError(f"{what} must be text, not {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise ValueError(f"{what} {shown(value)} cannot be sent: {exc}") from None
    return value


def name_of(what: str, value: str) -> str:
    """`value`, where it is text, and not empty. TypeError or ValueError, naming it, otherwise."""
    if not text_of(what, value):
        raise ValueError(f"{what} cannot be {value!r}")
    return value


def path_of(what: str, value: str | os.PathLike[str]) -> str:
    """`value` as a path of a file system. TypeError or ValueError, naming it, otherwise."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if "\0" in name_of(what, path):
        raise ValueError(f"{what} cannot be {shown(path)}")
    return path


def json_object_of(what: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """`value` as a dict that JSON can hold. TypeError or ValueError, naming it, otherwise."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be a mapping, not {shown(value)}")
    made = dict(value)
    try:
        json.dumps(made, ensure_ascii=False).encode()
    except TypeError as exc:
        raise TypeError(f"{what} {shown(value)} is not for JSON: {exc}") from None
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"{what} {shown(value)} is not for JSON: {exc}") from None
    return made
