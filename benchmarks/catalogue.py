"""The cases: each is defined once, and run by every peer that can. `targets` has their bounds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from .measured.task import LOOKUPS, NUMBERED

PEERS = {
    "ours": "ours",
    "ours-host": "ours, asyncio host",
    "ours-trio": "ours, trio host",
    "published": "published 0.4.0",
    "curl": "curl",
    "floor": "floor",
}
"""Every peer's key, and how it is shown."""

ENVIRONMENTS = {"published": "published"}
"""The environment of a peer, where it is not the one named `ours`."""

LARGE_MEBIBYTES = 512
HUGE_MEBIBYTES = 4096
SLOW_SECONDS = (0.5, 1.0)
PACE = 0.001
"""Seconds that the paced stub server takes for a buffer, one after another."""

_DATABASE = "the server, which does its SQL in its event loop"
_HASHSERVER = "the server, which hashes before its first byte"
_ASYNCIO = ("ours", "ours-host", "published")
_LOOPS = ("ours", "ours-host", "ours-trio", "published")
_BOTH = ("ours", "published")
_LARGE = {"buffer": "large"}


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    `measure` names a function in `measured`, and `settings` are for it. `service` says which
    services the peers are told of. `limit` says what bounds the case other than the client, if
    anything does. `most_rounds` is for a case that takes too long to run in every round.
    """

    name: str
    title: str
    measure: str
    peers: tuple[str, ...]
    service: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    limit: str = ""
    most_rounds: int = 1000
    kind: str = ""

    def rounds(self, wanted: int) -> int:
        """How often it is run where `wanted` rounds are asked for."""
        return min(wanted, self.most_rounds)


_LOOKUPS = (
    Case(
        "lookups-gathered",
        f"{LOOKUPS} look-ups at once in one loop",
        "lookups.gathered",
        (*_LOOPS, "floor"),
        "database",
        {"count": LOOKUPS},
        limit=_DATABASE,
    ),
    Case(
        "stub-gathered",
        f"{LOOKUPS} look-ups at once, stub server",
        "lookups.gathered",
        (*_LOOPS, "floor"),
        "stub",
        {"count": LOOKUPS},
    ),
    Case(
        "stub-warm",
        f"{LOOKUPS} look-ups at once, warm process, stub server",
        "lookups.gathered",
        (*_LOOPS, "floor"),
        "stub",
        {"count": LOOKUPS, "times_before": 5},
    ),
    Case(
        "lookups-in-turn",
        "500 look-ups one after another",
        "lookups.in_turn",
        (*_LOOPS, "floor"),
        "database",
        {"count": 500},
    ),
    Case(
        "stub-in-turn",
        "500 look-ups one after another, stub server",
        "lookups.in_turn",
        (*_LOOPS, "floor"),
        "stub",
        {"count": 500},
    ),
    Case(
        "lookups-asyncio-run",
        "300 look-ups, asyncio.run each",
        "lookups.asyncio_run_each",
        _BOTH,
        "database",
        {"count": 300},
    ),
    Case(
        "lookups-threads",
        "8 threads x 250 look-ups",
        "lookups.threads",
        _BOTH,
        "database",
        {"count": 250, "threads": 8},
        limit=_DATABASE,
    ),
    Case(
        "stub-threads",
        "8 threads x 250 look-ups, stub server",
        "lookups.threads",
        _BOTH,
        "stub",
        {"count": 250, "threads": 8},
    ),
    Case(
        "computing-host",
        "look-ups in turn in a thread, the host's loop computing",
        "lookups.beside_computation",
        _ASYNCIO,
        "database",
        {"seconds": 3.0},
        limit="Python's lock, which the computation holds 5 ms at a time",
    ),
    Case(
        "writes-gathered",
        "1000 result writes at once in one loop",
        "lookups.written",
        (*_LOOPS, "floor"),
        "database",
        {"count": 1000},
        limit=_DATABASE,
    ),
    *(
        Case(
            f"waiting-{count}",
            f"{count:,} look-ups waiting at once, stub server",
            "lookups.gathered",
            (*_ASYNCIO, "floor"),
            "stub",
            {"count": count, "waiting": True},
            most_rounds=2 if count == 100_000 else 1000,
        )
        for count in (1_000, 10_000, 100_000)
    ),
)

_SMALL_BUFFERS = (
    Case(
        "folder-in-turn",
        "500 small Checksum.resolve(), folder",
        "buffers.resolved_in_turn",
        (*_BOTH, "floor"),
        "folder",
        {"count": 500},
    ),
    Case(
        "folder-gathered",
        "1000 small buffers at once, folder",
        "buffers.gathered",
        _LOOPS,
        "folder",
        {"count": 1000},
    ),
    Case(
        "http-in-turn",
        "300 small Checksum.resolve(), HTTP",
        "buffers.resolved_in_turn",
        (*_BOTH, "floor"),
        "hashserver",
        {"count": 300},
        limit=_HASHSERVER,
    ),
    Case(
        "storm",
        f"{NUMBERED:,} small buffers at once, stub server of {1 / PACE:,.0f} answers/s",
        "buffers.storm",
        _ASYNCIO,
        "paced",
        limit="the server",
        most_rounds=2,
    ),
)

_LARGE_BUFFERS = (
    Case(
        "download",
        f"{LARGE_MEBIBYTES} MiB into memory, HTTP",
        "buffers.downloaded",
        (*_LOOPS, "curl", "floor"),
        "hashserver",
        _LARGE,
        limit=_HASHSERVER,
    ),
    Case(
        "download-folder",
        f"{LARGE_MEBIBYTES} MiB into memory, folder",
        "buffers.downloaded",
        _LOOPS,
        "folder",
        _LARGE,
    ),
    Case(
        "upload",
        f"{LARGE_MEBIBYTES} MiB upload",
        "buffers.uploaded",
        (*_ASYNCIO, "curl", "floor"),
        "hashserver",
        {"mebibytes": LARGE_MEBIBYTES},
    ),
    Case(
        "upload-again",
        "256 MiB upload of what the server has",
        "buffers.uploaded",
        _ASYNCIO,
        "hashserver",
        {"mebibytes": 256, "again": True},
    ),
    Case(
        "same-buffer",
        "20 gets of one 16 MiB buffer at once",
        "buffers.gathered",
        _LOOPS,
        "hashserver",
        {"count": 20, "same": True},
    ),
    Case(
        "two-servers",
        "16 MiB write to two servers ({:g} s and {:g} s)".format(*SLOW_SECONDS),
        "buffers.uploaded",
        _LOOPS,
        "slow",
        {"mebibytes": 16},
        limit="the slower server",
    ),
)

_PROGRAMS = (
    Case(
        "help",
        "seamless-resolve --help, 5 times",
        "commands.help_text",
        _BOTH,
        settings={"count": 5},
    ),
    Case(
        "resolve-output",
        f"seamless-resolve --output, {LARGE_MEBIBYTES} MiB",
        "commands.downloaded",
        (*_BOTH, "curl"),
        "hashserver",
        _LARGE,
        limit=_HASHSERVER,
    ),
    # Not by the published package, which would hold the buffer in memory twice.
    Case(
        "resolve-output-huge",
        f"seamless-resolve --output, {HUGE_MEBIBYTES // 1024} GiB",
        "commands.downloaded",
        ("ours", "curl"),
        "hashserver",
        {"buffer": "huge"},
        limit=_HASHSERVER,
        most_rounds=2,
    ),
    Case(
        "first-result",
        "first result on a cold cluster with a jobserver",
        "cluster.first_result",
        _BOTH,
        limit="the start of three services, of a worker and of Python",
    ),
)

_KINDS = {
    "results": _LOOKUPS,
    "small buffers": _SMALL_BUFFERS,
    "large buffers": _LARGE_BUFFERS,
    "programs": _PROGRAMS,
}
CASES = tuple(replace(case, kind=kind) for kind, cases in _KINDS.items() for case in cases)
