"""Name look-ups: shared, abandoned, failing, and never in anybody's way."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from seamless_remote.transport.dialing import dial
from seamless_remote.transport.name_lookup import Address, look_up

pytestmark = pytest.mark.anyio
PATIENCE = 60.0
THREAD = "seamless-remote name look-up"
ODD_HOSTS = st.one_of(
    st.text(),
    st.text("a.-_[]%:/@\\ \n\0\u00e9\ud800\u3002", max_size=80),
    st.from_regex(r"(?s)\A.{0,3}(a{60,70}\.){0,5}\Z"),
)

real_getaddrinfo = socket.getaddrinfo


def address(number: int, port: int) -> Address:
    return socket.AF_INET, (f"127.0.0.{number}", port)


class Resolver:
    """In the place of `socket.getaddrinfo`: answers, or not, as a test wants it.

    Names that are not given get what the real one says of them without asking anybody.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, int | Exception] = {}
        self.slow: dict[str, threading.Event] = {}
        self.reached = threading.Event()

    def __call__(self, host: str, port: int, *, type: int, flags: int) -> list[Any]:
        if flags & socket.AI_NUMERICHOST:
            return real_getaddrinfo(host, port, type=type, flags=flags)
        self.asked.append(host)
        if host in self.slow:
            self.reached.set()
            self.slow[host].wait(PATIENCE)
        answer = self.answers.get(host)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            return real_getaddrinfo(host, port, type=type, flags=flags | socket.AI_NUMERICHOST)
        found = socket.AF_INET, type, 6, "", (f"127.0.0.{answer}", port)
        return [found, found]

    def hold(self, host: str) -> threading.Event:
        """Let look-ups of `host` hang until this event is set, or the test ends."""
        return self.slow.setdefault(host, threading.Event())


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    for release in resolver.slow.values():
        release.set()
    join_lookups()


def join_lookups() -> None:
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(PATIENCE)


async def until(event: threading.Event) -> None:
    assert await anyio.to_thread.run_sync(event.wait, PATIENCE)


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("127.0.0.1", [(socket.AF_INET, ("127.0.0.1", 80))]),
        ("::1", [(socket.AF_INET6, ("::1", 80, 0, 0))]),
        (
            "localhost",
            [(socket.AF_INET, ("127.0.0.1", 80)), (socket.AF_INET6, ("::1", 80, 0, 0))],
        ),
    ],
)
async def test_literals_and_localhost_are_not_looked_up(
    resolver: Resolver, host: str, found: list[Address]
) -> None:
    assert await look_up(host, 80) == found
    assert resolver.asked == []


async def test_an_address_comes_once_and_no_answer_is_kept(resolver: Resolver) -> None:
    resolver.answers["name"] = 1
    assert await look_up("name", 80) == [address(1, 80)]
    resolver.answers["name"] = 2
    assert await look_up("name", 80) == [address(2, 80)]
    assert resolver.asked == ["name", "name"]


async def test_all_who_ask_for_a_name_meanwhile_share_one_lookup(
    resolver: Resolver, anyio_backend_name: str, anyio_backend_options: dict[str, Any]
) -> None:
    resolver.answers["name"] = 1
    release = resolver.hold("name")
    found: list[list[Address]] = []
    others_wait = threading.Event()

    async def ask() -> None:
        found.append(await look_up("name", 80))

    async def ask_in_another_loop() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            others_wait.set()

    def another_loop() -> None:
        anyio.run(
            ask_in_another_loop, backend=anyio_backend_name, backend_options=anyio_backend_options
        )

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask)
        group.start_soon(anyio.to_thread.run_sync, another_loop)
        await until(others_wait)
        assert found == []
        release.set()
    assert found == [[address(1, 80)]] * 4
    assert resolver.asked == ["name"]


async def test_other_ports_of_a_name_are_other_lookups(resolver: Resolver) -> None:
    resolver.answers["name"] = 1
    assert await look_up("name", 80) == [address(1, 80)]
    assert await look_up("name", 81) == [address(1, 81)]


async def test_a_slow_name_does_not_delay_another_one(resolver: Resolver) -> None:
    slow = [f"slow-{number}" for number in range(50)]
    for name in slow:
        resolver.hold(name)
    resolver.answers["name"] = 1
    async with anyio.create_task_group() as group:
        for name in slow:
            group.start_soon(look_up, name, 80)
        await anyio.wait_all_tasks_blocked()
        assert await look_up("name", 80) == [address(1, 80)]
        group.cancel_scope.cancel()


async def test_a_cancelled_wait_leaves_the_lookup_to_the_others(resolver: Resolver) -> None:
    resolver.answers["name"] = 1
    release = resolver.hold("name")
    found: list[list[Address]] = []

    async def ask() -> None:
        found.append(await look_up("name", 80))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as cancelled:
                cancelled.start_soon(look_up, "name", 80)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        assert found == []
        release.set()
    assert found == [[address(1, 80)]]
    assert resolver.asked == ["name"]


async def test_each_waiter_of_a_failed_lookup_gets_an_error_of_its_own(resolver: Resolver) -> None:
    resolver.answers["name"] = socket.gaierror(socket.EAI_AGAIN, "try again")
    release = resolver.hold("name")
    errors: list[OSError] = []

    async def ask() -> None:
        with pytest.raises(socket.gaierror, match="try again") as caught:
            await look_up("name", 80)
        errors.append(caught.value)

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        release.set()
    assert errors[0] is not errors[1]
    assert {error.errno for error in errors} == {socket.EAI_AGAIN}
    resolver.answers["name"] = 1
    assert await look_up("name", 80) == [address(1, 80)]


@pytest.mark.parametrize("error", [MemoryError(), UnicodeError("odd"), OSError("none left")])
async def test_whatever_goes_wrong_in_the_thread_is_an_oserror(
    resolver: Resolver, error: Exception
) -> None:
    resolver.answers["name"] = error
    with pytest.raises(OSError, match=str(error) or type(error).__name__):
        await look_up("name", 80)


class NoThread(threading.Thread):
    """Cannot be started, for a reason that a test sets."""

    reason: BaseException

    def start(self) -> None:
        raise self.reason


async def test_where_no_thread_can_be_started_the_lookup_fails_and_the_next_one_may_not(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver.answers["name"] = 1
    for reason, error in (
        (RuntimeError("can't start new thread"), socket.gaierror),
        (KeyboardInterrupt("Ctrl-C"), KeyboardInterrupt),
    ):
        NoThread.reason = reason
        with monkeypatch.context() as patch:
            patch.setattr(threading, "Thread", NoThread)
            with pytest.raises(error, match=str(reason)):
                await look_up("name", 80)
        assert await look_up("name", 80) == [address(1, 80)]


@pytest.mark.parametrize("port", [0, -1, 65536, 1 << 70])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "name"])
async def test_what_is_not_a_port_is_an_oserror(resolver: Resolver, host: str, port: int) -> None:
    with pytest.raises(socket.gaierror, match="not a port"):
        await look_up(host, port)
    assert resolver.asked == []


@pytest.mark.parametrize(
    "host", ["", "*", "127.0.0.1\0.example.org", "a..b", ".", "x" * 64, "\ud800"]
)
async def test_what_is_not_a_host_name_is_told_so_without_a_lookup(
    resolver: Resolver, host: str
) -> None:
    with pytest.raises(socket.gaierror, match="is not a host name"):
        await look_up(host, 80)
    assert resolver.asked == []


@given(host=ODD_HOSTS)
@example("*")
@example("127.0.0.1\0")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_odd_hosts_give_an_oserror_and_nothing_else(resolver: Resolver, host: str) -> None:
    try:
        found = await look_up(host, 80)
    except OSError:
        with pytest.raises(OSError, match=r"^\[Errno .*\] ."):
            await dial(host, 80)
    else:
        # A number is an address: 1 is 0.0.0.1.
        assert [len(where) for _, where in found] in ([2], [4])


async def test_the_outcome_for_a_loop_that_has_ended_is_dropped_silently(
    resolver: Resolver,
    anyio_backend_name: str,
    anyio_backend_options: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = resolver.hold("name")
    complaints: list[object] = []
    monkeypatch.setattr(threading, "excepthook", complaints.append)

    async def give_up() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(look_up, "name", 80)
            await until(resolver.reached)
            group.cancel_scope.cancel()

    def loop_that_ends() -> None:
        anyio.run(give_up, backend=anyio_backend_name, backend_options=anyio_backend_options)

    with caplog.at_level(logging.WARNING):
        await anyio.to_thread.run_sync(loop_that_ends)
        release.set()
        await anyio.to_thread.run_sync(join_lookups)
    assert not caplog.records
    assert not complaints


# In programs of their own.

PROGRAM = """
import os, socket, sys, threading
import anyio
from seamless_remote.transport.name_lookup import look_up

asked = threading.Event()
real_getaddrinfo = socket.getaddrinfo
here = os.getpid()

def getaddrinfo(host, port, *, type, flags):
    if flags & socket.AI_NUMERICHOST:
        return real_getaddrinfo(host, port, type=type, flags=flags)
    if os.getpid() != here:
        return real_getaddrinfo("127.0.0.1", port, type=type, flags=flags)
    asked.set()
    os.read(never, 1)  # blocks in C, without the GIL, as a resolver does

never, _ = os.pipe()
socket.getaddrinfo = getaddrinfo

async def give_up():
    async with anyio.create_task_group() as group:
        group.start_soon(look_up, "name", 80)
        await anyio.to_thread.run_sync(asked.wait)
        group.cancel_scope.cancel()

backend, options = sys.argv[1], {"use_uvloop": True} if sys.argv[2:] else {}
anyio.run(give_up, backend=backend, backend_options=options)
"""

FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
child = os.fork()
if not child:
    found = anyio.run(look_up, "name", 80, backend=backend, backend_options=options)
    os._exit(0 if found == [(socket.AF_INET, ("127.0.0.1", 80))] else 1)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


async def run_program(source: str, name: str, options: dict[str, Any]) -> None:
    program = [sys.executable, "-W", "error", "-c", source, name]
    if options.get("use_uvloop"):
        program.append("uvloop")

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE)

    done = await anyio.to_thread.run_sync(run)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_a_name_that_never_resolves_does_not_hold_up_interpreter_exit(
    anyio_backend_name: str, anyio_backend_options: dict[str, Any]
) -> None:
    await run_program(PROGRAM, anyio_backend_name, anyio_backend_options)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
async def test_a_forked_child_does_not_wait_for_a_lookup_of_its_parent(
    anyio_backend_name: str, anyio_backend_options: dict[str, Any]
) -> None:
    await run_program(PROGRAM + FORK, anyio_backend_name, anyio_backend_options)
