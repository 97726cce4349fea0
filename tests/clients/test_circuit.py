"""When requests are held back from a service in trouble, and when they go to it again: tables."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from seamless_remote.clients.circuit import (
    LONGEST_PROBE_PAUSE,
    OPENS_AFTER,
    PROBE_BASE,
    PROBE_LEASE,
    Circuit,
    CircuitOpenError,
)
from seamless_remote.clients.retry_policy import BUDGET, RetryBudget


def longest() -> float:
    """Makes every pause as long as it may be."""
    return 1.0


def fail(circuit: Circuit, times: int, now: float = 0.0) -> list[bool]:
    return [circuit.failure(now, "it broke", longest) for _ in range(times)]


def opened(now: float = 0.0) -> Circuit:
    circuit = Circuit()
    fail(circuit, OPENS_AFTER, now)
    return circuit


def test_it_opens_after_failures_in_a_row_and_says_so_once() -> None:
    circuit = Circuit()
    assert fail(circuit, OPENS_AFTER + 3) == [False] * (OPENS_AFTER - 1) + [True] + [False] * 3
    assert circuit.is_open
    assert circuit.last_failure == "it broke"


def test_a_success_in_between_starts_the_count_anew() -> None:
    circuit = Circuit()
    fail(circuit, OPENS_AFTER - 1)
    assert not circuit.success()
    assert not any(fail(circuit, OPENS_AFTER - 1))
    assert not circuit.is_open


def test_while_it_is_closed_there_is_nothing_to_probe_or_to_report() -> None:
    circuit = Circuit()
    assert not circuit.may_probe(1e9)
    assert not circuit.probed(1e9, True, longest)
    assert not any(fail(circuit, OPENS_AFTER - 1))


def test_one_caller_probes_at_a_time_when_it_is_due() -> None:
    circuit = opened(now=100.0)
    due = 100.0 + PROBE_BASE
    assert not circuit.may_probe(due - 0.01)
    assert circuit.may_probe(due)
    assert not circuit.may_probe(due + 1)


def test_failed_probes_come_at_growing_intervals_up_to_a_cap() -> None:
    circuit = opened()
    now, pauses = 0.0, []
    for _ in range(8):
        start = now
        while not circuit.may_probe(now):
            now += 0.01
        pauses.append(round(now - start, 1))
        circuit.probed(now, False, longest)
    assert pauses == pytest.approx([0.2, 0.5, *[LONGEST_PROBE_PAUSE] * 6], abs=0.1)


def test_a_cancelled_probe_is_due_again_at_once() -> None:
    circuit = opened()
    assert circuit.may_probe(5.0)
    assert not circuit.probed(5.5, None, longest)
    assert circuit.may_probe(5.5)


def test_a_probe_that_nobody_reports_on_does_not_keep_it_open_for_good() -> None:
    circuit = opened()
    assert circuit.may_probe(5.0)
    assert not circuit.may_probe(5.0 + PROBE_LEASE - 0.1)
    assert circuit.may_probe(5.0 + PROBE_LEASE)


def close_by_probe(circuit: Circuit) -> bool:
    assert circuit.may_probe(5.0)
    return circuit.probed(5.1, True, longest)


def close_by_straggler(circuit: Circuit) -> bool:
    return circuit.success()


@pytest.mark.parametrize("close", [close_by_probe, close_by_straggler])
def test_an_answer_closes_it_again(close: Callable[[Circuit], bool]) -> None:
    circuit = opened()
    assert close(circuit)
    assert not circuit.is_open
    assert circuit.open_for(7.0) == 0.0


def test_after_a_probe_the_first_failure_opens_it_again_with_the_pause_it_had() -> None:
    circuit = opened()
    for now in (5.0, 10.0):
        assert circuit.may_probe(now)
        circuit.probed(now, False, longest)
    assert circuit.may_probe(15.0)
    assert circuit.probed(15.0, True, longest)
    assert circuit.failure(20.0, "again", longest)
    assert not circuit.may_probe(20.0 + 0.9 * LONGEST_PROBE_PAUSE)
    assert circuit.may_probe(20.0 + LONGEST_PROBE_PAUSE)


def test_after_a_probe_the_first_success_closes_it_for_good() -> None:
    circuit = opened()
    close_by_probe(circuit)
    circuit.success()
    assert not any(fail(circuit, OPENS_AFTER - 1, now=20.0))


def test_it_says_for_how_long_it_has_been_open() -> None:
    circuit = opened(now=50.0)
    fail(circuit, 5, now=60.0)
    assert circuit.open_for(75.0) == 25.0


def test_a_budget_bounds_the_retries_of_an_outage() -> None:
    budget = RetryBudget()
    assert sum(budget.take(1000.0) for _ in range(5 * BUDGET)) == BUDGET


@pytest.mark.parametrize(("seconds", "granted"), [(0.0, 0), (0.1, 1), (1.0, 10), (1e6, BUDGET)])
def test_a_spent_budget_comes_back_with_time(seconds: float, granted: int) -> None:
    budget = RetryBudget()
    while budget.take(1000.0):
        pass
    assert sum(budget.take(1000.001 + seconds) for _ in range(2 * BUDGET)) == granted


@pytest.mark.parametrize(("successes", "granted"), [(0, 0), (11, 1), (101, 10), (10**5, BUDGET)])
def test_answered_requests_earn_retries(successes: int, granted: int) -> None:
    budget = RetryBudget()
    while budget.take(1000.0):
        pass
    for _ in range(successes):
        budget.earn()
    assert sum(budget.take(1000.0) for _ in range(2 * BUDGET)) == granted


def test_whatever_happens_to_it_a_probe_is_due_within_the_lease_while_it_is_open() -> None:
    dice = random.Random(4)
    circuit = Circuit()
    now = 0.0
    for _ in range(20_000):
        now += dice.random()
        event = dice.randrange(12)
        if event == 0:
            circuit.success()
        elif event == 1:
            circuit.probed(now, dice.choice([True, False, None]), dice.random)
        elif event == 2:
            circuit.may_probe(now)
        else:
            circuit.failure(now, "it broke", dice.random)
        if circuit.is_open and dice.random() < 0.01:
            now += PROBE_LEASE
            assert circuit.may_probe(now)


@pytest.mark.parametrize(
    "event",
    [
        lambda circuit: circuit.success(),
        lambda circuit: circuit.probed(9.0, True, longest),
        lambda circuit: circuit.may_probe(1e9),
    ],
)
def test_a_retired_one_stays_open_and_is_not_probed(event: Callable[[Circuit], bool]) -> None:
    circuit = Circuit()
    circuit.retire(5.0)
    assert not event(circuit)
    assert circuit.is_open
    with pytest.raises(CircuitOpenError):
        circuit.require_closed()
