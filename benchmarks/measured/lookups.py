"""Look-ups of transformation results: in one loop, in many, in many threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from meter import Meter, Report
from peer import Peer
from task import Task, lookup_key, require, result_of

_WARM_UP = 60


def gathered(peer: Peer, task: Task) -> Report:
    """`count` look-ups at once in one loop."""

    async def main() -> Report:
        peer.connect(task)
        await peer.gather(peer.lookup, _keys(_WARM_UP))
        keys = _keys(task["count"])
        with Meter() as meter:
            results = await peer.gather(peer.lookup, keys)
        return _checked(meter.report(len(keys)), keys, results)

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


def _keys(count: int, *, first: int = 0) -> list[str]:
    return [lookup_key(number) for number in range(first, first + count)]


def _checked(report: Report, keys: Sequence[str], results: Sequence[str]) -> Report:
    require(results == [result_of(key) for key in keys], "a look-up's result")
    report.checks = len(keys)
    return report
