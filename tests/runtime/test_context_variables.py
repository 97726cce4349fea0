"""The context of a request is its caller's: what a logging filter sees there, for example."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar, copy_context

import anyio
import anyio.to_thread
import pytest
import trio
from counting_proxy import CountingProxy
from hosts import Host
from loops import KINDS, new_loop, run
from many_calls import all_at_once, look_ups
from registering import use_buffers, use_databases
from services import Service
from stored_buffers import fresh, put_file

from seamless_remote import Settings, open_nursery
from seamless_remote.buffer_client import BufferClient

request_id: ContextVar[str] = ContextVar("request_id", default="nobody")


class Seen(logging.Filter):
    """Notes for whom a connection was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.by: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if record.getMessage().endswith("connection opened"):
            self.by.append(request_id.get())
        return True


@pytest.fixture
def seen(fresh_remote: None, caplog: pytest.LogCaptureFixture) -> Iterator[Seen]:
    caplog.set_level(logging.DEBUG, "seamless_remote.transport")
    found = Seen()
    logger = logging.getLogger("seamless_remote.transport.pool")
    logger.addFilter(found)
    yield found
    logger.removeFilter(found)


async def look_up_as(name: str) -> None:
    request_id.set(name)
    await look_ups(1)[0]()


def test_a_request_has_the_context_variables_of_the_task_that_makes_it(
    host: Host, seen: Seen, shared_database: Service, proxy: Callable[[Service], CountingProxy]
) -> None:
    between = proxy(shared_database)
    names = [f"caller {number}" for number in range(10)]

    async def main() -> None:
        use_databases(between)
        # All at once, and none is answered before: each opens a connection.
        with between.hold("GET / "):
            async with anyio.create_task_group() as group:
                for name in names:
                    group.start_soon(look_up_as, name)
                await anyio.to_thread.run_sync(between.wait_for_held, len(names))
                between.release()

    host.run(main)
    assert sorted(each for each in seen.by if each != "nobody") == names


@pytest.mark.parametrize("kind", KINDS)
def test_calls_of_other_loops_have_their_callers_context_as_well(
    kind: str, host: Host, seen: Seen, shared_database: Service
) -> None:
    def in_another_loop() -> None:
        request_id.set("set in a thread")
        run(kind, all_at_once, look_ups(1))

    async def main() -> None:
        request_id.set("set in the host")
        use_databases(shared_database)
        thread = threading.Thread(target=in_another_loop)
        thread.start()
        await anyio.to_thread.run_sync(thread.join)

    host.run(main)
    assert "set in a thread" in seen.by
    assert "set in the host" not in seen.by


def test_a_synchronous_call_has_the_context_of_the_code_that_makes_it(
    host: Host, seen: Seen, shared_hashserver: Service, proxy: Callable[[Service], CountingProxy]
) -> None:
    # Not in effect, so that nobody else pings it.
    client = BufferClient(url=proxy(shared_hashserver).url)

    async def main() -> None:
        request_id.set("set before a synchronous call")
        client.ensure_initialized_sync()

    host.run(main)
    assert seen.by == ["set before a synchronous call"]


def test_a_call_in_an_asyncio_loop_inside_a_trio_task_has_the_context_of_that_task(
    seen: Seen, shared_hashserver: Service
) -> None:
    """Seamless makes such a loop in `Checksum.resolve()`."""
    content = fresh(1000)
    checksum = put_file(shared_hashserver.directory, content)

    async def main() -> None:
        use_buffers(shared_hashserver)
        request_id.set("set in a trio task")
        assert checksum.resolve().content == content

    Host("trio", True, Settings()).run(main)
    assert "set in a trio task" in seen.by


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("named", ["asyncio", "trio"])
def test_a_loop_counts_for_what_it_is_whatever_backend_its_context_names(
    kind: str, named: str, fresh_remote: None, shared_database: Service
) -> None:
    async def context_of_a_task() -> Context:
        return copy_context()

    async def main() -> None:
        use_databases(shared_database)
        await look_ups(1)[0]()
        async with open_nursery():
            await look_ups(1)[0]()

    def in_a_loop() -> None:
        if kind == "trio":
            trio.run(main)
            return
        loop = new_loop(kind)
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()

    run(named, context_of_a_task).run(in_a_loop)
