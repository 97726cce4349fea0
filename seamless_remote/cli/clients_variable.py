"""SEAMLESS_REMOTE_CLIENTS: services that run already, as JSON in the environment.

seamless-config writes it for the processes that it starts: `{"buffer": [...], "database": [...]}`,
each entry with `remote_url`, `remote_directory` (buffers only) and `readonly`. Its own reader
swallows every mistake in it, so the shape is checked here.
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
    """The clients that the variable's value defines. Failure: it is malformed."""
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise malformed(f"it is not JSON ({exc})") from exc
    if not isinstance(value, dict):
        raise malformed(f"it is a JSON {_kind(value)}, not an object")
    for key in value:
        if key not in _SERVICES:
            raise malformed(f"{key!r} is not one of {', '.join(_SERVICES)}")
    for service in _SERVICES:
        entries = value.get(service, [])
        if not isinstance(entries, list):
            raise malformed(f"{service!r} is a {_kind(entries)}, not a list")
        for number, entry in enumerate(entries):
            _check_entry(service, f"{service}[{number}]", entry)
    if not value.get("buffer"):
        raise malformed("it names no buffer client, so there is nowhere to look")
    return value


def malformed(reason: str) -> Failure:
    """The failure that says what is wrong with the variable."""
    return Failure(
        Status.CONFIGURATION,
        f"{NAME} is malformed: {reason}; unset it, or set it to something like "
        '{"buffer": [{"remote_url": "http://HOST:PORT"}]}',
    )


def _check_entry(service: str, where: str, entry: object) -> None:
    if not isinstance(entry, dict):
        raise malformed(f"{where} is a {_kind(entry)}, not an object")
    keys = _KEYS[service]
    if all(entry.get(key) is None for key in keys):
        raise malformed(f"{where} has no {' and no '.join(keys)}")
    for key in keys:
        value = entry.get(key)
        if value is not None and not (isinstance(value, str) and value):
            raise malformed(f"{key} of {where} is {json.dumps(value)}, not a text")
    if not isinstance(entry.get("readonly", True), bool):
        raise malformed(f"readonly of {where} is neither true nor false")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {bool: "boolean", str: "string", list: "list", dict: "object"}
    return kinds.get(type(value), "number")
