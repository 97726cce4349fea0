"""Checks of callers' arguments other than checksums, made before anything is sent.

Each check returns the valid value. It raises TypeError or ValueError with a message that starts
with `what`, the caller's name for the argument, and shows the value.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

_SHOWN = 100


def shown(value: object) -> str:
    """The `repr` of a value for an error message, shortened to 100 characters."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def text_of(what: str, value: str) -> str:
    """Check that `value` is a string that UTF-8 can encode."""
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a string, not {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise ValueError(f"{what} {shown(value)} cannot be encoded as UTF-8: {exc}") from None
    return value


def name_of(what: str, value: str) -> str:
    """Check that `value` is a string as for `text_of`, and not empty."""
    if not text_of(what, value):
        raise ValueError(f"{what} must not be empty, got {value!r}")
    return value


def path_of(what: str, value: str | os.PathLike[str]) -> str:
    """Check that `value` is a non-empty file system path, and return it as a string."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if "\0" in name_of(what, path):
        raise ValueError(f"{what} must not contain a NUL character, got {shown(path)}")
    return path


def json_object_of(what: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Check that `value` is a mapping that JSON can represent, and return it as a dict."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be a mapping, not {shown(value)}")
    made = dict(value)
    try:
        # json.dumps accepts lone surrogates; encoding the text to UTF-8 rejects them.
        json.dumps(made, ensure_ascii=False).encode()
    except TypeError as exc:
        raise TypeError(f"{what} {shown(value)} cannot be written as JSON: {exc}") from None
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"{what} {shown(value)} cannot be written as JSON: {exc}") from None
    return made
