"""Jobservers with a hashserver and a database behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from services import Service, start_jobserver


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a job and its test leave each other signs."""
    made = tmp_path / "signs"
    made.mkdir()
    return made


@pytest.fixture(scope="session")
def shared_jobserver(
    shared_hashserver: Service,
    shared_database: Service,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """A jobserver with two workers, for all tests that do it no harm."""
    with start_jobserver(
        tmp_path_factory.mktemp("shared") / "jobserver",
        workers=2,
        hashserver=shared_hashserver,
        database=shared_database,
    ) as service:
        yield service


@pytest.fixture
def own_jobserver(
    jobserver: Callable[..., Service], shared_hashserver: Service, shared_database: Service
) -> Callable[[], Service]:
    """Starts jobservers that a test may harm."""
    return lambda: jobserver(hashserver=shared_hashserver, database=shared_database)
