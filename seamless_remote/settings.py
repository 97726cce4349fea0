"""Settings: every environment variable of the package, read once into a frozen, typed object.

A malformed value never ends the program: it is logged with its name and with what is used instead.
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
    """What can be tuned. Times are in seconds; None means no limit.

    The first eight fields have an environment variable each (see `from_environment`); the others
    are for hosts that open a nursery with settings of their own.
    """

    connect_timeout: float | None = 10.0
    read_timeout: float | None = 1200.0
    total_timeout: float | None = None
    healthcheck_timeout: float | None = 10.0
    database_max_inflight: int = 30
    allow_in_worker: bool = False
    debug_database: bool = False
    debug_connections: bool = False

    keepalive_interval: float = 30.0
    handover_patience: float = 0.1
    grace_period: float = 5.0
    max_connections: int = 32
    idle_connection_lifetime: float = 60.0
    max_tries: int = 5

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `environ` (the process's own by default)."""
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
            database_max_inflight=read.count(
                "SEAMLESS_DATABASE_MAX_INFLIGHT", default.database_max_inflight
            ),
            allow_in_worker=read.flag("SEAMLESS_ALLOW_REMOTE_CLIENTS_IN_WORKER"),
            debug_database=read.flag("SEAMLESS_DEBUG_REMOTE_DB"),
            debug_connections=read.flag("SEAMLESS_CLIENT_DEBUG"),
        )


class _Reader:
    """Reads values of a kind from an environment, and logs those that are malformed."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def timeout(self, name: str, default: float | None) -> float | None:
        """Seconds; `none`, `off`, `false`, an empty string and numbers <= 0 mean no timeout."""
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
        """A whole number, 0 or more; 0 means no bound."""
        text = self._environ.get(name)
        if text is None:
            return default
        try:
            number = int(text)
        except ValueError:
            number = -1
        if number < 0:
            self._malformed(name, text, "a whole number, 0 or more", default)
            return default
        return number

    def flag(self, name: str) -> bool:
        """1, true, yes or on; unset, 0, false, no or off."""
        text = self._environ.get(name, "")
        word = text.strip().lower()
        if word in _TRUE:
            return True
        if word not in _FALSE:
            self._malformed(name, text, "one of 1, true, yes, 0, false, no", False)
        return False

    @staticmethod
    def _malformed(name: str, text: str, wanted: str, used: object) -> None:
        logger.warning("%s=%r is not %s; using %r instead", name, text, wanted, used)


def enable_debug_logging(settings: Settings) -> None:
    """Let the loggers that the debug variables name log everything, to stderr if nowhere else."""
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
