"""Services behind proxies that do harm, and a count of the bad inputs and answers tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fault_proxy import FaultProxy
from services import Service

from seamless_remote.clients import retry_policy as retry


@pytest.fixture(autouse=True)
def quick_retries(fresh_remote: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long the pause between two tries is, is the transport's subject."""
    monkeypatch.setattr(retry, "pause", lambda *args, **options: 0.005)


@pytest.fixture
def faulty() -> Iterator[Callable[[Service], FaultProxy]]:
    """Puts a proxy before a service."""
    proxies: list[FaultProxy] = []

    def start(service: Service) -> FaultProxy:
        proxies.append(FaultProxy(service.port))
        return proxies[-1]

    try:
        yield start
    finally:
        for proxy in proxies:
            proxy.close()


@pytest.fixture
def tried(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Counts a bad input or answer, by what makes it different from all others.

    `tests/conftest.py` sums them up at the end of the run.
    """
    return lambda name: record_property("bad input or answer", name)
