"""One buffer, asked for by many at once, is transferred once."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from counting_proxy import PIECE, CountingProxy
from hosts import Host
from made_up_service import Answer, MadeUpService, always
from registering import use_buffers
from services import Service, wait_until
from stored_buffers import checksum_of, fresh, incompressible, put_file

import seamless_remote
from seamless_remote import buffer_remote
from seamless_remote.buffers.ingest import BATCH_BYTES
from seamless_remote.errors import RefusedError

SIZE = 2_000_000
CALLERS = 20


def test_calls_at_once_share_one_download(
    host: Host, shared_hashserver: Service, proxy: Callable[[Service], CountingProxy]
) -> None:
    between = proxy(shared_hashserver)
    content = incompressible(SIZE)
    checksum = put_file(shared_hashserver.directory, content)
    found: list[bytes] = []

    async def read() -> None:
        buffer = await buffer_remote.get_buffer(checksum)
        assert buffer is not None
        found.append(buffer.content)

    async def main() -> None:
        use_buffers(between)
        with between.hold(checksum.hex()):
            async with anyio.create_task_group() as task_group:
                for _ in range(CALLERS):
                    task_group.start_soon(read)
                await anyio.to_thread.run_sync(between.wait_for_held)
                await anyio.wait_all_tasks_blocked()
                between.release()
        # A later call makes a download of its own: nothing is kept.
        await read()

    host.run(main)
    assert found == [content] * (CALLERS + 1)
    assert between.count(checksum.hex()) == 2


def test_the_callers_of_each_loop_share_one_download(
    host: Host, shared_hashserver: Service, proxy: Callable[[Service], CountingProxy]
) -> None:
    between = proxy(shared_hashserver)
    content = incompressible(SIZE)
    checksum = put_file(shared_hashserver.directory, content)
    found: list[bytes] = []

    async def read() -> None:
        buffer = await buffer_remote.get_buffer(checksum)
        assert buffer is not None
        found.append(buffer.content)

    async def read_twice() -> None:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(read)
            task_group.start_soon(read)

    async def main() -> None:
        use_buffers(between)
        await buffer_remote.get_buffer(checksum_of(fresh(9)))
        nursery = seamless_remote.current_nursery()
        assert nursery is not None

        def all_wait() -> bool:
            return len(nursery.snapshot().calls) == 16

        with between.hold(checksum.hex()):
            async with anyio.create_task_group() as task_group:
                for _ in range(8):
                    task_group.start_soon(anyio.to_thread.run_sync, anyio.run, read_twice)
                await anyio.to_thread.run_sync(wait_until, all_wait)
                await anyio.to_thread.run_sync(between.wait_for_held, 8)
                between.release()

    host.run(main)
    assert found == [content] * 16
    assert between.count(checksum.hex()) == 8


@pytest.mark.parametrize("who", ["first", "second"])
def test_cancelling_one_of_several_leaves_the_others_the_buffer(
    host: Host, shared_hashserver: Service, proxy: Callable[[Service], CountingProxy], who: str
) -> None:
    between = proxy(shared_hashserver)
    content = incompressible(SIZE)
    checksum = put_file(shared_hashserver.directory, content)
    found: list[bytes] = []
    in_order: list[anyio.CancelScope] = []

    async def read(scope: anyio.CancelScope) -> None:
        with scope:
            in_order.append(scope)
            buffer = await buffer_remote.get_buffer(checksum)
            assert buffer is not None
            found.append(buffer.content)

    async def main() -> None:
        use_buffers(between)
        scopes = [anyio.CancelScope() for _ in range(3)]
        with between.hold(checksum.hex()):
            async with anyio.create_task_group() as task_group:
                for scope in scopes:
                    task_group.start_soon(read, scope)
                await anyio.to_thread.run_sync(between.wait_for_held)
                await anyio.wait_all_tasks_blocked()
                in_order[0 if who == "first" else 1].cancel()
                await anyio.wait_all_tasks_blocked()
                assert between.abandoned == 0 or who == "first"
                between.release()

    host.run(main)
    assert found == [content] * 2
    # The first one drives the transfer. The next one goes on with it, on another connection.
    assert between.count(checksum.hex()) == (2 if who == "first" else 1)
    assert between.abandoned == (1 if who == "first" else 0)


def test_a_download_goes_on_from_where_it_stands_when_the_one_who_drives_it_is_cancelled(
    host: Host, shared_hashserver: Service, proxy: Callable[[Service], CountingProxy]
) -> None:
    between = proxy(shared_hashserver)
    content = incompressible(8 * SIZE)
    checksum = put_file(shared_hashserver.directory, content)
    found: list[bytes] = []
    in_order: list[anyio.CancelScope] = []

    async def read(scope: anyio.CancelScope) -> None:
        with scope:
            in_order.append(scope)
            buffer = await buffer_remote.get_buffer(checksum)
            assert buffer is not None
            found.append(buffer.content)

    async def main() -> None:
        use_buffers(between)
        scopes = [anyio.CancelScope() for _ in range(3)]
        between.stall_after = 7 * SIZE
        async with anyio.create_task_group() as task_group:
            for scope in scopes:
                task_group.start_soon(read, scope)
            await anyio.to_thread.run_sync(between.wait_for_held)
            await anyio.wait_all_tasks_blocked()
            between.stall_after = None
            in_order[0].cancel()

    host.run(main)
    assert found == [content] * 2
    # At least the first block was not sent again.
    assert between.body_bytes_sent <= 7 * SIZE + PIECE + len(content) - BATCH_BYTES


@pytest.mark.parametrize("when", ["before the answer", "amid the answer"])
def test_cancelling_the_last_one_ends_the_transfer(
    host: Host, shared_hashserver: Service, proxy: Callable[[Service], CountingProxy], when: str
) -> None:
    between = proxy(shared_hashserver)
    content = incompressible(SIZE)
    checksum = put_file(shared_hashserver.directory, content)

    async def main() -> None:
        use_buffers(between)
        await buffer_remote.get_buffer(checksum_of(fresh(9)))
        if when == "amid the answer":
            between.stall_after = SIZE // 2
        with between.hold(checksum.hex() if when == "before the answer" else "nothing"):
            async with anyio.create_task_group() as task_group:
                for _ in range(3):
                    task_group.start_soon(buffer_remote.get_buffer, checksum)
                await anyio.to_thread.run_sync(between.wait_for_held)
                await anyio.wait_all_tasks_blocked()
                task_group.cancel_scope.cancel()
            await anyio.to_thread.run_sync(between.wait_for_abandoned)
        buffer = await buffer_remote.get_buffer(checksum)
        assert buffer is not None
        assert buffer.content == content

    host.run(main)
    assert between.count(checksum.hex()) == 2


def test_an_error_of_a_shared_download_reaches_all_who_wait(
    host: Host, made_up: Callable[[Answer], MadeUpService]
) -> None:
    refusing = made_up(always(403, b"go away"))
    checksum = checksum_of(fresh(9))
    refused: list[str] = []

    async def read() -> None:
        with pytest.raises(RefusedError, match="go away") as error:
            await buffer_remote.get_buffer(checksum)
        refused.append(str(error.value))

    async def main() -> None:
        use_buffers(refusing)
        async with anyio.create_task_group() as task_group:
            for _ in range(5):
                task_group.start_soon(read)

    host.run(main)
    assert len(refused) == 5
