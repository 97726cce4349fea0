"""Quick retries for every test, and a count of the bad inputs and answers tried."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture(autouse=True)
def quick_retries(fresh_remote: None, quick_retries: None) -> None:
    """For every test in this folder."""


@pytest.fixture
def tried(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Counts a bad input or answer, by what makes it different from all others.

    `tests/conftest.py` sums them up at the end of the run.
    """
    return lambda name: record_property("bad input or answer", name)
