"""How many jobs a process may have in flight: each holds a connection for as long as it takes."""

from __future__ import annotations

import errno
import math
import os
import time

from ..settings import Settings
from ..transport.own_limits import descriptor_limit

ROOM = 256
"""Descriptors that are left to the program and to short requests; half of them where the limit is
low. A program that has more than half of that room in use is left more."""

MOST_PLACES = 1000
"""Jobs in flight in one process, if no setting names another number: a jobserver has 1,024
descriptors itself as a rule, and what it does not run at once waits there no better than here."""

COUNT_INTERVAL = 1.0
"""Seconds between two counts of the descriptors in use, at least."""

_counted_at = -math.inf
_others = 0


def job_places(settings: Settings, in_flight: int) -> int:
    """As many as the settings name; else what the limit on descriptors leaves room for, now.

    `in_flight` is how many jobs hold a connection already.
    """
    if settings.max_jobs:
        return settings.max_jobs
    limit = descriptor_limit()
    room = min(limit // 2, ROOM)
    taken = max(room, _used_otherwise(in_flight) + room // 2)
    return max(1, min(limit - taken, MOST_PLACES))


def _used_otherwise(in_flight: int) -> int:
    """How many descriptors are open beside those of jobs; 0 where that cannot be known."""
    global _counted_at, _others
    now = time.monotonic()
    if now - _counted_at >= COUNT_INTERVAL:
        _counted_at = now
        try:
            _others = max(0, len(os.listdir("/dev/fd")) - in_flight)
        except OSError as exc:
            # To count them takes one.
            _others = descriptor_limit() if exc.errno == errno.EMFILE else 0
    return _others
