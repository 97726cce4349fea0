"""When to try again, and how long to wait before: decisions only, the loop is the caller's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timezone
from email.utils import parsedate_to_datetime

from seamless_remote.errors import ConnectError, ExchangeError

from .messages import Headers

# RFC 9110, 15.5.9; RFC 8470; RFC 6585: the 4xx that ask for a later try.
_TRANSIENT_REFUSALS = frozenset((408, 425, 429))
_MAX_DOUBLINGS = 32


def is_transient_status(status: int) -> bool:
    """Whether the same request may well be answered better later: 408, 425, 429 and any 5xx."""
    return status in _TRANSIENT_REFUSALS or 500 <= status <= 599


def is_transient_error(exc: BaseException) -> bool:
    """Whether `exc` is a failure of reaching a server, which may pass.

    That includes ProtocolError: an answer cut short by a server that ends looks like one.
    """
    return isinstance(exc, (ConnectError, ExchangeError))


def retry_after_seconds(headers: Headers, now: float) -> float | None:
    """How long, in seconds, `Retry-After` asks to wait; None without (or with a malformed) one.

    `now` is Unix time, for the form with a date; a date in the past gives 0.
    """
    text = headers.get("retry-after")
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, date.timestamp() - now)


def pause(
    attempt: int, random: Callable[[], float], *, base: float = 0.1, cap: float = 10.0
) -> float:
    """Seconds to wait before try `attempt` + 1, after `attempt` (1, 2, ...) tries have failed.

    Anything from 0 to base * 2**(attempt - 1), at most `cap`, evenly spread by `random` (of 0 to
    1): clients that failed together do not come back together.
    """
    doublings = min(max(attempt - 1, 0), _MAX_DOUBLINGS)
    return random() * min(cap, base * 2.0**doublings)
