"""When to try again, and how long to wait before: decisions only, the loop is the caller's."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import timezone
from email.utils import parsedate_to_datetime

from ..errors import ConnectError, ExchangeError, ServiceError
from ..transport.messages import Headers, OverlongAnswerError

# RFC 9110, 15.5.9; RFC 8470; RFC 6585: the 4xx that ask for a later try.
_TRANSIENT_REFUSALS = frozenset((408, 425, 429))
_MAX_DOUBLINGS = 32
# Some servers send fractions, which RFC 9110, 10.2.3, does not have.
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")

BUDGET = 100
"""How many retries a service gets at once: 100 tokens, +0.1 per success, +10 per second."""

_EARNED = 0.1
_PER_SECOND = 10.0


class TransientRefusal(ServiceError):
    """An answer with a status that says: try again. `retry_after` is in seconds."""

    def __init__(self, status: int, text: str, retry_after: float | None) -> None:
        super().__init__(f"it answered {status}: {text}")
        self.status = status
        self.text = text
        self.retry_after = retry_after


def is_transient_status(status: int) -> bool:
    """Whether a later try may well succeed: 408, 425, 429 and any 5xx."""
    return status in _TRANSIENT_REFUSALS or 500 <= status <= 599


def is_transient_error(exc: BaseException) -> bool:
    """Whether `exc` is a failure of reaching a server, which may pass.

    That includes ProtocolError: a server that ends in mid-answer looks like one. An answer that is
    too long is so the next time as well.
    """
    may_pass = isinstance(exc, (ConnectError, ExchangeError, TransientRefusal))
    return may_pass and not isinstance(exc, OverlongAnswerError)


def retry_after_seconds(headers: Headers, now: float) -> float | None:
    """How long, in seconds, `Retry-After` asks to wait; None without a well-formed one.

    `now` is Unix time, for the form with a date; a date in the past gives 0.
    """
    text = headers.get("retry-after")
    if text is None:
        return None
    text = text.strip()
    try:
        if _SECONDS.fullmatch(text):
            return float(text)
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=timezone.utc)
        return max(0.0, date.timestamp() - now)
    except (ValueError, OverflowError):  # the latter for a year that no clock will reach
        return None


def pause(
    attempt: int, random: Callable[[], float], *, base: float = 0.1, cap: float = 10.0
) -> float:
    """Seconds to wait before try `attempt` + 1, after `attempt` (1, 2, ...) tries have failed.

    Anything from 0 to base * 2**(attempt - 1), at most `cap`, evenly spread by `random` (of 0 to
    1), so that clients that failed together do not come back together.
    """
    doublings = min(max(attempt - 1, 0), _MAX_DOUBLINGS)
    return random() * min(cap, base * 2.0**doublings)


class RetryBudget:
    """Bounds the retries at one service, so that its trouble does not multiply its load.

    For calls of any thread.
    """

    __slots__ = ("_lock", "_refilled_at", "_tokens")

    def __init__(self) -> None:
        self._tokens = float(BUDGET)
        self._refilled_at = 0.0
        self._lock = threading.RLock()

    def earn(self) -> None:
        """A request was answered."""
        if self._tokens < BUDGET:
            with self._lock:
                self._tokens = min(float(BUDGET), self._tokens + _EARNED)

    def take(self, now: float) -> bool:
        """Whether one more retry may be made at `now` (in seconds, of a clock that only grows)."""
        with self._lock:
            refill = (now - self._refilled_at) * _PER_SECOND
            self._refilled_at = now
            self._tokens = min(float(BUDGET), self._tokens + refill)
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True
