"""Look-ups of transformation results: in one loop, in many, in many threads; and their writes."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Sequence

from meter import Meter, Report, counted_connections
from peer import Peer
from task import LOOKUPS, Task, ask_database, lookup_key, require, result_of

_WARM_UP = 60
_THREADS = 8
_COMPUTING_SECONDS = 3.0


async def gathered(peer: Peer, task: Task) -> Report:
    """`count` look-ups at once in one loop; `before`: how often the process has done that."""
    return (await _at_once(peer, task)).report(task["count"])


async def waiting(peer: Peer, task: Task) -> Report:
    """The same, with the memory for each look-up that waits and the number of connections."""
    with counted_connections(task["database"]) as most_connections:
        meter = await _at_once(peer, task)
        connections = most_connections()
    memory = meter.grown / task["count"]
    return meter.report(task["count"], waiting_bytes=memory, connections=connections)


async def written(peer: Peer, task: Task) -> Report:
    """The results of `count` new transformations, written at once in one loop."""
    await peer.lookup(lookup_key(0))
    first = random.randrange(10**9, 10**15)  # nobody has written these before
    keys = _keys(task["count"], first=first)
    with Meter() as meter:
        await peer.gather(peer.record, keys)
    # What a peer says of its writes is not asked: the database has them, or not.
    stored = ask_database(task["database"], "GET", ({"checksum": key} for key in keys))
    return _report(meter, keys, stored)


async def in_turn(peer: Peer, task: Task) -> Report:
    """`count` look-ups one after another in one loop."""
    await peer.lookup(lookup_key(0))
    keys = _keys(task["count"])
    with Meter() as meter:
        results = [await peer.lookup(key) for key in keys]
    return _report(meter, keys, results)


def asyncio_run_each(peer: Peer, task: Task) -> Report:
    """`count` look-ups by a synchronous caller, each through `asyncio.run`."""
    asyncio.run(peer.lookup(lookup_key(0)))
    keys = _keys(task["count"])
    with Meter() as meter:
        results = [asyncio.run(peer.lookup(key)) for key in keys]
    return _report(meter, keys, results)


def threads(peer: Peer, task: Task) -> Report:
    """`count` look-ups at once in each of some threads with a loop of its own."""
    asyncio.run(peer.lookup(lookup_key(0)))
    count = task["count"]
    results: dict[int, list[str]] = {}

    def work(first: int) -> None:
        results[first] = asyncio.run(peer.gather(peer.lookup, _keys(count, first=first)))

    firsts = range(0, count * _THREADS, count)
    workers = [threading.Thread(target=work, args=(first,)) for first in firsts]
    with Meter() as meter:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    answers = [answer for first in firsts for answer in results[first]]
    return _report(meter, _keys(count * _THREADS), answers)


async def beside_computation(peer: Peer, task: Task) -> Report:
    """Look-ups one after another in a thread with its own loop, while the host's loop computes.

    The computation is plain Python. The CPU time is without it.
    """
    results: list[str] = []
    over = False

    async def look_up() -> None:
        while not over:
            results.append(await peer.lookup(lookup_key(len(results) % LOOKUPS)))

    await peer.lookup(lookup_key(0))
    thread = threading.Thread(target=asyncio.run, args=(look_up(),))
    thread.start()
    while not results:
        await peer.sleep(0.01)
    before = len(results)
    with Meter() as meter:
        computing = time.thread_time()
        until = time.perf_counter() + _COMPUTING_SECONDS
        while time.perf_counter() < until:
            sum(range(1000))
        computing = time.thread_time() - computing
    count = len(results) - before
    over = True
    while thread.is_alive():
        await peer.sleep(0.01)
    require(count, "no look-up ended")
    _check([lookup_key(number % LOOKUPS) for number in range(len(results))], results)
    report = meter.report(count)
    report["cpu"] -= computing / count
    return report


async def _at_once(peer: Peer, task: Task) -> Meter:
    await peer.gather(peer.lookup, _keys(_WARM_UP))
    keys = _keys(task["count"])
    for _ in range(task.get("before", 0)):
        await peer.gather(peer.lookup, keys)
    with Meter() as meter:
        results = await peer.gather(peer.lookup, keys)
    _check(keys, results)
    return meter


def _keys(count: int, *, first: int = 0) -> list[str]:
    return [lookup_key(number) for number in range(first, first + count)]


def _report(meter: Meter, keys: Sequence[str], results: Sequence[str]) -> Report:
    _check(keys, results)
    return meter.report(len(keys))


def _check(keys: Sequence[str], results: Sequence[str]) -> None:
    require(results == [result_of(key) for key in keys], "a look-up's result")
