"""Jobservers that a test may harm."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from services import Service


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Not uvloop: jobs take long, and their requests are those that the transport's tests make."""
    return str(request.param)


@pytest.fixture
def own_jobserver(
    jobserver: Callable[..., Service], shared_hashserver: Service, shared_database: Service
) -> Callable[[], Service]:
    """Starts jobservers with a hashserver and a database behind them."""
    return lambda: jobserver(hashserver=shared_hashserver, database=shared_database)
