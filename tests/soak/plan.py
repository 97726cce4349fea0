"""What one soak does: how long, from which seed, on which backend; and within which time limits."""

from __future__ import annotations

import random
from dataclasses import dataclass

BACKENDS = ("asyncio", "trio", "hosted")
"""Where the nursery lives: in a host's loop on either backend, or on a thread of its own."""

# In seconds.
TOTAL_TIMEOUT = 15.0  # one request, retries and launching included
HEALTHCHECK_TIMEOUT = 2.0
READ_TIMEOUT = 6.0
REPEATED_AFTER = 0.3  # a call that took so long may have sent its request twice
JOB_PATIENCE = 40.0  # then its caller cancels a job, which has no total timeout
CANCELLING = 5.0  # a cancelled call: the grace period
SLACK = 5.0  # a busy machine, on top of any deadline
SETTING_UP = 90.0  # at most, for launching everything
HEALING = 60.0  # at most, until everything works once the services are left in peace
QUIETING = 60.0  # at most, until the calls in progress have ended
CHECKING = 180.0  # at most, for the last checks

MEMORY_ALLOWANCE = 15
"""Megabytes by which the process may have grown since it was warm."""

ENVIRONMENT = {
    "SEAMLESS_REMOTE_CONNECT_TIMEOUT": "4",
    "SEAMLESS_REMOTE_READ_TIMEOUT": f"{READ_TIMEOUT:g}",
    "SEAMLESS_REMOTE_HEALTHCHECK_TIMEOUT": f"{HEALTHCHECK_TIMEOUT:g}",
    "SEAMLESS_REMOTE_TOTAL_TIMEOUT": f"{TOTAL_TIMEOUT:g}",
    # Give freed memory back to the system, so that the process's size shows what is in use.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}


@dataclass(frozen=True)
class Plan:
    """One soak. `minutes` is the time under load."""

    minutes: float
    seed: int
    backend: str

    @property
    def calm(self) -> float:
        """Seconds of undisturbed load at either end, when every call must succeed."""
        return min(15.0, self.minutes * 60 / 8)

    @property
    def disturbed(self) -> float:
        """Seconds of load while services are disturbed."""
        return self.minutes * 60 - 2 * self.calm

    @property
    def hard_stop(self) -> float:
        """Seconds after which everything is killed, whatever it is doing."""
        return self.minutes * 60 + SETTING_UP + HEALING + 2 * QUIETING + CHECKING

    def random(self, name: str) -> random.Random:
        """The draws of one part of the soak, independent of those of the others."""
        return random.Random(f"{self.seed}/{name}")
