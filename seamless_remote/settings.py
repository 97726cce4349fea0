"""The package's settings: a frozen, typed object, read from the environment.

A malformed variable never raises: it is logged, and the default is used.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

logger = logging.getLogger(__name__)

_NO_TIMEOUT = ("none", "off", "false", "")
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Timeouts, bounds and switches. Times are in seconds; a timeout of None means no timeout.

    Each of the first eleven fields has an environment variable (see `from_environment`). The others
    can only be set by a host that passes its own settings to `open_nursery`.
    """

    connect_timeout: float | None = 10.0
    """To establish one connection."""
    read_timeout: float | None = 1200.0
    """How long a service may stay silent during a request. Long, because a hashserver hashes the
    whole file before it sends the first byte."""
    total_timeout: float | None = None
    """One call to one service, retries included."""
    healthcheck_timeout: float | None = 10.0
    """One ping."""
    launch_timeout: float | None = 300.0
    """The launch of one service."""
    database_max_inflight: int = 30
    """Database requests in flight at once in this process; 0 means unbounded."""
    max_jobs: int = 0
    """Jobs in flight at once in this process; 0: as many as its limit on descriptors leaves room
    for (see `clients.job_places`)."""
    allow_in_worker: bool = False
    """Allow remote clients in Seamless worker processes."""
    debug_database: bool = False
    """Log at level DEBUG what `database_remote` does."""
    debug_connections: bool = False
    """Log at level DEBUG what happens to connections."""
    proxy: str | None = None
    """The URL of an HTTP proxy to all services but those of this machine; None: no proxy."""

    keepalive_interval: float = 30.0
    """Between two pings of a client in use. Services exit after 600 seconds without a request."""
    grace_period: float = 5.0
    """How long calls in flight may take to finish when a nursery closes."""
    max_connections: int = 32
    """Connections to one service at once, in each lane."""
    idle_connection_lifetime: float = 60.0
    """An idle connection is closed after this time."""
    max_tries: int = 5
    """Attempts of one call, the first included."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `environ`, by default the environment of this process."""
        read = _Reader(os.environ if environ is None else environ)
        default = cls()
        return cls(
            connect_timeout=read.timeout(
                "SEAMLESS_REMOTE_CONNECT_TIMEOUT", default.connect_timeout
            ),
            read_timeout=read.timeout("SEAMLESS_REMOTE_READ_TIMEOUT", default.read_timeout),
            total_timeout=read.timeout("SEAMLESS_REMOTE_TOTAL_TIMEOUT", default.total_timeout),
            healthcheck_timeout=read.timeout(
                "SEAMLESS_REMOTE_HEALTHCHECK_TIMEOUT", default.healthcheck_timeout
            ),
            launch_timeout=read.timeout("SEAMLESS_REMOTE_LAUNCH_TIMEOUT", default.launch_timeout),
            database_max_inflight=read.count(
                "SEAMLESS_DATABASE_MAX_INFLIGHT", default.database_max_inflight
            ),
            max_jobs=read.count("SEAMLESS_REMOTE_MAX_JOBS", default.max_jobs),
            allow_in_worker=read.flag("SEAMLESS_ALLOW_REMOTE_CLIENTS_IN_WORKER"),
            debug_database=read.flag("SEAMLESS_DEBUG_REMOTE_DB"),
            debug_connections=read.flag("SEAMLESS_CLIENT_DEBUG"),
            proxy=read.text("SEAMLESS_REMOTE_PROXY"),
        )


class _Reader:
    """Parses environment variables; logs a malformed one and returns its default."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def timeout(self, name: str, default: float | None) -> float | None:
        """Seconds. `none`, `off`, `false`, an empty string and numbers <= 0 mean no timeout."""
        text = self._environ.get(name)
        if text is None:
            return default
        if text.strip().lower() in _NO_TIMEOUT:
            return None
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if math.isnan(seconds):
            self._malformed(name, text, "a number of seconds", default)
            return default
        return seconds if 0 < seconds < math.inf else None

    def count(self, name: str, default: int) -> int:
        """An integer, 0 or more."""
        text = self._environ.get(name)
        if text is None:
            return default
        try:
            number = int(text)
        except ValueError:
            number = -1
        if number < 0:
            self._malformed(name, text, "an integer >= 0", default)
            return default
        return number

    def flag(self, name: str) -> bool:
        """True for 1, true, yes, on; False for 0, false, no, off, empty or unset."""
        text = self._environ.get(name, "")
        word = text.strip().lower()
        if word in _TRUE:
            return True
        if word not in _FALSE:
            self._malformed(name, text, "one of 1, true, yes, on, 0, false, no, off", False)
        return False

    def text(self, name: str) -> str | None:
        """The value without blanks around it; None if it is empty or unset."""
        return self._environ.get(name, "").strip() or None

    @staticmethod
    def _malformed(name: str, text: str, wanted: str, used: object) -> None:
        logger.warning("%s=%r is not %s; using %r instead", name, text, wanted, used)


def enable_debug_logging(settings: Settings) -> None:
    """Set the loggers selected by the debug settings to DEBUG.

    A logger that no handler would serve gets one for standard error.
    """
    wanted = {
        "seamless_remote.database_remote": settings.debug_database,
        "seamless_remote.transport": settings.debug_connections,
    }
    for name in (name for name, on in wanted.items() if on):
        chosen = logging.getLogger(name)
        chosen.setLevel(logging.DEBUG)
        if not chosen.hasHandlers():
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
            chosen.addHandler(handler)
