"""When to try again: tables."""

from __future__ import annotations

import random

import pytest

from seamless_remote import errors
from seamless_remote.clients.retry_policy import (
    TransientRefusal,
    is_transient_error,
    is_transient_status,
    pause,
    retry_after_seconds,
)
from seamless_remote.transport.messages import Headers


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 507, 599])
def test_these_answers_may_be_better_later(status: int) -> None:
    assert is_transient_status(status)


@pytest.mark.parametrize("status", [100, 200, 201, 202, 204, 301, 304, 400, 401, 403, 404, 405])
def test_these_answers_are_final(status: int) -> None:
    assert not is_transient_status(status)


@pytest.mark.parametrize("status", [409, 410, 413, 416, 417, 422, 451, 600])
def test_other_refusals_are_final(status: int) -> None:
    assert not is_transient_status(status)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (errors.ConnectError, True),
        (errors.ExchangeError, True),
        (errors.ServiceTimeout, True),
        (errors.ProtocolError, True),
        (errors.NurseryClosedError, False),
        (errors.LaunchError, False),
        (errors.TransformationError, False),
        (errors.WrongBytesError, False),
        (ValueError, False),
        (OSError, False),
        (KeyboardInterrupt, False),
    ],
)
def test_failures_of_reaching_a_server_may_pass(
    error: type[BaseException], transient: bool
) -> None:
    assert is_transient_error(error("x")) is transient


NOW = 1_792_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("-1", None),
        ("1.5", 1.5),
        ("2.", 2.0),
        (".5", None),
        ("1.5.2", None),
        ("1e3", None),
        ("9" * 30, None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("Wed, 14 Oct 2026 17:47:00 GMT", 20.0),
        ("Wednesday, 14-Oct-26 17:47:00 GMT", 20.0),
        ("Wed Oct 14 17:47:00 2026", 20.0),
        ("Wed, 14 Oct 2020 17:47:00 GMT", 0.0),
        ("Wed, 99 Oct 2026 17:47:00 GMT", None),
        ("Wed, 14 Oct 20269999999999999999 17:47:00 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(
    value: str | None, seconds: float | None
) -> None:
    raw = [] if value is None else [(b"Retry-After", value.encode())]
    assert retry_after_seconds(Headers(raw), NOW) == seconds


@pytest.mark.parametrize(
    ("attempt", "longest"),
    [(0, 0.1), (1, 0.1), (2, 0.2), (3, 0.4), (7, 6.4), (8, 10.0), (50, 10.0), (10**9, 10.0)],
)
def test_pauses_grow_up_to_a_cap(attempt: int, longest: float) -> None:
    assert pause(attempt, lambda: 1.0) == pytest.approx(longest)
    assert pause(attempt, lambda: 0.5) == pytest.approx(longest / 2)
    assert pause(attempt, lambda: 0.0) == 0.0


def test_pauses_are_spread() -> None:
    dice = random.Random(1)
    pauses = [pause(4, dice.random, base=1, cap=60) for _ in range(1000)]
    assert min(pauses) < 0.5
    assert max(pauses) > 7.5


@pytest.mark.parametrize("status", [408, 429, 503])
def test_an_answer_that_asks_to_try_again_may_pass(status: int) -> None:
    assert is_transient_error(TransientRefusal(status, "busy", 1.0))
