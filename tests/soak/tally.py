"""What has been called, and how it ended: counts, calls in progress, and broken promises."""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from seamless_remote.errors import RemoteError

from .plan import SLACK

MOST_TOLD = 50  # broken promises in the report
DONE = "done"
CANCELLED = "cancelled by the caller"


class Unfulfilled(Exception):
    """Nothing came of a call. That breaks no promise, unless the services are left in peace."""


class BrokenPromise(Exception):
    """A call that ended as it must not: a wrong value, or something confirmed that is gone."""


@dataclass(eq=False)
class Call:
    """One operation in progress. `deadline` is in seconds from its start."""

    kind: str
    caller: str
    deadline: float
    started: float
    outcome: str = DONE
    reported: bool = False

    def age(self) -> float:
        return time.monotonic() - self.started

    def __str__(self) -> str:
        return f"{self.kind!r} by {self.caller}, {self.age():.1f} of {self.deadline:g} s"


def told(counts: Mapping[str, int]) -> str:
    """A count of each thing, in words."""
    return ", ".join(f"{count} {what}" for what, count in counts.items()) or "none"


class Tally:
    """Counts for all callers and threads. `calm`: no service is harmed, so no call may fail."""

    def __init__(self) -> None:
        self.phase = "setting up"
        self.calm = False
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.longest: dict[str, float] = {}
        self.violations: list[str] = []
        self.last_error = ""
        self._calls: set[Call] = set()
        self._lock = threading.Lock()

    @contextmanager
    def call(self, kind: str, caller: str, deadline: float) -> Iterator[Call]:
        """One call, from its begin to its end: counted, and held to its deadline.

        A typed error is an outcome; unless all is calm, it breaks no promise.
        """
        call, calm = Call(kind, caller, deadline, time.monotonic()), self.calm
        self._calls.add(call)
        try:
            yield call
        except (RemoteError, Unfulfilled) as exc:
            call.outcome = type(exc).__name__
            self.last_error = f"{kind}: {call.outcome}: {exc}"
            if calm:
                self.violation(f"{call}: failed though nothing was disturbed: {exc!r}")
        except BrokenPromise as exc:
            call.outcome = "broken promise"
            self.violation(f"{call}: {exc}")
        except Exception:
            call.outcome = "untyped error"
            self.violation(f"{call}: an error of no type of ours\n{traceback.format_exc()}")
        finally:
            self._calls.discard(call)
            self._report_late(call)
            with self._lock:
                self.outcomes[call.kind, call.outcome] += 1
                self.longest[call.kind] = max(self.longest.get(call.kind, 0.0), call.age())

    def in_progress(self) -> list[Call]:
        """The calls that have not ended yet, the oldest first."""
        return sorted(self._calls.copy(), key=lambda call: call.started)

    def report_overdue(self) -> bool:
        """Count as a violation each call that should have ended by now; whether there is one."""
        late = [call for call in self.in_progress() if self._report_late(call)]
        return bool(late)

    def violation(self, text: str) -> None:
        """A promise was broken: the soak fails, and goes on to see what else there is."""
        self.violations.append(f"[{self.phase}] {text}")

    def _report_late(self, call: Call) -> bool:
        """Once, whether it is still in progress or ends late."""
        if call.reported or call.age() <= call.deadline + SLACK:
            return False
        call.reported = True
        self.violation(f"{call}: too late")
        return True


def report(
    tally: Tally,
    happened: Counter[str],
    found: Counter[str],
    begin: Mapping[str, int],
    end: Mapping[str, int],
) -> str:
    """What was done, what came of it, and what the process held at the begin and the end."""
    held = ", ".join(f"{before} / {end[what]} {what}" for what, before in begin.items())
    return "\n".join(
        [
            *_operations(tally),
            "",
            f"{tally.outcomes.total()} calls; confirmed, and found afterwards: {told(found)}",
            f"disturbances: {told(dict(happened.most_common()))}",
            f"held at rest, at the beginning / at the end: {held}",
            "",
            *(f"BROKEN: {text}" for text in tally.violations[:MOST_TOLD]),
            f"FAILED: {len(tally.violations)} broken promises" if tally.violations else "PASSED",
        ]
    )


def _operations(tally: Tally) -> list[str]:
    """A row for each kind of operation, with its errors by type."""
    kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (kind, outcome), count in tally.outcomes.items():
        kinds[kind][outcome] = count
    rows = [f"{'operation':26}{'calls':>7}{'done':>7}{'longest':>9}  otherwise"]
    for kind, outcomes in sorted(kinds.items(), key=lambda item: -item[1].total()):
        calls, done = outcomes.total(), outcomes.pop(DONE, 0)
        longest = f"{tally.longest[kind]:.1f} s"
        others = told(dict(outcomes.most_common())) if outcomes else ""
        rows.append(f"{kind:26}{calls:7}{done:7}{longest:>9}  {others}")
    return rows
