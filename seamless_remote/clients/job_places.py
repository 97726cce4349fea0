"""How many jobs a process may have in flight: each holds a connection for as long as it takes."""

from __future__ import annotations

from ..settings import Settings
from ..transport.own_limits import descriptor_limit

ROOM = 256
"""Descriptors that are left to the program and to short requests; half of them where the limit is
low."""

MOST_PLACES = 1000
"""Jobs in flight in one process, if no setting names another number: a jobserver has 1,024
descriptors itself as a rule, and what it does not run at once waits there no better than here."""


def job_places(settings: Settings) -> int:
    """As many as the settings name; else what the limit on descriptors leaves room for, now."""
    limit = descriptor_limit()
    return settings.max_jobs or max(1, min(limit - min(limit // 2, ROOM), MOST_PLACES))
