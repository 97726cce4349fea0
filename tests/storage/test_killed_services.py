"""Both launched services are killed under a load from three loops: nothing confirmed is lost."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from hosts import Host, LaunchLog
from services import HOST, Home
from stored_buffers import buffer_of, checksum_of, fresh, path_of

from seamless_remote import buffer_remote, database_remote

LOOPS = 3
WRITES = 500
LOOK_UPS = 500
KILL_AFTER = 100
"""How many operations have ended when the services are killed."""


class Ledger:
    """What the three loops have had confirmed, and the moment at which the services are to die."""

    def __init__(self) -> None:
        self.buffers: list[bytes] = []
        self.results: list[tuple[str, str]] = []
        self.found = 0
        self.time_to_kill = threading.Event()
        self._ended = 0
        self._lock = threading.Lock()

    async def count(self, operation: Awaitable[None]) -> None:
        await operation
        with self._lock:
            self._ended += 1
            if self._ended == KILL_AFTER:
                self.time_to_kill.set()


async def write_buffer(ledger: Ledger) -> None:
    content = fresh(20_000)
    assert await buffer_remote.write_buffer(checksum_of(content), buffer_of(content)) is True
    ledger.buffers.append(content)


async def write_result(ledger: Ledger) -> None:
    tf, result = checksum_of(fresh(32)), checksum_of(fresh(32))
    assert await database_remote.set_transformation_result(tf, result) is True
    ledger.results.append((tf.hex(), result.hex()))


def look_ups(ledger: Ledger, content: bytes) -> tuple[Callable[[Ledger], Awaitable[None]], ...]:
    """Of what was there before: a wrong answer, or none, would be a loss."""
    checksum = checksum_of(content)

    async def get_buffer(ledger: Ledger) -> None:
        found = await buffer_remote.get_buffer(checksum)
        assert found is not None
        assert found.content == content
        ledger.found += 1

    async def get_result(ledger: Ledger) -> None:
        assert await database_remote.get_transformation_result(checksum) == checksum
        ledger.found += 1

    return get_buffer, get_result


async def load(ledger: Ledger, content: bytes, part: int) -> None:
    """One loop's part of the load, all at once."""
    reads = look_ups(ledger, content)
    async with anyio.create_task_group() as group:
        for number in range(part, max(WRITES, LOOK_UPS), LOOPS):
            group.start_soon(ledger.count, (write_buffer, write_result)[number % 2](ledger))
            group.start_soon(ledger.count, reads[number % 2](ledger))


def stored_result(home: Home, tf: str) -> str:
    """What the database has, asked without any client of ours."""
    (state,) = [s for key, s in home.services().items() if key.startswith("database")]
    connection = http.client.HTTPConnection(HOST, int(state["port"]), timeout=30)
    try:
        connection.request("GET", "/", json.dumps({"type": "transformation", "checksum": tf}))
        answer = connection.getresponse()
        return answer.read().decode() if answer.status == 200 else f"status {answer.status}"
    finally:
        connection.close()


@pytest.mark.parametrize("host", ["asyncio-host", "trio-host"], indirect=True)
def test_every_call_completes_and_every_confirmed_write_is_found_afterwards(
    host: Host, cluster: Home, launches: LaunchLog
) -> None:
    ledger = Ledger()
    content = fresh(20_000)
    checksum = checksum_of(content)

    def kill_both() -> None:
        assert ledger.time_to_kill.wait(60)
        for service in ("hashserver", "database"):
            os.kill(cluster.service_pid(service), signal.SIGKILL)

    async def main() -> None:
        buffer_remote.activate()
        database_remote.activate()
        assert await buffer_remote.write_buffer(checksum, buffer_of(content))
        assert await database_remote.set_transformation_result(checksum, checksum)
        with ThreadPoolExecutor(LOOPS) as threads:
            others = [
                threads.submit(anyio.run, load, ledger, content, part, backend=backend)
                for part, backend in ((1, "asyncio"), (2, "trio"))
            ]
            others.append(threads.submit(kill_both))
            await load(ledger, content, 0)
            for each in others:
                await anyio.to_thread.run_sync(each.result)

    host.run(main)
    assert len(ledger.buffers) + len(ledger.results) == WRITES
    assert ledger.found == LOOK_UPS
    assert sorted(launches.tools) == sorted(["hashserver", "database"] * 2)
    for written in ledger.buffers:
        assert path_of(cluster.buffers, checksum_of(written)).read_bytes() == written
    for tf, result in ledger.results:
        assert stored_result(cluster, tf) == result
