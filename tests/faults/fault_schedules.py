"""What the property tests draw: operations with faults, and the model they are checked against."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

from fault_proxy import Fault, Harm, Toward
from hypothesis import strategies as st
from possible_result import PossibleResult
from seamless import Checksum

CONTENTS = 4
SIZES = (0, 1, 300, 70_000, 700_000)
TRANSFORMATIONS = 3
RESULTS = 3


@dataclass(frozen=True)
class Step:
    """An operation on one of the drawn buffers or transformations, and what befalls it.

    `together` operations are made at once, on this and the following subjects. `refused` closes the
    door of both services meanwhile; `buffer_fault` and `database_fault` are put in force before.
    """

    operation: str
    subject: int
    result: int
    together: int
    refused: bool
    buffer_fault: Fault | None
    database_fault: Fault | None


def faults() -> st.SearchStrategy[Fault]:
    """Every harm, in both directions, in heads as well as in bodies."""
    return st.builds(
        Fault,
        harm=st.sampled_from(Harm),
        toward=st.sampled_from(Toward),
        at=st.one_of(st.integers(0, 250), st.integers(250, 100_000)),
        times=st.integers(1, 4),
        seconds=st.sampled_from([0.001, 0.02]),
        step=st.sampled_from([50, 30_000]),
    )


OPERATIONS = ("write", "get", "lengths", "promise", "set", "look up", "reverse", "undo")


def schedules() -> st.SearchStrategy[list[Step]]:
    """A few operations one after the other."""
    some_faults = st.one_of(st.none(), faults())
    step = st.builds(
        Step,
        operation=st.sampled_from(OPERATIONS),
        subject=st.integers(0, 3),
        result=st.integers(0, RESULTS - 1),
        together=st.sampled_from([1, 1, 3]),
        refused=st.sampled_from([False] * 5 + [True]),
        buffer_fault=some_faults,
        database_fault=some_faults,
    )
    return st.lists(step, min_size=1, max_size=8)


@dataclass
class Model:
    """What must be so at the services, and what may be: an operation that failed may have acted.

    Each schedule has buffers and transformations of its own, marked by `number`.
    """

    number: int
    written: set[int] = field(default_factory=set)
    maybe_written: set[int] = field(default_factory=set)
    results: dict[int, PossibleResult[int]] = field(default_factory=dict)

    def content(self, subject: int) -> bytes:
        size = SIZES[(subject + self.number) % len(SIZES)]
        mark = b"%d %d %d;" % (os.getpid(), self.number, subject)
        return (mark * (size // len(mark) + 1))[:size] if size > 20 else mark[:size] + mark

    def checksum(self, subject: int) -> Checksum:
        return Checksum(hashlib.sha256(self.content(subject)).hexdigest())

    def tf(self, subject: int) -> Checksum:
        return self._named("tf", subject % TRANSFORMATIONS)

    def result(self, number: int) -> Checksum:
        return self._named("result", number)

    def _named(self, what: str, number: int) -> Checksum:
        text = f"{what} {number} of {self.number} in {os.getpid()}"
        return Checksum(hashlib.sha256(text.encode()).hexdigest())

    def result_of(self, subject: int) -> PossibleResult[int]:
        """What a transformation may have for a result, by its number."""
        return self.results.setdefault(subject % TRANSFORMATIONS, PossibleResult())

    def fault_of_buffer(self, subject: int, found: Any) -> str | None:
        """What is wrong with the bytes that came for a buffer, or with none having come."""
        if found is None:
            return "a written buffer is gone" if subject in self.written else None
        if found != self.content(subject):
            return "these bytes were never written"
        return None if subject in self.written | self.maybe_written else "nobody wrote it"
