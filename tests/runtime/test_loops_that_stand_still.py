"""A loop that stands still, whatever it holds at that moment, harms nobody but its own tasks."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest
from counting_proxy import CountingProxy
from fault_proxy import Fault, FaultProxy, Harm, Toward
from hosts import Host
from loops import LoopThread, run
from many_calls import LANE_BOUND, LIMITER_BOUND, all_at_once, look_ups, reads, records, writes
from registering import use_buffers, use_databases
from services import Service, wait_until
from signals import LONG
from stored_buffers import buffer_of, checksum_of, fresh, incompressible, path_of, put_file

import seamless_remote
from seamless_remote import buffer_remote
from seamless_remote.clients import uploads

PAIRS = [("asyncio", "trio"), ("trio", "asyncio"), ("uvloop", "asyncio"), ("asyncio", "uvloop")]

HALF = 1_000_000
LARGE = 32_000_000
"""More bytes than the kernel takes for a connection that nobody reads from."""


@contextmanager
def standing_still(loop: LoopThread) -> Iterator[None]:
    """The loop does not turn during the block."""
    begun, go_on = threading.Event(), threading.Event()

    def stand_still() -> None:
        begun.set()
        assert go_on.wait(LONG)

    future = loop.start(stand_still)
    assert begun.wait(LONG)
    try:
        yield
    finally:
        go_on.set()
        future.result(LONG)


def downloads_at(between: CountingProxy) -> int:
    """How many reads of buffers have come; questions about buffers are something else."""
    return sum(len(line.split()[1]) == 65 for line in between.requests)


def in_a_thread(kind: str, call: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """A call that blocks the calling thread, as synchronous code makes it inside a loop."""
    outcome: list[Any] = []
    thread = threading.Thread(target=lambda: outcome.append(run(kind, call, *args)))
    thread.start()
    thread.join(LONG)
    assert not thread.is_alive()
    return outcome[0]


class HalfSent:
    """A buffer, and an upload of it of which the server gets half until `resume`."""

    def __init__(self, between: FaultProxy, service: Service) -> None:
        self.content = incompressible(LARGE)
        self.checksum = checksum_of(self.content)
        self.path = path_of(service.directory, self.checksum)
        self._between = between
        between.put(Fault(Harm.STALL, Toward.SERVICE, at=HALF))

    def wait_until_half_sent(self) -> None:
        folder, name = self.path.parent, self.checksum.hex()
        wait_until(lambda: list(folder.glob(f"{name}-*")), what="the server's temporary file")

    def resume(self) -> None:
        """From now on what the client sends arrives."""
        self._between.put(None)

    async def write(self) -> bool:
        return await buffer_remote.write_buffer(self.checksum, buffer_of(self.content))

    async def read(self) -> bytes | None:
        buffer = await buffer_remote.get_buffer(self.checksum)
        return None if buffer is None else buffer.content


@pytest.fixture
def half_sent(
    fresh_remote: None,
    shared_hashserver: Service,
    faulty: Callable[[Service], FaultProxy],
    monkeypatch: pytest.MonkeyPatch,
) -> HalfSent:
    monkeypatch.setattr(uploads, "STUCK_AFTER", 0.2)
    between = faulty(shared_hashserver)
    use_buffers(between)
    return HalfSent(between, shared_hashserver)


@pytest.mark.parametrize(("kind", "other"), PAIRS)
def test_calls_of_another_loop_go_on_while_one_stands_still_with_every_place(
    kind: str,
    other: str,
    fresh_remote: None,
    shared_hashserver: Service,
    shared_database: Service,
    proxy: Callable[[Service], CountingProxy],
    loop_threads: Callable[[str], LoopThread],
) -> None:
    buffers, results = proxy(shared_hashserver), proxy(shared_database)
    use_buffers(buffers)
    use_databases(results)
    still, turning = loop_threads(kind), loop_threads(other)
    folder = shared_hashserver.directory
    held = [*reads(folder, LANE_BOUND), *look_ups(LIMITER_BOUND)]
    with buffers.hold("GET /"), results.hold("GET / "):
        calls = still.start(all_at_once, held)
        buffers.wait_for(lambda: downloads_at(buffers) == LANE_BOUND)
        results.wait_for_held(LIMITER_BOUND)
        with standing_still(still):
            # The answers come, and nobody takes them.
            buffers.release()
            results.release()
            turning.run(all_at_once, [*reads(folder, 40), *look_ups(40), *writes(40), *records(40)])
            nursery = seamless_remote.current_nursery()
            assert nursery is not None
            assert nursery.snapshot().limiter.in_flight == LIMITER_BOUND
            assert not calls.done()
    calls.result(LONG)


def test_resolve_inside_the_hosts_own_loop_works_when_that_loop_has_every_place(
    host: Host,
    shared_hashserver: Service,
    shared_database: Service,
    proxy: Callable[[Service], CountingProxy],
) -> None:
    buffers, results = proxy(shared_hashserver), proxy(shared_database)
    folder = shared_hashserver.directory
    content = fresh(1000)
    checksum = put_file(folder, content)

    async def main() -> None:
        use_buffers(buffers)
        use_databases(results)
        with buffers.hold("GET /"), results.hold("GET / "):
            async with anyio.create_task_group() as group:
                group.start_soon(
                    all_at_once, [*reads(folder, LANE_BOUND), *look_ups(LIMITER_BOUND)]
                )
                await anyio.to_thread.run_sync(
                    buffers.wait_for, lambda: downloads_at(buffers) == LANE_BOUND
                )
                await anyio.to_thread.run_sync(results.wait_for_held, LIMITER_BOUND)
                # From here on the loop does not turn until all is done.
                buffers.release()
                results.release()
                assert checksum.resolve().content == content
                in_a_thread("asyncio", all_at_once, [*look_ups(5), *writes(5), *records(5)])
                in_a_thread("trio", all_at_once, [*look_ups(5), *writes(5), *records(5)])

    host.run(main)


@pytest.mark.parametrize(("kind", "other"), PAIRS)
def test_a_buffer_whose_upload_is_stuck_with_its_loop_can_be_written_elsewhere(
    kind: str, other: str, half_sent: HalfSent, loop_threads: Callable[[str], LoopThread]
) -> None:
    still, turning = loop_threads(kind), loop_threads(other)
    first = still.start(half_sent.write)
    half_sent.wait_until_half_sent()
    with standing_still(still):
        half_sent.resume()
        turning.run(all_at_once, writes(10))
        assert turning.run(half_sent.write) is True
        assert half_sent.path.read_bytes() == half_sent.content
        assert turning.run(half_sent.read) == half_sent.content
        assert not first.done()
    assert first.result(LONG) is True


def test_a_read_of_a_buffer_whose_upload_is_stuck_with_its_loop_comes_to_an_end(
    half_sent: HalfSent, loop_threads: Callable[[str], LoopThread]
) -> None:
    still, turning = loop_threads("asyncio"), loop_threads("trio")
    first = still.start(half_sent.write)
    half_sent.wait_until_half_sent()
    with standing_still(still):
        half_sent.resume()
        assert turning.run(half_sent.read) is None
    assert first.result(LONG) is True
    assert turning.run(half_sent.read) == half_sent.content


def test_a_loop_may_wait_in_synchronous_code_for_a_write_of_what_it_is_uploading(
    host: Host, half_sent: HalfSent
) -> None:
    outcome: list[bool] = []

    async def write() -> None:
        outcome.append(await half_sent.write())

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(write)
            await anyio.to_thread.run_sync(half_sent.wait_until_half_sent)
            half_sent.resume()
            assert in_a_thread("asyncio", half_sent.write) is True
            assert half_sent.path.read_bytes() == half_sent.content
            assert not outcome

    host.run(main)
    assert outcome == [True]
