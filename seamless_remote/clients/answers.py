"""What a service says in JSON, as far as it is of the shape that was asked for."""

from __future__ import annotations

import json
from typing import TypeVar

T = TypeVar("T")


def json_of(body: bytes, kind: type[T]) -> T | None:
    """The value of that type that `body` holds; None where it is of another, or no JSON."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):  # the latter for what is nested without end
        return None
    return value if isinstance(value, kind) else None
