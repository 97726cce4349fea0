"""The health of a service, as its requests and its background tasks report it."""

from __future__ import annotations

import pytest

from seamless_remote.clients.health import Health, HealthRecord


def test_health_goes_down_with_failures_in_a_row_and_each_change_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    health = HealthRecord("the service")
    assert health.state is Health.UNKNOWN
    for _ in range(3):
        health.success(0.01)
    assert health.state is Health.UP
    health.failure("broken")
    assert health.state is Health.DEGRADED
    for _ in range(5):
        health.failure("broken")
    assert health.state is Health.DOWN
    health.success(0.01)
    assert health.state is Health.UP
    health.mark_down("given up")
    assert health.state is Health.DOWN
    health.mark_down("given up")
    assert len(caplog.records) == 5
