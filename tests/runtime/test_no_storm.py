"""However many calls are made at once, none fails for it, and connections keep to their bounds."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from loops import KINDS, LoopThread, run
from many_calls import (
    all_at_once,
    busy_processes,
    look_ups,
    reads,
    records,
    within_bounds,
    writes,
)
from registering import use_buffers, use_databases
from services import Home, Service, run_command
from signals import LONG

import seamless_remote
from seamless_remote.client import close_all_clients

MANY = 300
LOOPS = 6


@pytest.fixture
def services(fresh_remote: None, shared_hashserver: Service, shared_database: Service) -> Path:
    """A hashserver and a database are in use; the hashserver's folder."""
    use_buffers(shared_hashserver)
    use_databases(shared_database)
    return shared_hashserver.directory


@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_reads_at_once_beside_busy_processes(kind: str, services: Path) -> None:
    count = 5 * MANY if kind == "asyncio" else MANY

    async def main() -> None:
        async with seamless_remote.open_nursery():
            with within_bounds(reads(services, count)) as calls:
                await all_at_once(calls)

    with busy_processes(2):
        run(kind, main)
    close_all_clients()


def test_all_kinds_of_calls_at_once_from_several_loops(
    services: Path, loop_threads: Callable[[str], LoopThread]
) -> None:
    """Each loop may have one connection beyond the bound of a lane, and no more."""
    loops = [loop_threads(KINDS[number % 3]) for number in range(LOOPS)]
    calls = [*reads(services, MANY), *look_ups(MANY), *writes(MANY), *records(MANY // 4)]
    with within_bounds(calls, LOOPS) as noted:
        under_way = [
            loop.start(all_at_once, noted[number::LOOPS]) for number, loop in enumerate(loops)
        ]
        for each in under_way:
            each.result(LONG)
    nursery = seamless_remote.current_nursery()
    assert nursery is not None
    limiter = nursery.snapshot().limiter
    assert (limiter.in_flight, limiter.waiting) == (0, 0)
    close_all_clients()


@pytest.mark.parametrize(
    ("host", "caller", "count"),
    [("trio", "asyncio", 10 * MANY), ("asyncio", "trio", MANY), ("uvloop", "uvloop", MANY)],
)
def test_calls_of_a_thread_at_once_beside_a_host_that_stands_still_need_few_descriptors(
    host: str,
    caller: str,
    count: int,
    home: Home,
    shared_hashserver: Service,
    shared_database: Service,
) -> None:
    """With 256 descriptors for all of the process, in a process of its own: this file."""
    if "uvloop" in (host, caller):
        pytest.importorskip("uvloop")
    done = run_command(
        [sys.executable, "-W", "error", __file__, host, caller, str(count)],
        home=home,
        env={
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HASHSERVER": shared_hashserver.url,
            "FOLDER": str(shared_hashserver.directory),
            "DATABASE": shared_database.url,
        },
    )
    assert done.stderr == ""
    assert done.stdout == "reads\nlook-ups\nwrites\n"


def main() -> None:
    """A host that stands still in its own loop while a thread makes thousands of calls."""
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    host, caller, count = sys.argv[1:]
    use_buffers(os.environ["HASHSERVER"])
    use_databases(os.environ["DATABASE"])
    kinds = {
        "reads": reads(Path(os.environ["FOLDER"]), int(count)),
        "look-ups": look_ups(int(count)),
        "writes": [*writes(MANY // 2), *records(MANY // 2)],
    }

    async def stand_still() -> None:
        async with seamless_remote.open_nursery():
            for name, calls in kinds.items():
                with within_bounds(calls) as noted:
                    thread = threading.Thread(target=run, args=(caller, all_at_once, noted))
                    thread.start()
                    thread.join()
                print(name)

    run(host, stand_still)


if __name__ == "__main__":
    main()
