"""A loop may be closed, or dropped, in the middle of an exchange: nothing is left of that.

Each connection here has served before, in another loop: it is older than what uses it, and so the
collector comes to it first.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import anyio
import pytest
from exchanges import BIG, OK, SETTINGS, Serve, ask, both_schemes, get, pool_of
from scripted_server import PATIENCE, Peer, answer_when_released, echo, open_sockets

from seamless_remote.errors import ExchangeError
from seamless_remote.nursery.calls import Call
from seamless_remote.nursery.event_loops import running_loop
from seamless_remote.transport.messages import Request
from seamless_remote.transport.poller import Received
from seamless_remote.transport.readiness import readiness_in
from seamless_remote.transport.socket_io import SocketIO
from seamless_remote.transport.transport import Transport
from seamless_remote.transport.urls import Origin

NewLoop = Callable[[], asyncio.AbstractEventLoop]


def new_uvloop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return loop


any_asyncio = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, new_uvloop])
any_end = pytest.mark.parametrize(
    ("new_loop", "closed"),
    # uvloop keeps a loop that nobody has closed, and all that is in it.
    [(asyncio.new_event_loop, True), (asyncio.new_event_loop, False), (new_uvloop, True)],
    ids=["asyncio closed", "asyncio dropped", "uvloop closed"],
)

SAID = {
    "the head": b"",
    "the rest of the head": b"HTTP/1.1 200",
    "a small body": OK + b"Content-Length: 5\r\n\r\nab",
    "a large body": OK + b"Content-Length: 500000\r\n\r\nab",
    "a body without length": OK + b"\r\nab",
    "the upload": None,
}


@pytest.fixture(autouse=True)
def quiet_hosts() -> Iterator[None]:
    """What asyncio says about a host that leaves a loop open is the host's business."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed event loop", ResourceWarning)
        # The pair of sockets by which a loop is woken.
        warnings.filterwarnings("ignore", "unclosed <socket.socket.*family=1", ResourceWarning)
        yield


def begin(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, object], reached: Callable[[], bool]
) -> None:
    """Run a task of `loop` until `reached`, and for some turns more. It goes no further."""
    task: Any = loop.create_task(work)
    task._log_destroy_pending = False

    async def wait() -> None:
        with anyio.fail_after(PATIENCE):
            while not reached():  # noqa: ASYNC110 - a server's thread brings it about
                await anyio.sleep(0.001)
            for _ in range(20):
                await anyio.sleep(0.001)

    loop.run_until_complete(wait())
    assert not task.done()


def collect_elsewhere() -> None:
    """The collector comes in whatever thread, while others run."""
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()


@any_end
@both_schemes
@pytest.mark.parametrize("said", SAID.values(), ids=SAID.keys())
def test_a_connection_in_use_is_closed_silently_and_its_place_comes_back(
    serve: Serve, transport: Transport, new_loop: NewLoop, said: bytes | None, closed: bool
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.answer(b"hello")
        if said is None:
            peer.head()
        else:
            peer.request()
            peer.send(said)
        peer.server.reached.set()
        peer.wait()

    server = serve(script, echo)

    async def warm_up() -> None:
        assert await get(transport, server, bound=1) == b"hello"

    async def work() -> None:
        request = Request("PUT", "/", body=BIG if said is None else b"x")
        await (await ask(transport, server, request, bound=1)).read(1 << 20)

    asyncio.run(warm_up())
    before = open_sockets()
    loop = new_loop()
    begin(loop, work(), server.reached.is_set)
    assert pool_of(transport).in_use == server.accepted == 1
    alive = weakref.ref(loop)
    if closed:
        loop.close()
    del loop
    collect_elsewhere()
    assert alive() is None
    assert pool_of(transport).in_use == 0
    assert len(before - open_sockets()) == 1
    asyncio.run(warm_up())


@any_end
@both_schemes
@pytest.mark.parametrize("pending", [True, False], ids=["pending", "unread"])
def test_an_answer_that_nobody_reads_is_given_up_with_its_loop(
    serve: Serve, transport: Transport, new_loop: NewLoop, pending: bool, closed: bool
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.server.reached.set()
        if not pending:
            peer.send(OK + b"Content-Length: 500000\r\n\r\nab")
        peer.wait()

    server = serve(script)
    asked: list[bool] = []

    async def hold() -> None:
        patience = 0.01 if pending else None
        async with await ask(transport, server, patience=patience) as response:
            asked.append(response.is_pending)
            await asyncio.Event().wait()

    loop = new_loop()
    begin(loop, hold(), lambda: bool(asked))
    assert asked == [pending]
    assert pool_of(transport).in_use == 1
    alive = weakref.ref(loop)
    if closed:
        loop.close()
    del loop
    gc.collect()
    assert alive() is None
    assert pool_of(transport).in_use == 0


@any_end
@pytest.mark.parametrize("stage", ["connecting", "shaking hands"])
def test_a_connection_that_is_being_made_is_given_up_with_its_loop(
    serve: Serve,
    deaf: Origin,
    transport: Transport,
    server_context: object,
    new_loop: NewLoop,
    stage: str,
    closed: bool,
) -> None:
    server = serve(answer_when_released)
    origin = server.origin._replace(scheme="https") if stage == "shaking hands" else deaf

    async def connect() -> None:
        call = Call(running_loop(), SETTINGS)
        await transport.send(call, Request("GET", "/"), origin, lane="x", read_timeout=60, bound=1)

    before = open_sockets()
    loop = new_loop()
    begin(loop, connect(), lambda: stage == "connecting" or server.accepted == 1)
    alive = weakref.ref(loop)
    if closed:
        loop.close()
    del loop
    gc.collect()
    assert alive() is None
    assert pool_of(transport).in_use == 0
    server.close()
    assert not open_sockets() - before


@any_end
def test_waiters_of_a_loop_that_has_ended_are_passed_over(
    serve: Serve, transport: Transport, new_loop: NewLoop, closed: bool
) -> None:
    server = serve(answer_when_released)

    async def work() -> bytes:
        return await get(transport, server, bound=1)

    async def many() -> None:
        await asyncio.gather(*(work() for _ in range(10)))

    loop = new_loop()
    begin(loop, many(), lambda: server.reached.is_set() and pool_of(transport).waiting == 9)
    if closed:
        loop.close()
    del loop
    gc.collect()
    assert (pool_of(transport).in_use, pool_of(transport).waiting) == (0, 0)
    server.release()
    assert asyncio.run(work()) == b"late"


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@any_asyncio
def test_a_loop_that_has_ended_leaves_no_descriptor_to_the_collector(
    serve: Serve, transport: Transport, new_loop: NewLoop
) -> None:
    """A program may use a loop for each call, and have few descriptors."""
    server = serve()

    def one_call() -> None:
        loop = new_loop()
        assert loop.run_until_complete(get(transport, server)) == b"hello"
        loop.close()

    one_call()
    gc.collect()
    gc.disable()
    try:
        before = descriptors()
        for _ in range(20):
            one_call()
        assert descriptors() == before
    finally:
        gc.enable()


@any_asyncio
def test_an_error_that_comes_as_the_loop_ends_is_nobodys(
    new_loop: NewLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio would complain of a future whose exception was never retrieved."""
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        there.send(b"x")
        end_as_a_step_fails(new_loop(), here)
        gc.collect()
    assert not caplog.records


def end_as_a_step_fails(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    readiness = readiness_in(loop, sock, None)

    def fail_last() -> Received:
        loop.stop()
        raise LookupError

    async def wait() -> None:
        await readiness.until(fail_last)

    task: Any = loop.create_task(wait())
    task._log_destroy_pending = False
    loop.run_forever()
    if task.done():
        # This loop has let it run once more.
        assert isinstance(task.exception(), LookupError)
    readiness.detach()
    loop.close()


@any_asyncio
def test_ctrl_c_while_the_loop_receives_ends_the_exchange_with_an_error(
    serve: Serve, transport: Transport, new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have come between receiving bytes and taking note of them."""
    server = serve(answer_when_released, echo)
    receive = SocketIO.receive
    interruptions = [KeyboardInterrupt]

    def interrupted(io: SocketIO, size: int) -> bytes | None:
        data = receive(io, size)
        if data and interruptions:
            raise interruptions.pop()
        return data

    monkeypatch.setattr(SocketIO, "receive", interrupted)
    loop = new_loop()
    try:
        task = loop.create_task(get(transport, server, bound=1))
        server.release()
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        with pytest.raises(ExchangeError, match="interrupted"):
            loop.run_until_complete(task)
        assert loop.run_until_complete(get(transport, server, bound=1)) == b"hello"
    finally:
        loop.close()
