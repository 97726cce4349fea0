"""More services that tests share, and a host that does not wait long for another try."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hosts import Host
from services import Service, start_database, start_hashserver


@pytest.fixture
def host(host: Host, quick_retries: None) -> Host:
    """Every place that a call can come from, where requests are tried again after a short pause."""
    return host


@pytest.fixture(scope="session")
def second_hashserver(
    own_environment: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Another hashserver for all tests that do it no harm."""
    with start_hashserver(tmp_path_factory.mktemp("second") / "hashserver") as service:
        yield service


@pytest.fixture(scope="session")
def flat_hashserver(
    own_environment: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A hashserver with the flat layout, for all tests that do it no harm."""
    directory = tmp_path_factory.mktemp("flat") / "hashserver"
    with start_hashserver(directory, layout="flat") as service:
        yield service


@pytest.fixture(scope="session")
def readonly_hashserver(
    own_environment: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A hashserver that refuses to be written to."""
    directory = tmp_path_factory.mktemp("readonly") / "hashserver"
    with start_hashserver(directory, writable=False) as service:
        yield service


@pytest.fixture(scope="session")
def second_database(
    own_environment: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Another database for all tests that do it no harm."""
    with start_database(tmp_path_factory.mktemp("second") / "database") as service:
        yield service
