"""The health of a service, judged from pings and real traffic."""

from __future__ import annotations

import enum
import logging
import math
import threading

logger = logging.getLogger(__name__)

FAILURES_UNTIL_DOWN = 3

FAR = 0.01
"""Seconds for a round trip from which on a service counts as far away."""

FADING = 1.02
"""By how much the shortest round trip grows with each ping that took longer: the network may have
changed."""


class Health(str, enum.Enum):
    """How a service is: `degraded` after a failure, `down` after several in a row."""

    UNKNOWN = "unknown"
    UP = "up"
    DEGRADED = "degraded"
    DOWN = "down"


def judge(failures_in_a_row: int) -> Health:
    """The health after so many failures in a row (0: the last request succeeded)."""
    if failures_in_a_row == 0:
        return Health.UP
    return Health.DEGRADED if failures_in_a_row < FAILURES_UNTIL_DOWN else Health.DOWN


class HealthRecord:
    """The health of one client's service, for calls of any thread. It logs each change once."""

    __slots__ = ("_failures", "_lock", "_quickest", "last_round_trip", "name", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = Health.UNKNOWN
        self.last_round_trip: float | None = None
        self._quickest = math.inf
        self._failures = 0
        self._lock = threading.RLock()

    @property
    def round_trip(self) -> float:
        """The shortest time, of late, in which it has answered a ping, in seconds; 0 if that is not
        known."""
        return 0.0 if self._quickest == math.inf else self._quickest

    @property
    def is_far(self) -> bool:
        """Whether a round trip to the service is known to take `FAR` or longer."""
        return self.round_trip >= FAR

    def success(self, round_trip: float) -> None:
        """The service answered, `round_trip` seconds after it was asked."""
        self.last_round_trip = round_trip
        if self.state is not Health.UP or self._failures:
            with self._lock:
                self._failures = 0
                self._change(Health.UP, f"answered in {round_trip * 1000:.1f} ms")

    def ping(self, round_trip: float) -> None:
        """A ping was answered: nothing took time but the way there and back."""
        self._quickest = min(round_trip, self._quickest * FADING)
        self.success(round_trip)

    def failure(self, reason: object) -> None:
        """The service could not be reached, or broke off."""
        with self._lock:
            self._failures += 1
            self._change(judge(self._failures), str(reason))

    def mark_down(self, reason: str) -> None:
        """The service is given up for now, whatever its last answer was."""
        with self._lock:
            self._failures = FAILURES_UNTIL_DOWN
            self._change(Health.DOWN, reason)

    def _change(self, health: Health, reason: str) -> None:
        if health is self.state:
            return
        worse = health in (Health.DEGRADED, Health.DOWN)
        level = logging.WARNING if worse else logging.INFO
        logger.log(level, "%s: %s -> %s (%s)", self.name, self.state.value, health.value, reason)
        self.state = health
