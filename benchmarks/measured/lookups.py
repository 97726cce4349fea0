"""Look-ups of transformation results: in one loop, in many, in many threads; and their writes."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import random
import threading
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from meter import Connections, Meter, Report
from peer import Peer
from task import LOOKUPS, Task, lookup_key, require, result_of

_WARM_UP = 60


def gathered(peer: Peer, task: Task) -> Report:
    """`count` look-ups at once in one loop.

    `times_before`: how often the process has done that before. `waiting`: also what a look-up that
    waits takes.
    """

    async def main() -> Report:
        peer.connect(task)
        await peer.gather(peer.lookup, _keys(_WARM_UP))
        keys = _keys(task["count"])
        for _ in range(task.get("times_before", 0)):
            await peer.gather(peer.lookup, keys)
        waiting = task.get("waiting")
        counted = Connections(task["database"]) if waiting else contextlib.nullcontext()
        with counted as connections, Meter() as meter:
            results = await peer.gather(peer.lookup, keys)
        report = meter.report(len(keys))
        if connections:
            report.extra = {"waiting_bytes": report.grown_mb * 1e6 / len(keys), **connections.told}
        _check(keys, results)
        return report

    return peer.run(main)


def written(peer: Peer, task: Task) -> Report:
    """The results of `count` new transformations, written at once in one loop."""

    async def main() -> Report:
        peer.connect(task)
        await peer.lookup(lookup_key(0))
        first = random.randrange(10**9, 10**15)  # nobody has written these before
        keys = _keys(task["count"], first=first)
        with Meter() as meter:
            await peer.gather(peer.record, keys)
        # What a peer says of its writes is not asked: the database has them, or not.
        _check(keys, _stored(task["database"], keys))
        return meter.report(len(keys))

    return peer.run(main)


def in_turn(peer: Peer, task: Task) -> Report:
    """`count` look-ups one after another in one loop."""

    async def main() -> Report:
        peer.connect(task)
        await peer.lookup(lookup_key(0))
        keys = _keys(task["count"])
        with Meter() as meter:
            results = [await peer.lookup(key) for key in keys]
        _check(keys, results)
        return meter.report(len(keys))

    return peer.run(main)


def asyncio_run_each(peer: Peer, task: Task) -> Report:
    """`count` look-ups by a synchronous caller, each through `asyncio.run`."""
    peer.connect(task)
    asyncio.run(peer.lookup(lookup_key(0)))
    keys = _keys(task["count"])
    with Meter() as meter:
        results = [asyncio.run(peer.lookup(key)) for key in keys]
    _check(keys, results)
    return meter.report(len(keys))


def threads(peer: Peer, task: Task) -> Report:
    """`count` look-ups at once in each of `threads` threads with a loop of its own."""
    peer.connect(task)
    asyncio.run(peer.lookup(lookup_key(0)))
    count = task["count"]
    results: dict[int, list[str]] = {}

    def work(number: int) -> None:
        keys = _keys(count, first=number * count)
        results[number] = asyncio.run(peer.gather(peer.lookup, keys))

    workers = [threading.Thread(target=work, args=(n,)) for n in range(task["threads"])]
    with Meter() as meter:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    keys = _keys(count * len(workers))
    _check(keys, [answer for number in sorted(results) for answer in results[number]])
    return meter.report(len(keys))


def beside_computation(peer: Peer, task: Task) -> Report:
    """Look-ups one after another in a thread with its own loop, while the host's loop computes.

    The computation is plain Python and lasts `seconds`. The CPU time is without it.
    """
    ended: list[float] = []
    ready, over = threading.Event(), threading.Event()

    async def look_up() -> None:
        for number in itertools.count():
            key = lookup_key(number % LOOKUPS)
            _check([key], [await peer.lookup(key)])
            ended.append(time.perf_counter())
            ready.set()
            if over.is_set():
                return

    async def main() -> Report:
        peer.connect(task)
        await peer.lookup(lookup_key(0))
        thread = threading.Thread(target=asyncio.run, args=(look_up(),))
        thread.start()
        while not ready.is_set():
            await peer.sleep(0.01)
        with Meter() as meter:
            own = time.thread_time()
            until = time.perf_counter() + task["seconds"]
            while time.perf_counter() < until:
                sum(range(1000))
            own = time.thread_time() - own
        began, end = until - task["seconds"], time.perf_counter()
        over.set()
        while thread.is_alive():
            await peer.sleep(0.01)
        count = sum(began < each <= end for each in ended)
        require(count, "no look-up ended")
        report = meter.report(count)
        report.cpu -= own
        return report

    return peer.run(main)


def _stored(url: str, keys: Sequence[str]) -> list[str]:
    """What a database has as the results, asked on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    found = []
    for key in keys:
        question = json.dumps({"type": "transformation", "checksum": key})
        connection.request("GET", "/", question)
        found.append(connection.getresponse().read().decode())
    connection.close()
    return found


def _keys(count: int, *, first: int = 0) -> list[str]:
    return [lookup_key(number) for number in range(first, first + count)]


def _check(keys: Sequence[str], results: Sequence[str]) -> None:
    require(results == [result_of(key) for key in keys], "a look-up's result")
