"""The cases: what each measures, and which peers run it. `targets` has their bounds.

The peers are this package called from a loop that does nothing for it (`ours`), with its nursery in
an asyncio or a trio program (`ours-host`, `ours-trio`), the published package, curl, and the floor:
plain sockets, see `measured/with_sockets.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .measured.task import LOOKUPS, NUMBERED

LARGE, HUGE = 512, 4096
"""MiB of the two large buffers."""
SLOW_SECONDS = (0.5, 1.0)
"""Seconds that each of the two slow servers waits before it confirms an upload."""
JOB_SECONDS = 0.2
"""Seconds that a job takes at the stub jobserver."""
FAR_DELAY = 0.04
"""Seconds that each byte travels to the services far away, one way."""
FAR = 200
"""MiB of the buffer that is read from there."""
PACE = 0.001
"""Seconds that the paced stub server takes for a buffer, one after another."""

TITLES = {
    "lookups-gathered": f"{LOOKUPS} look-ups at once in one loop",
    "stub-gathered": f"{LOOKUPS} look-ups at once, stub server",
    "stub-warm": f"{LOOKUPS} look-ups at once, warm process, stub server",
    "lookups-in-turn": "500 look-ups one after another",
    "stub-in-turn": "500 look-ups one after another, stub server",
    "lookups-asyncio-run": "300 look-ups, asyncio.run each",
    "lookups-threads": "8 threads x 250 look-ups",
    "stub-threads": "8 threads x 250 look-ups, stub server",
    "computing-host": "look-ups in turn in a thread, the host's loop computing",
    "writes-gathered": "1000 result writes at once in one loop",
    "waiting-1000": "1,000 look-ups waiting at once, stub server",
    "waiting-10000": "10,000 look-ups waiting at once, stub server",
    "waiting-100000": "100,000 look-ups waiting at once, stub server",
    "folder-in-turn": "500 small Checksum.resolve(), folder",
    "folder-gathered": "1000 small buffers at once, folder",
    "http-in-turn": "300 small Checksum.resolve(), HTTP",
    "storm": f"{NUMBERED:,} small buffers at once, stub server of {1 / PACE:,.0f} answers/s",
    "download": f"{LARGE} MiB into memory, HTTP",
    "download-folder": f"{LARGE} MiB into memory, folder",
    "upload": f"{LARGE} MiB upload",
    "upload-again": "256 MiB upload of what the server has",
    "same-buffer": "20 gets of one 16 MiB buffer at once",
    "two-servers": "16 MiB write to two servers ({:g} s and {:g} s)".format(*SLOW_SECONDS),
    "far-get": "10 gets of 1 kB, asyncio.run each, 80 ms away",
    "far-write": "10 writes of 200 kB, 80 ms away",
    "far-write-again": "10 writes of 200 kB that the server has, 80 ms away",
    "far-write-3": "5 writes of 3 MB, 80 ms away",
    "far-download": f"{FAR} MiB into memory, 80 ms away",
    "help": "seamless-resolve --help, 5 times",
    "resolve-output": f"seamless-resolve --output, {LARGE} MiB",
    "resolve-output-huge": f"seamless-resolve --output, {HUGE // 1024} GiB",
    "jobs-1024": "10,000 jobs of 0.2 s at once, 1,024 descriptors, stub jobserver",
    "jobs-100000": "10,000 jobs of 0.2 s at once, 100,000 descriptors, stub jobserver",
    "jobs-close": "seamless.close() with 100 jobs in flight, stub jobserver",
    "jobs-real": "400 jobs at a launched jobserver",
    "first-result": "first result on a cold cluster with a jobserver",
    "dask-first": "first result on a warm Dask stage, 3 programs",
}
"""How each case is shown."""


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    `measure` names a function in `measured`, and `settings` are for it. `service` says which
    services the peers are told of, and `limit` what bounds the case other than the client.
    """

    name: str
    measure: str
    service: str
    peers: tuple[str, ...]
    settings: dict[str, Any]
    limit: str = ""

    def rounds(self, wanted: int) -> int:
        """How often it is run where `wanted` rounds are asked for."""
        return min(wanted, FEW_ROUNDS) if self.name in LONG else wanted


FEW_ROUNDS = 2
LONG = ("waiting-100000", "storm", "resolve-output-huge", "jobs-real", "dask-first")

_BOTH = ("ours", "published")
_ASYNCIO = ("ours", "ours-host", "published")
_ASYNCIO_FLOOR = (*_ASYNCIO, "floor")
_LOOPS = ("ours", "ours-host", "ours-trio", "published")
_ALL = (*_LOOPS, "floor")
_TOOLS = ("ours", "curl")  # the published package would hold 4 GiB in memory twice

_MANY = {"count": 10_000}
_SQL = "the server, which does its SQL in its event loop"
_HASH = "the server, which hashes before its first byte"
_LOCK = "Python's lock, which the computation holds 5 ms at a time"
_PATH = "the path: a round trip of 80 ms, one window of 2 MB a round trip and connection"
_SMALL_WRITES = {"count": 10, "bytes": 200_000}
_WORKERS = "the jobserver's two workers"
_LAUNCHES = "the start of three services, of a worker and of Python"
_IMPORTS = "the start of Python and the imports of Dask"

CASES = (
    Case("lookups-gathered", "lookups.gathered", "database", _ALL, {"count": LOOKUPS}, _SQL),
    Case("stub-gathered", "lookups.gathered", "stub", _ALL, {"count": LOOKUPS}),
    Case("stub-warm", "lookups.gathered", "stub", _ALL, {"count": LOOKUPS, "before": 5}),
    Case("lookups-in-turn", "lookups.in_turn", "database", _ALL, {"count": 500}),
    Case("stub-in-turn", "lookups.in_turn", "stub", _ALL, {"count": 500}),
    Case("lookups-asyncio-run", "lookups.asyncio_run_each", "database", _BOTH, {"count": 300}),
    Case("lookups-threads", "lookups.threads", "database", _BOTH, {"count": 250}, _SQL),
    Case("stub-threads", "lookups.threads", "stub", _BOTH, {"count": 250}),
    Case("computing-host", "lookups.beside_computation", "database", _ASYNCIO, {}, _LOCK),
    Case("writes-gathered", "lookups.written", "database", _ALL, {"count": 1000}, _SQL),
    Case("waiting-1000", "lookups.waiting", "stub", _ASYNCIO_FLOOR, {"count": 1_000}),
    Case("waiting-10000", "lookups.waiting", "stub", _ASYNCIO_FLOOR, {"count": 10_000}),
    Case("waiting-100000", "lookups.waiting", "stub", _ASYNCIO_FLOOR, {"count": 100_000}),
    Case("folder-in-turn", "buffers.in_turn", "folder", _BOTH, {"count": 500}),
    Case("folder-gathered", "buffers.gathered", "folder", _LOOPS, {"count": 1000}),
    Case("http-in-turn", "buffers.in_turn", "http", _BOTH, {"count": 300}, _HASH),
    Case("storm", "buffers.storm", "paced", _ASYNCIO, {}, "the server"),
    Case("download", "buffers.downloaded", "http", (*_LOOPS, "curl"), {}, _HASH),
    Case("download-folder", "buffers.downloaded", "folder", _LOOPS, {}),
    Case("upload", "buffers.uploaded", "http", (*_ASYNCIO, "curl"), {"mebibytes": LARGE}),
    Case("upload-again", "buffers.uploaded", "http", _ASYNCIO, {"mebibytes": 256, "again": True}),
    Case("same-buffer", "buffers.gathered", "http", _LOOPS, {"count": 20, "same": True}),
    Case("two-servers", "buffers.uploaded", "slow", _LOOPS, {"mebibytes": 16}, "the slower server"),
    Case("far-get", "buffers.asyncio_run_each", "far", _BOTH, {"count": 10}, _PATH),
    Case("far-write", "buffers.written", "far", _BOTH, _SMALL_WRITES, _PATH),
    Case(
        "far-write-again", "buffers.written", "far", _BOTH, {**_SMALL_WRITES, "again": True}, _PATH
    ),
    Case("far-write-3", "buffers.written", "far", _BOTH, {"count": 5, "bytes": 3_000_000}, _PATH),
    Case("far-download", "buffers.downloaded", "far", (*_BOTH, "curl"), {"buffer": "far"}, _PATH),
    Case("help", "programs.help_text", "", _BOTH, {"count": 5}),
    Case("resolve-output", "programs.downloaded", "http", (*_BOTH, "curl"), {}, _HASH),
    Case("resolve-output-huge", "programs.downloaded", "http", _TOOLS, {"buffer": "huge"}, _HASH),
    Case("jobs-1024", "jobs.at_once", "jobs", _ASYNCIO[:2], {**_MANY, "descriptors": 1024}),
    Case("jobs-100000", "jobs.at_once", "jobs", _ASYNCIO[:2], {**_MANY, "descriptors": 100_000}),
    Case("jobs-close", "jobs.closed", "held-jobs", _BOTH, {"count": 100}),
    Case("jobs-real", "programs.many_results", "", _BOTH, {"count": 400}, _WORKERS),
    Case("first-result", "programs.first_result", "", _BOTH, {}, _LAUNCHES),
    # The published package's Dask needs a conda environment, on this machine as well.
    Case("dask-first", "programs.warm_result", "", ("ours",), {"count": 3}, _IMPORTS),
)
