"""What a transformation may have for a result, where not all that became of its changes is known.

The drawn schedules of faults and the soak both hold the database to this.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class PossibleResult(Generic[T]):
    """The result of one transformation, changed by one caller, one change after the other.

    A change of which nothing is known (it failed, or was cancelled) stays possible for good: its
    request may be waiting in a stopped service, or on a slow line, and be carried out after later
    ones. The same holds for a confirmed change that took so long that it may have been asked for
    twice. None stands for no result.
    """

    def __init__(self) -> None:
        self._known: T | None = None
        self._unknown: list[T | None] = []

    def values(self) -> list[T | None]:
        """Everything that the result may be."""
        return list(dict.fromkeys([self._known, *self._unknown]))

    def unknown(self) -> int:
        """How many changes may still be made."""
        return len(self._unknown)

    def begin(self, value: T | None) -> None:
        """A change to `value` is on its way."""
        self._unknown.append(value)

    def confirm(self, value: T | None, *, repeated: bool) -> None:
        """That change is made; `repeated`: it may have been asked for more than once."""
        self._known = value
        if not repeated:
            self._unknown.remove(value)

    def refuse(self, value: T | None) -> None:
        """That change is not made, and will not be."""
        self._unknown.remove(value)
