"""Look-ups of transformation results: in one loop, in many, in many threads; and their writes."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from meter import Meter, Report
from peer import Peer
from task import Task, lookup_key, require, result_of

_WARM_UP = 60


def gathered(peer: Peer, task: Task) -> Report:
    """`count` look-ups at once in one loop; `waiting`: also what one that waits takes."""

    async def main() -> Report:
        peer.connect(task)
        await peer.gather(peer.lookup, _keys(_WARM_UP))
        keys = _keys(task["count"])
        if task.get("waiting"):
            _most_connections(task["database"])
        with Meter() as meter:
            results = await peer.gather(peer.lookup, keys)
        report = meter.report(len(keys))
        if task.get("waiting"):
            report.extra["waiting_bytes"] = report.grown_mb * 1e6 / len(keys)
            report.extra["connections"] = _most_connections(task["database"])
        return _checked(report, keys, results)

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
        return _checked(meter.report(len(keys)), keys, _stored(task["database"], keys))

    return peer.run(main)


def in_turn(peer: Peer, task: Task) -> Report:
    """`count` look-ups one after another in one loop."""

    async def main() -> Report:
        peer.connect(task)
        await peer.lookup(lookup_key(0))
        keys = _keys(task["count"])
        with Meter() as meter:
            results = [await peer.lookup(key) for key in keys]
        return _checked(meter.report(len(keys)), keys, results)

    return peer.run(main)


def asyncio_run_each(peer: Peer, task: Task) -> Report:
    """`count` look-ups by a synchronous caller, each through `asyncio.run`."""
    peer.connect(task)
    asyncio.run(peer.lookup(lookup_key(0)))
    keys = _keys(task["count"])
    with Meter() as meter:
        results = [asyncio.run(peer.lookup(key)) for key in keys]
    return _checked(meter.report(len(keys)), keys, results)


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
    answers = [answer for number in sorted(results) for answer in results[number]]
    return _checked(meter.report(len(keys)), keys, answers)


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


def _most_connections(url: str) -> float:
    """How many connections the stub server has been asked on at once, since it last told that."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("GET", "/most-connections")
    most = float(connection.getresponse().read())
    connection.close()
    return most


def _keys(count: int, *, first: int = 0) -> list[str]:
    return [lookup_key(number) for number in range(first, first + count)]


def _checked(report: Report, keys: Sequence[str], results: Sequence[str]) -> Report:
    require(results == [result_of(key) for key in keys], "a look-up's result")
    report.checks = len(keys)
    return report
