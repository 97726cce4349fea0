"""Buffers: small ones in number, large ones alone, to and from folders and servers.

No buffer is read twice by a process, for Seamless keeps what it has read.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from meter import Connections, Meter, Report
from peer import Peer
from task import NUMBERED, Task, checksum_of, numbered_buffer, require

_TICK = 0.001
_FILES = 1024


def resolved_in_turn(peer: Peer, task: Task) -> Report:
    """`count` small buffers, one after another, by a synchronous caller."""
    peer.connect(task)
    peer.resolve(task["small"][0])
    checksums = task["small"][1 : 1 + task["count"]]
    with Meter() as meter:
        contents = [peer.resolve(checksum) for checksum in checksums]
    _check(contents, checksums)
    return meter.report(len(checksums))


def gathered(peer: Peer, task: Task) -> Report:
    """`count` small buffers at once in one loop; `same`: so many gets of one larger buffer."""
    count = task["count"]
    checksums = [task["medium"]] * count if task.get("same") else task["small"][1 : 1 + count]

    async def main() -> Report:
        peer.connect(task)
        await peer.get(task["small"][0])
        with Meter() as meter:
            contents = await peer.gather(peer.get, checksums)
        _check(contents, checksums)
        return meter.report(count)

    return peer.run(main)


def storm(peer: Peer, task: Task) -> Report:
    """All numbered buffers of a stub server at once in one loop, with the usual 1024 open files."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, most))
    checksums = [checksum_of(numbered_buffer(number)) for number in range(NUMBERED)]

    async def got(checksum: str) -> bool:
        try:
            content = await peer.get(checksum)
        except Exception:
            return False
        if content:
            _check([content], [checksum])
        return bool(content)

    async def main() -> Report:
        peer.connect(task)
        with Connections(task["servers"][0]) as connections, Meter() as meter:
            outcomes = await peer.gather(got, checksums)
        report = meter.report(len(checksums))
        report.extra = {"errors": outcomes.count(False), **connections.told}
        return report

    return peer.run(main)


def downloaded(peer: Peer, task: Task) -> Report:
    """The large buffer into memory, while another task of the caller's loop ticks."""
    checksum = task[task["buffer"]]

    async def main() -> Report:
        peer.connect(task)
        await peer.get(task["small"][0])
        report, content = await _ticking(peer, lambda: peer.get(checksum))
        _check([content], [checksum])
        return report

    return peer.run(main)


def uploaded(peer: Peer, task: Task) -> Report:
    """A large new buffer from memory to every server; `again`: what the servers have by then.

    The slow servers confirm only what has its checksum.
    """
    content = os.urandom(1 << 20) * task["mebibytes"]
    checksum = checksum_of(content)

    async def main() -> Report:
        peer.connect(task)
        if task.get("again"):
            require(await peer.put(checksum, content), "the first upload is not confirmed")
        report, written = await _ticking(peer, lambda: peer.put(checksum, content))
        require(written, "the upload is not confirmed")
        return report

    report = peer.run(main)
    if "stored" in task:
        stored = Path(task["stored"], checksum[:2], checksum)
        _check([stored.read_bytes()], [checksum])
        stored.unlink()
    return report


def _check(contents: Sequence[bytes], checksums: Sequence[str]) -> None:
    require([checksum_of(content) for content in contents] == checksums, "a buffer's bytes")


async def _ticking(
    peer: Peer, operation: Callable[[], Coroutine[Any, Any, Any]]
) -> tuple[Report, Any]:
    """Measure `operation`, and how long a task beside it waited for its turns beyond its sleep."""
    pauses: list[float] = []
    done = False

    async def tick() -> None:
        while not done:
            before = time.perf_counter()
            await peer.sleep(_TICK)
            pauses.append(time.perf_counter() - before - _TICK)

    async def work() -> tuple[Report, Any]:
        nonlocal done
        await peer.sleep(10 * _TICK)  # the other task is ticking by now
        try:
            with Meter() as meter:
                result = await operation()
            return meter.report(1), result
        finally:
            done = True

    (report, result), _ = await peer.gather(lambda step: step(), [work, tick])
    pauses.sort()
    report.extra["pause_max_ms"] = pauses[-1] * 1e3
    report.extra["pause_p999_ms"] = pauses[int(len(pauses) * 0.999)] * 1e3
    return report, result
