"""What one soak does: how long, from which seed, on which backend; and within which time limits."""

from __future__ import annotations

import random
from dataclasses import dataclass

BACKENDS = ("asyncio", "trio", "hosted")
"""Where the nursery lives: in a host's loop on either backend, or on a thread of its own."""

TOTAL_TIMEOUT = 15.0
"""Seconds: how long one request may take, retries and launching included."""

HEALTHCHECK_TIMEOUT = 2.0
READ_TIMEOUT = 6.0

TIMEOUTS = {
    "SEAMLESS_REMOTE_CONNECT_TIMEOUT": "4",
    "SEAMLESS_REMOTE_READ_TIMEOUT": f"{READ_TIMEOUT:g}",
    "SEAMLESS_REMOTE_HEALTHCHECK_TIMEOUT": f"{HEALTHCHECK_TIMEOUT:g}",
    "SEAMLESS_REMOTE_TOTAL_TIMEOUT": f"{TOTAL_TIMEOUT:g}",
}
"""The settings of the soak, as environment variables: a jobserver's workers have them, too."""

MALLOC = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}
"""What is freed goes back to the system, so that the process's memory shows what is in use."""

REPEATED_AFTER = 0.3
"""Seconds after which a call may have made its request twice: its nursery's loop stood still, or
the answer did not come in time."""

JOB_PATIENCE = 40.0
"""Seconds after which whoever asked for a job cancels it: a job has no total timeout."""

CANCELLING = 5.0
"""Seconds that a cancelled call may take: the grace period."""

SLACK = 5.0
"""Seconds that a busy machine may take on top of any deadline."""

HEALING = 60.0
"""Seconds after which services that are left in peace are used again, at the latest."""

MEMORY_ALLOWANCE = 15.0
"""Megabytes by which the process may have grown since it was warm."""

SETTING_UP = 90.0
QUIETING = 60.0
CHECKING = 180.0
"""Seconds at most for launching everything, for the calls in progress, for the last checks."""


@dataclass(frozen=True)
class Plan:
    """One soak. `minutes` is the time under load, of which the first part and the last are calm."""

    minutes: float
    seed: int
    backend: str

    @property
    def warm_up(self) -> float:
        """Seconds of undisturbed load before the first measurement."""
        return min(20.0, self.minutes * 60 / 8)

    @property
    def calm(self) -> float:
        """Seconds of undisturbed load at the end, when every call must succeed."""
        return min(15.0, self.minutes * 60 / 8)

    @property
    def disturbed(self) -> float:
        """Seconds of load while services are disturbed."""
        return self.minutes * 60 - self.warm_up - self.calm

    @property
    def hard_stop(self) -> float:
        """Seconds after which everything is killed, whatever it is doing."""
        return self.minutes * 60 + SETTING_UP + HEALING + 2 * QUIETING + CHECKING

    def random(self, name: str) -> random.Random:
        """The draws of one part of the soak, apart from those of the others."""
        return random.Random(f"{self.seed}/{name}")
