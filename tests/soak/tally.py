"""What has been called, and how it ended: counts, calls in progress, and broken promises."""

from __future__ import annotations

import enum
import itertools
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from seamless_remote.errors import RemoteError

from .plan import SLACK

MOST_VIOLATIONS = 50
"""So many are told in full; the rest is counted."""


class Phase(enum.Enum):
    """How far a soak is. Errors are to be expected where services are not left in peace."""

    SETTING_UP = "setting up"
    WARMING_UP = "warming up"
    MEASURING = "measuring"
    DISTURBED = "disturbed"
    HEALING = "healing"
    CALM = "calm"
    ENDING = "ending"


CALM_PHASES = (Phase.WARMING_UP, Phase.CALM)

CANCELLED = "cancelled by the caller"


class Unfulfilled(Exception):
    """Nothing came of a call. That breaks no promise, unless the services are left in peace."""


class BrokenPromise(Exception):
    """A call that ended as it must not: a wrong value, or something confirmed that is gone."""


@dataclass
class Call:
    """One operation in progress. `deadline` is in seconds from its start."""

    kind: str
    caller: str
    deadline: float
    started: float
    calm: bool
    outcome: str = "done"
    reported: bool = False

    def age(self) -> float:
        return time.monotonic() - self.started

    def __str__(self) -> str:
        return f"{self.kind!r} by {self.caller}, {self.age():.1f} of {self.deadline:g} s"


class Tally:
    """Counts for all callers and threads."""

    def __init__(self) -> None:
        self.phase = Phase.SETTING_UP
        self.operations: Counter[str] = Counter()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.confirmed: Counter[str] = Counter()
        self.disturbances: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()
        self.longest: dict[str, float] = {}
        self.violations: list[str] = []
        self.more_violations = 0
        self.last_error = ""
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    @contextmanager
    def call(self, kind: str, caller: str, deadline: float) -> Iterator[Call]:
        """One call, from its begin to its end: counted, and held to its deadline.

        A typed error is an outcome; unless the services are left in peace, it breaks no promise.
        """
        call = Call(kind, caller, deadline, time.monotonic(), self.phase in CALM_PHASES)
        number = next(self._numbers)
        self._calls[number] = call
        try:
            yield call
        except (RemoteError, Unfulfilled) as exc:
            call.outcome = type(exc).__name__
            self.last_error = f"{kind}: {call.outcome}: {exc}"
            if call.calm:
                self.violation(f"{call}: failed though nothing was disturbed: {exc!r}")
        except BrokenPromise as exc:
            call.outcome = "broken promise"
            self.violation(f"{call}: {exc}")
        except Exception:
            call.outcome = "untyped error"
            self.violation(f"{call}: an error of no type of ours\n{traceback.format_exc()}")
        finally:
            del self._calls[number]
            self._ended(call)

    def in_progress(self) -> list[Call]:
        """The calls that have not ended yet, the oldest first."""
        return sorted(self._calls.values(), key=lambda call: call.started)

    def overdue(self) -> list[Call]:
        """The calls that should have ended by now and were not in this list before."""
        late = []
        for call in self.in_progress():
            if call.age() > call.deadline + SLACK and not call.reported:
                call.reported = True
                late.append(call)
        return late

    def confirm(self, kind: str) -> None:
        with self._lock:
            self.confirmed[kind] += 1

    def launched(self, what: str) -> None:
        with self._lock:
            self.launches[what] += 1

    def disturbed(self, what: str) -> None:
        with self._lock:
            self.disturbances[what] += 1

    def violation(self, text: str) -> None:
        """A promise was broken: the soak fails, and goes on to see what else there is."""
        with self._lock:
            if len(self.violations) < MOST_VIOLATIONS:
                self.violations.append(f"[{self.phase.value}] {text}")
            else:
                self.more_violations += 1

    def _ended(self, call: Call) -> None:
        took = call.age()
        if took > call.deadline + SLACK and not call.reported:
            self.violation(f"{call}: it took {took:.1f} s")
        with self._lock:
            self.operations[call.kind] += 1
            self.outcomes[call.kind, call.outcome] += 1
            self.longest[call.kind] = max(self.longest.get(call.kind, 0.0), took)
