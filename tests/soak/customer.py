"""A customer: one user of the services, who does one thing after the other, in whatever loop."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from possible_result import PossibleResult

from .ledger import Ledger
from .tally import Tally

TRANSFORMATIONS = 3
RESULTS = 3


MOST_UNKNOWN = 4
"""Where it is unknown of more changes whether they are made, another transformation is taken."""


class Changing:
    """A transformation whose result is changed again and again."""

    def __init__(self, transformation: str) -> None:
        self.transformation = transformation
        self.result = PossibleResult[str]()


@dataclass
class Customer:
    """`archive` has the checksums of buffers that are at the archive, an extern hashserver."""

    name: str
    draw: random.Random
    tally: Tally
    ledger: Ledger
    archive: Sequence[str]
    results: list[str] = field(default_factory=list)
    changing: list[Changing] = field(default_factory=list)
    jobs: int = 0

    def __post_init__(self) -> None:
        self.results = [self.draw.randbytes(32).hex() for _ in range(RESULTS)]
        self.changing = [self._new_changing() for _ in range(TRANSFORMATIONS)]

    def one_changing(self) -> Changing:
        """One of the transformations whose results change."""
        number = self.draw.randrange(TRANSFORMATIONS)
        if self.changing[number].result.unknown() > MOST_UNKNOWN:
            self._conclude(self.changing[number])
            self.changing[number] = self._new_changing()
        return self.changing[number]

    def conclude(self) -> None:
        """Write into the ledger what the transformations whose results change may have now."""
        for changing in self.changing:
            self._conclude(changing)

    def _conclude(self, changing: Changing) -> None:
        self.ledger.results(changing.transformation, changing.result.values())

    def _new_changing(self) -> Changing:
        return Changing(self.draw.randbytes(32).hex())
