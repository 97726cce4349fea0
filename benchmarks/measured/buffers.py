"""Buffers: small ones in number, large ones alone, to and from folders and servers.

No buffer is read twice by a process, for Seamless keeps what it has read.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Sequence

from meter import Meter, Report, counted_connections
from task import NUMBERED, Task, checksum_of, numbered_buffer, require, take_stored
from with_seamless import SeamlessPeer

_TICK = 0.001
_FILES = 1024


def in_turn(peer: SeamlessPeer, task: Task) -> Report:
    """`count` small buffers, one after another, by a synchronous caller."""
    peer.resolve(task["small"][0])
    checksums = task["small"][1 : 1 + task["count"]]
    with Meter() as meter:
        contents = [peer.resolve(checksum) for checksum in checksums]
    return _report(meter, contents, checksums)


async def gathered(peer: SeamlessPeer, task: Task) -> Report:
    """`count` small buffers at once in one loop; `same`: so many gets of one larger buffer."""
    count = task["count"]
    checksums = [task["medium"]] * count if task.get("same") else task["small"][1 : 1 + count]
    await peer.get(task["small"][0])
    with Meter() as meter:
        contents = await peer.gather(peer.get, checksums)
    return _report(meter, contents, checksums)


async def storm(peer: SeamlessPeer, task: Task) -> Report:
    """All numbered buffers of a stub server at once in one loop, with the usual 1024 open files."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, most))
    checksums = [checksum_of(numbered_buffer(number)) for number in range(NUMBERED)]

    async def failed(checksum: str) -> bool:
        try:
            content = await peer.get(checksum)
        except Exception:
            return True
        if content:
            _check([content], [checksum])
        return not content

    with counted_connections(task["servers"][0]) as most_connections:
        with Meter() as meter:
            failures = await peer.gather(failed, checksums)
        connections = most_connections()
    return meter.report(len(checksums), errors=sum(failures), connections=connections)


async def downloaded(peer: SeamlessPeer, task: Task) -> Report:
    """The large buffer, or the one that `buffer` names, into memory, while another task of the
    caller's loop ticks.

    A pause is how long that task waited for its turn, beyond its sleep.
    """
    await peer.get(task["small"][0])
    wanted = task[task.get("buffer", "large")]
    pauses: list[float] = []
    done = False

    async def tick() -> None:
        while not done:
            before = time.perf_counter()
            await peer.sleep(_TICK)
            pauses.append(time.perf_counter() - before - _TICK)

    async def download() -> bytes:
        nonlocal done
        await peer.sleep(10 * _TICK)  # the other task is ticking by now
        try:
            with meter:
                return await peer.get(wanted)
        finally:
            done = True

    meter = Meter()
    content, _ = await peer.gather(lambda step: step(), [download, tick])
    _check([content], [wanted])
    pauses.sort()
    late = pauses[int(len(pauses) * 0.999)]
    return meter.report(pause_p999_ms=late * 1e3, pause_max_ms=pauses[-1] * 1e3)


async def uploaded(peer: SeamlessPeer, task: Task) -> Report:
    """A large new buffer from memory to every server; `again`: what the servers have by then.

    The slow servers confirm only what has its checksum.
    """
    content = os.urandom(1 << 20) * task["mebibytes"]
    checksum = checksum_of(content)
    if task.get("again"):
        require(await peer.put(checksum, content), "the first upload is not confirmed")
    with Meter() as meter:
        written = await peer.put(checksum, content)
    require(written, "the upload is not confirmed")
    if "stored" in task:
        take_stored(task["stored"], checksum)
    return meter.report()


def asyncio_run_each(peer: SeamlessPeer, task: Task) -> Report:
    """`count` small buffers by a synchronous caller, each through `asyncio.run`."""
    asyncio.run(peer.get(task["small"][0]))
    checksums = task["small"][1 : 1 + task["count"]]
    with Meter() as meter:
        contents = [asyncio.run(peer.get(checksum)) for checksum in checksums]
    return _report(meter, contents, checksums)


async def written(peer: SeamlessPeer, task: Task) -> Report:
    """`count` new buffers of `bytes` bytes, one after another; `again`: what the server has."""
    contents = [os.urandom(task["bytes"]) for _ in range(task["count"])]
    checksums = [checksum_of(content) for content in contents]
    first = os.urandom(1000)
    require(await peer.put(checksum_of(first), first), "the first upload is not confirmed")
    if task.get("again"):
        for checksum, content in zip(checksums, contents, strict=True):
            require(await peer.put(checksum, content), "the first upload is not confirmed")
    with Meter() as meter:
        for checksum, content in zip(checksums, contents, strict=True):
            require(await peer.put(checksum, content), "the upload is not confirmed")
    return meter.report(len(contents))


def _report(meter: Meter, contents: Sequence[bytes], checksums: Sequence[str]) -> Report:
    _check(contents, checksums)
    return meter.report(len(checksums))


def _check(contents: Sequence[bytes], checksums: Sequence[str]) -> None:
    require([checksum_of(content) for content in contents] == checksums, "a buffer's bytes")
