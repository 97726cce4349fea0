"""Calls that have come to a stand: in every state in which a caller may leave them."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import remote_http_launcher
from counting_proxy import CountingProxy
from fault_proxy import Fault, FaultProxy, Harm, Toward
from jobs import Submission
from many_calls import LANE_BOUND, LIMITER_BOUND, Calls, look_ups, reads
from played_launches import PlayedLaunches
from registering import use_buffers, use_databases
from services import Service
from signals import LONG
from silent_server import SilentServer
from stored_buffers import buffer_of, checksum_of, fresh, incompressible, put_file

from seamless_remote import buffer_remote, database_remote, jobserver_remote
from seamless_remote.clients import retry_policy
from seamless_remote.nursery.process import this_process

LARGE = 32_000_000
SOME = 4


@dataclass
class Situation:
    """Calls that come to a stand, when they have, and what other loops' calls need to go on."""

    calls: Calls
    reached: Callable[[], object]
    others: Calls
    go_on: Callable[[], object] = lambda: None


@dataclass
class World:
    """What the situations are made of."""

    hashserver: Service
    database: Service
    patch: pytest.MonkeyPatch
    request: pytest.FixtureRequest
    end: ExitStack = field(default_factory=ExitStack)

    def silent(self) -> SilentServer:
        return self._made(SilentServer())

    def proxy(self, service: Service) -> CountingProxy:
        return self._made(CountingProxy(service.port))

    def faulty(self, service: Service) -> FaultProxy:
        return self._made(FaultProxy(service.port))

    def stored(self, size: int) -> Any:
        return put_file(self.hashserver.directory, incompressible(size))

    def _made(self, made: Any) -> Any:
        self.end.callback(made.close)
        return made


def look_ups_in_flight_and_waiting_for_their_turn(world: World) -> Situation:
    results = world.silent()
    use_databases(results)
    limiter = this_process().limiter
    return Situation(
        look_ups(LIMITER_BOUND + SOME),
        lambda: results.count("GET / ") == LIMITER_BOUND and limiter.snapshot().waiting == SOME,
        look_ups(2 * LIMITER_BOUND),
        lambda: use_databases(world.database),
    )


def reads_in_flight_and_waiting_for_a_connection(world: World) -> Situation:
    between = world.proxy(world.hashserver)
    use_buffers(between)
    world.end.enter_context(between.hold("GET /"))
    folder = world.hashserver.directory
    return Situation(
        reads(folder, LANE_BOUND + SOME),
        lambda: between.held >= LANE_BOUND,
        reads(folder, LANE_BOUND + SOME),
        between.release,
    )


def connecting(world: World) -> Situation:
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    world.end.callback(full.close)
    address = full.getsockname()
    for _ in range(4):
        waiting = socket.socket()
        world.end.callback(waiting.close)
        waiting.setblocking(False)
        with suppress(BlockingIOError):
            waiting.connect(address)
    use_databases(f"http://127.0.0.1:{address[1]}")
    begun = time.monotonic()
    return Situation(
        look_ups(SOME),
        lambda: waits_for("a new connection", SOME) and time.monotonic() > begun + 0.2,
        look_ups(SOME),
        lambda: use_databases(world.database),
    )


def looking_a_name_up(world: World) -> Situation:
    hanging, end = threading.Event(), threading.Event()

    def look_up(*args: object, **options: object) -> Any:
        if not options.get("flags"):
            hanging.set()
            end.wait(LONG)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    world.patch.setattr(socket, "getaddrinfo", look_up)
    world.end.callback(end.set)
    use_databases("http://name.invalid")

    def go_on() -> None:
        world.patch.undo()
        use_databases(world.database)

    return Situation(look_ups(SOME), hanging.is_set, look_ups(SOME), go_on)


def amid_an_answer(size: int) -> Callable[[World], Situation]:
    def make(world: World) -> Situation:
        between = world.proxy(world.hashserver)
        use_buffers(between)
        checksums = [world.stored(size) for _ in range(SOME)]
        between.stall_after = size // 2

        async def copy(checksum: Any) -> None:
            target = io.BytesIO()
            assert await buffer_remote.copy_buffer(checksum, target, target.close)

        async def get(checksum: Any) -> None:
            assert await buffer_remote.get_buffer(checksum) is not None

        # Two share each transfer.
        calls = [lambda each=each: get(each) for each in [*checksums, *checksums]]
        copies = [lambda each=each: copy(each) for each in checksums]
        return Situation(
            [*calls, *copies],
            lambda: between.held == 2 * SOME,
            calls,
            between.release,
        )

    return make


def amid_an_upload(world: World) -> Situation:
    between = world.faulty(world.hashserver)
    use_buffers(between)
    content = incompressible(LARGE)
    checksum = checksum_of(content)
    between.put(Fault(Harm.STALL, Toward.SERVICE, at=LARGE // 8))
    folder = world.hashserver.directory / checksum.hex()[:2]

    async def write() -> None:
        assert await buffer_remote.write_buffer(checksum, buffer_of(content)) is True

    return Situation(
        [write],
        lambda: list(folder.glob(f"{checksum.hex()}-*")),
        [write],
        lambda: between.put(None),
    )


def pausing_between_two_tries(world: World) -> Situation:
    world.patch.setattr(retry_policy, "pause", lambda *args, **options: 3600.0)
    results = world.silent()
    results.die()
    use_databases(results)

    def go_on() -> None:
        world.patch.undo()
        use_databases(world.database)

    return Situation(look_ups(SOME), lambda: waits_for("its next try", SOME), look_ups(SOME), go_on)


def waiting_for_a_promise(world: World) -> Situation:
    use_buffers(world.hashserver)
    contents = [fresh(100 + number) for number in range(SOME)]
    checksums = [checksum_of(content) for content in contents]

    async def promise() -> None:
        for checksum in checksums:
            await buffer_remote.promise(checksum)

    asyncio.run(promise())
    (client,) = buffer_remote._read_server_clients

    async def get(checksum: Any) -> None:
        assert await buffer_remote.get_buffer(checksum) is not None

    async def write() -> None:
        for checksum, content in zip(checksums, contents, strict=True):
            assert await buffer_remote.write_buffer(checksum, buffer_of(content))

    waits = [lambda each=each: get(each) for each in checksums]
    return Situation(
        waits,
        lambda: sum(map(len, list(client._awaited._reads.values()))) == SOME,
        [*waits, write],
    )


def waiting_for_a_launch(world: World) -> Situation:
    world.request.getfixturevalue("cluster")
    launches, come = PlayedLaunches(), threading.Event()
    world.patch.setattr(remote_http_launcher, "run", launches.run)

    def play(number: int) -> int:
        assert come.wait(LONG)
        return world.database.port

    launches.play = play
    database_remote.activate()
    return Situation(
        look_ups(SOME),
        lambda: waits_for("the launch of its service", SOME),
        look_ups(SOME),
        come.set,
    )


def awaiting_a_job(world: World) -> Situation:
    server = world.silent()
    jobserver_remote.define_extern_client("silent", "jobserver", url=server.url)
    jobserver_remote.activate(no_main=True, extern_clients=["silent"])
    use_databases(world.database)

    async def run() -> None:
        await Submission({"__language__": "python"}, checksum_of(fresh(9))).run()

    return Situation(
        [run] * SOME, lambda: server.count("/run-transformation") == SOME, look_ups(SOME)
    )


SITUATIONS = {
    "look-ups in flight and waiting for their turn": look_ups_in_flight_and_waiting_for_their_turn,
    "reads in flight and waiting for a connection": reads_in_flight_and_waiting_for_a_connection,
    "connecting": connecting,
    "looking a name up": looking_a_name_up,
    "amid a small answer": amid_an_answer(200_000),
    "amid a large answer": amid_an_answer(6_000_000),
    "amid an upload": amid_an_upload,
    "pausing between two tries": pausing_between_two_tries,
    "waiting for a promise": waiting_for_a_promise,
    "waiting for a launch": waiting_for_a_launch,
    "awaiting a job": awaiting_a_job,
}


def waits_for(text: str, count: int) -> bool:
    under_way = this_process().calls.under_way()
    return sum(text in each.snapshot().waits_for for each in under_way) == count
