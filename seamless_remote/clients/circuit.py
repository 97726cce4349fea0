"""Whether a service is worth asking: after repeated failures single probes find that out.

Decisions only: the clock is the caller's, and so are the probes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from ..errors import ServiceError
from . import retry_policy

OPENS_AFTER = 10
"""So many failures in a row, of whatever calls, open the circuit."""

PROBE_BASE = 0.25
LONGEST_PROBE_PAUSE = 1.0
"""Seconds between two probes: at most the base at first, twice as much each time, up to a cap."""

PROBE_LEASE = 2.0
"""Seconds after which somebody else may probe as well, if the first one has not reported: its loop
may stand still."""


class CircuitOpenError(ServiceError):
    """A request was not sent: the circuit opened while it waited for its turn."""


class Circuit:
    """Closed, requests pass; open, none does, but for one probe at a time. For calls of any thread.

    - closed: `failure` counts, `success` starts the count anew; after `OPENS_AFTER` failures in a
      row the circuit is open.
    - open: `may_probe` is true for one caller each time a probe is due. That caller asks the
      service for its health, and reports by `probed`.
    - closed on trial, after a probe that was answered: the next failure opens it again, with the
      pauses between probes as long as they had become; the next success closes it for good.

    A success of a request sent earlier also closes it. A retired circuit stays open for good.
    """

    __slots__ = (
        "_failures",
        "_lock",
        "_opened_at",
        "_probe_at",
        "_probes",
        "_retired",
        "last_failure",
    )

    def __init__(self) -> None:
        self._failures = 0
        self._probes = 0
        self._probe_at = math.inf
        self._opened_at: float | None = None
        self._retired = False
        self._lock = threading.RLock()
        self.last_failure = ""

    @property
    def is_open(self) -> bool:
        """Whether requests have to wait for a probe."""
        return self._opened_at is not None

    def require_closed(self) -> None:
        """CircuitOpenError if it is open: for a request that has waited since it was let pass."""
        if self._opened_at is not None:
            raise CircuitOpenError(f"circuit open; last failure: {self.last_failure}")

    def open_for(self, now: float) -> float:
        """For how many seconds it has been open."""
        opened_at = self._opened_at
        return 0.0 if opened_at is None else now - opened_at

    def success(self) -> bool:
        """A request was answered. True if that closes the circuit."""
        if not self._failures and not self._probes and self._opened_at is None:
            return False
        with self._lock:
            self._failures = self._probes = 0
            return self._close()

    def failure(self, now: float, reason: object, random: Callable[[], float]) -> bool:
        """A request failed in a way that may pass. True if that opens the circuit."""
        with self._lock:
            self._failures += 1
            self.last_failure = str(reason)
            if self.is_open or self._failures < OPENS_AFTER:
                return False
            self._opened_at = now
            self._await_probe(now, random)
            return True

    def may_probe(self, now: float) -> bool:
        """Whether the caller is the one who probes now, and reports by `probed`."""
        with self._lock:
            if not self.is_open or self._retired or now < self._probe_at:
                return False
            self._probe_at = now + PROBE_LEASE
            return True

    def probed(self, now: float, answered: bool | None, random: Callable[[], float]) -> bool:
        """Report on a probe; None: it was cancelled, and is due again. True if that closes it."""
        with self._lock:
            if not self.is_open or self._retired:
                return False
            if answered:
                self._failures = OPENS_AFTER - 1
                return self._close()
            if answered is None:
                self._probe_at = now
            else:
                self._await_probe(now, random)
            return False

    def retire(self, now: float) -> None:
        """The service will not come back there: what waits for its turn has to look elsewhere."""
        with self._lock:
            self._retired = True
            self._opened_at = now
            self._probe_at = math.inf

    def _await_probe(self, now: float, random: Callable[[], float]) -> None:
        self._probes += 1
        self._probe_at = now + retry_policy.pause(
            self._probes, random, base=PROBE_BASE, cap=LONGEST_PROBE_PAUSE
        )

    def _close(self) -> bool:
        if not self.is_open or self._retired:
            return False
        self._opened_at = None
        return True
