"""A write goes to several servers at once, and is one call: it ends as one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack

import anyio
import anyio.to_thread
import pytest
from counting_proxy import CountingProxy
from hosts import Host
from registering import use_buffers
from services import Service
from stored_buffers import buffer_of, checksum_of, fresh

from seamless_remote import Settings, buffer_remote
from seamless_remote.nursery.process import this_process


def test_cancelling_a_write_ends_all_of_its_uploads(
    host: Host, shared_hashserver: Service, proxy: Callable[[Service], CountingProxy]
) -> None:
    servers = [proxy(shared_hashserver) for _ in range(3)]
    content = fresh(1000)
    checksum = checksum_of(content)

    async def main() -> None:
        use_buffers(*servers)
        with ExitStack() as held:
            for each in servers:
                held.enter_context(each.hold("PUT"))
            async with anyio.create_task_group() as group:
                group.start_soon(buffer_remote.write_buffer, checksum, buffer_of(content))
                for each in servers:
                    await anyio.to_thread.run_sync(each.wait_for_held)
                group.cancel_scope.cancel()
            for each in servers:
                await anyio.to_thread.run_sync(each.wait_for_abandoned)
        assert this_process().calls.under_way() == []
        assert [each.in_flight for each in buffer_remote._write_server_clients] == [0, 0, 0]
        assert await buffer_remote.write_buffer(checksum, buffer_of(content)) is True

    host.run(main)


def test_an_error_of_one_server_is_logged_and_an_error_of_all_is_raised_as_it_is(
    host_with: Callable[[Settings], Host],
    shared_hashserver: Service,
    nowhere: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not in a group, though several may fail."""
    content = fresh(1000)
    checksum = checksum_of(content)

    async def main() -> None:
        use_buffers(f"{nowhere}/a", shared_hashserver)
        with caplog.at_level(logging.ERROR, "seamless_remote"):
            assert await buffer_remote.write_buffer(checksum, buffer_of(content)) is True
        assert any(f"{nowhere}/a" in record.getMessage() for record in caplog.records)
        use_buffers(f"{nowhere}/a", f"{nowhere}/b")
        with pytest.raises(ConnectionError, match="the upload of"):
            await buffer_remote.write_buffer(checksum, buffer_of(content))

    host_with(Settings(max_tries=1)).run(main)
