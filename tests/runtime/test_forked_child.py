"""A forked child starts from nothing: it counts none of its parent's calls, and makes its own."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loops import KINDS, LoopThread, run
from many_calls import LIMITER_BOUND, all_at_once, look_ups, reads, records, writes
from registering import use_buffers, use_databases
from services import Home, Service, run_command, wait_until
from silent_server import SilentServer

import seamless_remote
from seamless_remote import NurseryClosedError, Settings, buffer_remote, database_remote
from seamless_remote.client import close_all_clients
from seamless_remote.clients.connections import connections
from seamless_remote.nursery.process import this_process

WAITING = 10


@pytest.mark.parametrize("where", ["no host", "an asyncio host", "a trio host", "a call's loop"])
def test_a_forked_child_counts_none_of_its_parents_calls_and_makes_its_own(
    where: str,
    home: Home,
    shared_hashserver: Service,
    shared_database: Service,
    silent: Callable[[], SilentServer],
) -> None:
    """In a program of its own: this file."""
    done = run_command(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", __file__, where],
        home=home,
        env={
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HASHSERVER": shared_hashserver.url,
            "FOLDER": str(shared_hashserver.directory),
            "DATABASE": shared_database.url,
            "SILENT": silent().url,
        },
    )
    assert done.stderr == ""
    assert done.stdout == "child\nparent\n"


def main() -> None:
    """Fork while many calls are under way in the loop of a thread."""
    this_process().settings = Settings(grace_period=0.1)
    use_buffers(os.environ["SILENT"])
    use_databases(os.environ["SILENT"])
    busy = LoopThread("asyncio")
    count = LIMITER_BOUND + WAITING
    call = busy.start(all_at_once, look_ups(count))
    limiter = this_process().limiter
    wait_until(lambda: limiter.snapshot().waiting == WAITING)

    async def fork_in_a_task() -> None:
        fork()

    async def fork_in_a_host() -> None:
        async with seamless_remote.open_nursery(Settings(grace_period=0.1)):
            fork()

    where = sys.argv[1]
    if where == "no host":
        fork()
    elif where == "a call's loop":
        busy.run(fork_in_a_task)
    else:
        run("trio" if "trio" in where else "asyncio", fork_in_a_host)
    # The parent's own go on.
    assert limiter.snapshot().in_flight == LIMITER_BOUND
    assert len(this_process().calls.under_way()) == count
    assert sum(each.in_flight for each in clients()) == count
    close_all_clients()
    ended = call.exception()
    assert isinstance(ended, Exception)
    closed, others = ended.split(NurseryClosedError)  # type: ignore[attr-defined]
    # The first one to end cancels those beside it.
    assert closed is not None
    assert others is None
    busy.end()
    print("parent")


def fork() -> None:
    """Check everything in a child."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
        return
    status = 1
    try:
        in_the_child()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def in_the_child() -> None:
    assert seamless_remote.current_nursery() is None
    assert this_process().calls.under_way() == []
    limiter = this_process().limiter.snapshot()
    assert (limiter.in_flight, limiter.waiting) == (0, 0)
    assert connections.snapshot() == ()
    for each in clients():
        assert each.in_flight == 0
        assert (each.snapshot().requests, each.snapshot().retries) == (0, 0)
    use_buffers(os.environ["HASHSERVER"])
    use_databases(os.environ["DATABASE"])
    calls = [*reads(Path(os.environ["FOLDER"]), 40), *look_ups(40), *writes(40), *records(40)]
    # Not in this thread, where anyio may still see a loop of the parent.
    for kind in KINDS:
        thread = threading.Thread(target=run, args=(kind, all_at_once, calls))
        thread.start()
        thread.join()
    nursery = seamless_remote.current_nursery()
    assert nursery is not None
    snapshot = nursery.snapshot()
    assert snapshot.calls == ()
    assert (snapshot.limiter.in_flight, snapshot.limiter.waiting) == (0, 0)
    close_all_clients()
    print("child")


def clients() -> list[Any]:
    return [*buffer_remote._read_server_clients, *database_remote._read_database_clients]


if __name__ == "__main__":
    main()
