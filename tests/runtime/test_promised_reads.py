"""Reads that wait for promised buffers are in nobody's way, and learn what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest
from counting_proxy import CountingProxy
from hosts import Host
from loops import KINDS, LoopThread
from made_up_service import Answer, MadeUpService
from many_calls import LANE_BOUND, all_at_once
from registering import use_buffers
from seamless import Checksum
from services import Service, wait_until
from signals import LONG
from silent_server import SilentServer
from stored_buffers import buffer_of, checksum_of, fresh, put_file

import seamless_remote
from seamless_remote import Settings, buffer_remote
from seamless_remote.clients import awaited_buffers, retrying
from seamless_remote.clients import hashserver as hashserver_client
from seamless_remote.clients.connections import connections

PROMISED = LANE_BOUND + 8
ROUNDS = 5


class Promised:
    """Many buffers that are promised, the reads of them, and what these gave."""

    def __init__(self, count: int = PROMISED) -> None:
        self.contents = [fresh(100 + number) for number in range(count)]
        self.checksums = [checksum_of(content) for content in self.contents]
        self.found: dict[Checksum, bytes | None] = {}
        self.written = dict(zip(self.checksums, self.contents, strict=True))

    async def promise(self) -> None:
        for checksum in self.checksums:
            await buffer_remote.promise(checksum)

    async def read(self, checksum: Checksum) -> None:
        buffer = await buffer_remote.get_buffer(checksum)
        self.found[checksum] = None if buffer is None else buffer.content

    def reads(self) -> list[Callable[[], Any]]:
        return [lambda checksum=each: self.read(checksum) for each in self.checksums]

    async def write(self) -> None:
        for checksum, content in self.written.items():
            assert await buffer_remote.write_buffer(checksum, buffer_of(content)) is True

    async def all_wait(self) -> None:
        """Until every read has given its connection up."""
        await anyio.to_thread.run_sync(wait_until, lambda: waiting() == len(self.checksums))


def client() -> Any:
    (found,) = buffer_remote._read_server_clients
    return found


def waiting() -> int:
    """How many reads wait for a promise, in all loops."""
    return sum(map(len, list(client()._awaited._reads.values())))


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read soon finds out that its buffer is promised."""
    monkeypatch.setattr(hashserver_client, "HEAD_PATIENCE", 0.05)


@pytest.fixture
def quick_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awaited_buffers, "LONGEST_PAUSE", awaited_buffers.SHORTEST_PAUSE)


def test_reads_of_promised_buffers_keep_no_stored_buffer_from_being_read_and_all_arrive(
    host: Host, shared_hashserver: Service
) -> None:
    promised = Promised()
    stored = fresh(300)

    async def main() -> None:
        use_buffers(shared_hashserver)
        await promised.promise()
        async with anyio.create_task_group() as group:
            group.start_soon(all_at_once, promised.reads())
            # What is made of a stored input: a program that waited here would wait for ever.
            buffer = await buffer_remote.get_buffer(put_file(shared_hashserver.directory, stored))
            assert buffer is not None
            assert buffer.content == stored
            assert not promised.found
            await promised.write()

    host.run(main)
    assert promised.found == promised.written


def test_a_loop_that_makes_what_others_wait_for_can_read_its_inputs(
    fresh_remote: None, shared_hashserver: Service, loop_threads: Callable[[str], LoopThread]
) -> None:
    use_buffers(shared_hashserver)
    promised = Promised()
    readers = [loop_threads(kind) for kind in KINDS]
    maker = loop_threads("asyncio")
    maker.run(promised.promise)
    waits = [each.start(all_at_once, promised.reads()) for each in readers]
    wait_until(lambda: waiting() == len(readers) * PROMISED)
    for _ in range(LANE_BOUND + 1):
        content = fresh(100)
        checksum = put_file(shared_hashserver.directory, content)
        assert maker.run(buffer_remote.get_buffer, checksum).content == content
    assert not promised.found
    maker.run(promised.write)
    for each in waits:
        each.result(LONG)
    assert promised.found == promised.written


def test_all_reads_that_wait_ask_together(
    host: Host,
    shared_hashserver: Service,
    proxy: Callable[[Service], CountingProxy],
    quick_rounds: None,
) -> None:
    between = proxy(shared_hashserver)
    promised = Promised()

    async def main() -> None:
        use_buffers(between)
        await promised.promise()
        async with anyio.create_task_group() as group:
            group.start_soon(all_at_once, promised.reads())
            await promised.all_wait()
            nursery = seamless_remote.current_nursery()
            assert nursery is not None
            assert len(nursery.snapshot().calls) == PROMISED
            asked = between.count("GET /has-now")
            downloads = between.count("GET /") - asked - between.count("GET /has ")
            await anyio.to_thread.run_sync(
                between.wait_for, lambda: between.count("GET /has-now") >= asked + ROUNDS
            )
            assert between.count("GET /has-now") <= asked + ROUNDS + 1
            await promised.write()
        # Each buffer was asked for once more, when it had come.
        assert downloads == PROMISED + between.count("GET /healthcheck")

    host.run(main)
    assert promised.found == promised.written


def test_cancelled_reads_that_waited_leave_nothing(host: Host, shared_hashserver: Service) -> None:
    promised = Promised()

    async def main() -> None:
        use_buffers(shared_hashserver)
        await promised.promise()
        for _ in range(2):
            async with anyio.create_task_group() as group:
                group.start_soon(all_at_once, promised.reads())
                await promised.all_wait()
                group.cancel_scope.cancel()
            assert waiting() == 0
        nursery = seamless_remote.current_nursery()
        assert nursery is not None
        assert nursery.snapshot().calls == ()
        assert all(pool.in_use == pool.waiting == 0 for pool in connections.snapshot())
        await promised.write()
        await all_at_once(promised.reads())

    host.run(main)
    assert promised.found == promised.written


def test_cancelling_the_read_that_asks_for_all_leaves_the_others_theirs(
    host: Host, shared_hashserver: Service
) -> None:
    promised = Promised(6)
    cancelled, kept = promised.checksums[:3], promised.checksums[3:]
    scopes: list[anyio.CancelScope] = []

    async def read(checksum: Checksum) -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await promised.read(checksum)

    async def main() -> None:
        use_buffers(shared_hashserver)
        await promised.promise()
        async with anyio.create_task_group() as group:
            for checksum in cancelled:
                group.start_soon(read, checksum)
            for checksum in kept:
                group.start_soon(promised.read, checksum)
            await promised.all_wait()
            for scope in scopes:
                scope.cancel()
            await promised.write()

    host.run(main)
    assert promised.found == {each: promised.written[each] for each in kept}


@pytest.mark.parametrize("host", ["asyncio-host", "trio-alone"], indirect=True)
def test_a_promise_that_a_restarted_server_knows_nothing_of_is_none(
    host_with: Callable[[Settings], Host],
    hashserver: Callable[[], Service],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long the server is away here."""
    monkeypatch.setattr(retrying, "PATIENCE", LONG)
    host = host_with(Settings(max_tries=10**6))
    service = hashserver()
    promised = Promised(6)

    async def main() -> None:
        use_buffers(service)
        await promised.promise()
        async with anyio.create_task_group() as group:
            group.start_soon(all_at_once, promised.reads())
            await promised.all_wait()
            await anyio.to_thread.run_sync(service.kill)
            await anyio.to_thread.run_sync(service.restart)

    host.run(main)
    assert promised.found == dict.fromkeys(promised.checksums)


def test_a_promise_that_expires_is_none(
    host: Host,
    silent: Callable[[], SilentServer],
    made_up: Callable[[Answer], MadeUpService],
    quick_rounds: None,
) -> None:
    """A real one does so after ten minutes."""
    promised = Promised(3)
    expired: set[str] = set()
    asked: list[int] = []

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/healthcheck":
            return 200, b"OK"
        if path.startswith("/has"):
            wanted = json.loads(body)
            asked.append(len(wanted))
            known = [path == "/has" and each not in expired for each in wanted]
            return 200, json.dumps(known).encode()
        # It has not answered within the reads' patience when it is given up.
        wait_until(lambda: path[1:] in expired)
        return 404, b"Not found"

    service = made_up(answer)

    async def main() -> None:
        use_buffers(service)
        async with anyio.create_task_group() as group:
            group.start_soon(all_at_once, promised.reads())
            await promised.all_wait()
            for number, checksum in enumerate(promised.checksums, 1):
                assert len(promised.found) == number - 1
                expired.add(checksum.hex())
                await anyio.to_thread.run_sync(
                    wait_until, lambda number=number: len(promised.found) == number
                )

    host.run(main)
    assert promised.found == dict.fromkeys(promised.checksums)
    assert len(promised.checksums) in asked
