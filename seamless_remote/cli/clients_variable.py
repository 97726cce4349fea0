"""Parses SEAMLESS_REMOTE_CLIENTS: running services, as JSON in the environment.

seamless-config sets the variable for the processes it starts, to `{"buffer": [...], "database":
[...]}`. An entry has `remote_url`, `remote_directory` (buffers only) and `readonly`. The reader in
seamless-config ignores a malformed value; the tools report it.
"""

from __future__ import annotations

import json
from typing import Any

from .statuses import Failure, Status

NAME = "SEAMLESS_REMOTE_CLIENTS"

_SERVICES = ("buffer", "database")
_KEYS = {
    "buffer": ("remote_url", "remote_directory"),
    "database": ("remote_url",),
}


def parse_clients(text: str) -> dict[str, list[dict[str, Any]]]:
    """Parse the value of the variable. Failure if it is malformed."""
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise malformed(f"it is not JSON ({exc})") from exc
    except RecursionError as exc:
        raise malformed("it is nested too deeply") from exc
    if not isinstance(value, dict):
        raise malformed(f"it is {_kind(value)}, not an object")
    for key in value:
        if key not in _SERVICES:
            raise malformed(f"{key!r} is not one of {', '.join(_SERVICES)}")
    for service in _SERVICES:
        entries = value.get(service, [])
        if not isinstance(entries, list):
            raise malformed(f"{service!r} is {_kind(entries)}, not a list")
        for number, entry in enumerate(entries):
            _check_entry(service, f"{service}[{number}]", entry)
    if not value.get("buffer"):
        raise malformed("it lists no buffer client, so there is nowhere to look")
    return value


def malformed(reason: str) -> Failure:
    """A failure for a malformed value, with a hint."""
    return Failure(
        Status.CONFIGURATION,
        f"{NAME} is malformed: {reason}; unset it, or set it to a value such as "
        '{"buffer": [{"remote_url": "http://HOST:PORT"}]}',
    )


def _check_entry(service: str, path: str, entry: object) -> None:
    if not isinstance(entry, dict):
        raise malformed(f"{path} is {_kind(entry)}, not an object")
    keys = _KEYS[service]
    if all(entry.get(key) is None for key in keys):
        raise malformed(f"{path} has no {' and no '.join(keys)}")
    for key in keys:
        value = entry.get(key)
        if value is not None and not (isinstance(value, str) and value):
            raise malformed(f"{key} of {path} is {json.dumps(value)}, not a non-empty string")
    if not isinstance(entry.get("readonly", True), bool):
        raise malformed(f"readonly of {path} is not true or false")


def _kind(value: object) -> str:
    """The JSON type of a value, with its article."""
    if value is None:
        return "null"
    kinds = {bool: "a boolean", str: "a string", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")
