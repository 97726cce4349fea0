"""What a service says in JSON, checked for its shape."""

from __future__ import annotations

import json
from typing import TypeVar

T = TypeVar("T")

OK = b"OK"
"""What the services answer when they are well, or have done what was asked."""


def json_of(body: bytes, kind: type[T]) -> T | None:
    """The JSON value in `body` if it is of that type, else None."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):  # the latter for endless nesting
        return None
    return value if isinstance(value, kind) else None
