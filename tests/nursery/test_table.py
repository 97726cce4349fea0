"""A nursery as it shows itself in a notebook."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import anyio
import pytest

from seamless_remote import open_nursery
from seamless_remote.nursery import process
from seamless_remote.nursery.calling import call
from seamless_remote.nursery.calls import Call
from seamless_remote.nursery.service import BackgroundTask, Service


@dataclass(frozen=True)
class Shown:
    dashboard: str
    last_round_trip: float
    nothing: None = None


class Shop(Service):
    def tasks(self) -> Sequence[BackgroundTask]:
        return []

    def in_flight(self) -> int:
        return 0

    def release(self, remaining: Collection[Service]) -> None:
        """It holds nothing."""

    def client_snapshots(self) -> tuple[Any, ...]:
        return (Shown("http://127.0.0.1:8787/status", 0.00123456),)


@pytest.mark.anyio
async def test_it_shows_services_bounds_and_calls_as_a_table(fresh_remote: None) -> None:
    async def wait(this: Call) -> None:
        this.waits_for = "<nothing> & nobody"
        await anyio.sleep_forever()

    try:
        async with open_nursery() as nursery, anyio.create_task_group() as group:
            process.install(Shop("a <shop>"))
            group.start_soon(call, "a long <call>", wait)
            await anyio.wait_all_tasks_blocked()
            html = nursery._repr_html_()
            group.cancel_scope.cancel()
    finally:
        process.this_process().services.clear()
    table = ElementTree.fromstring(html)
    rows = {row[0].text: ["".join(cell.itertext()) for cell in row] for row in table.iter("tr")}
    shop = rows["a <shop>"]
    assert shop[1:] == [
        "running",
        "dashboard http://127.0.0.1:8787/status, last round trip 0.00123",
    ]
    assert [link.get("href") for link in table.iter("a")] == ["http://127.0.0.1:8787/status"]
    assert rows["a long <call>"][2] == "<nothing> & nobody"
    assert "in flight 0" in rows["jobs"][2]
    assert rows["remote nursery"][1] == "open"
