"""A customer: one user of the services, who does one thing after the other, in whatever loop."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from possible_result import PossibleResult

from .ledger import NOTHING, Ledger
from .tally import Tally

TRANSFORMATIONS = 3
RESULTS = 3
MOST_UNKNOWN = 4  # changes of a transformation that may or may not be made, before it is replaced


class Changing(PossibleResult[str]):
    """What a transformation has for a result, which is changed again and again."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self.transformation = draw.randbytes(32).hex()


@dataclass
class Customer:
    """`archive` has the checksums of the buffers at the archive, an extern hashserver."""

    name: str
    draw: random.Random
    tally: Tally
    ledger: Ledger
    archive: Sequence[str]
    jobs: int = 0

    def __post_init__(self) -> None:
        self.results = [self.draw.randbytes(32).hex() for _ in range(RESULTS)]
        self._changing = [Changing(self.draw) for _ in range(TRANSFORMATIONS)]

    def one_changing(self) -> Changing:
        """One of the transformations whose results change."""
        number = self.draw.randrange(TRANSFORMATIONS)
        if self._changing[number].unknown() > MOST_UNKNOWN:
            self._conclude(self._changing[number])
            self._changing[number] = Changing(self.draw)
        return self._changing[number]

    def conclude(self) -> None:
        """Write into the ledger what the transformations whose results change may have now."""
        for changing in self._changing:
            self._conclude(changing)

    def _conclude(self, changing: Changing) -> None:
        values = [value or NOTHING for value in changing.values()]
        self.ledger.note("result", changing.transformation, *values)
