"""The cases: each is defined once, and run by every peer that can."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .targets import Target, at_most, faster

PEERS = {
    "ours": "ours",
    "ours-host": "ours, asyncio host",
    "ours-trio": "ours, trio host",
    "published": "published 0.4.0",
    "curl": "curl",
    "asks": "asks 3.0.0",
    "floor": "floor",
}
"""Every peer's key, and how it is shown."""

ENVIRONMENTS = {"published": "published", "asks": "asks"}
"""The environment of a peer, where it is not the one named `ours`."""

LOOKUPS = 3000
LARGE_MEBIBYTES = 512
HUGE_MEBIBYTES = 4096
SLOW_SECONDS = (0.5, 1.0)

_DATABASE = "the server, which does its SQL in its event loop"
_HASHSERVER = "the server, which hashes before its first byte"
_OURS = ("ours", "ours-host", "ours-trio")
_LOOPS = (*_OURS, "published")


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    `measure` names a function in `measured`; `service` is what the peers are told of; `limit` says
    what bounds the case other than the client, if anything does. `most_rounds` is for a case that
    takes so long that it is run less often than the others.
    """

    name: str
    kind: str
    title: str
    measure: str
    peers: tuple[str, ...]
    service: str
    targets: tuple[Target, ...] = ()
    limit: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    most_rounds: int = 1000

    def rounds(self, wanted: int) -> int:
        """How often it is run where `wanted` rounds are asked for."""
        return min(wanted, self.most_rounds)

    @property
    def needs_huge(self) -> bool:
        """Whether the huge buffer has to be made for it."""
        return self.settings.get("buffer") == "huge"


_LOOKUPS = (
    Case(
        "lookups-gathered",
        "results",
        f"{LOOKUPS} look-ups at once in one loop",
        "lookups.gathered",
        (*_LOOPS, "asks", "floor"),
        "database",
        (
            *faster(_OURS, "published", throughput=1.0),
            at_most("ours", "cpu", 0.9, "published"),
            at_most("ours-host", "cpu", 0.7, "published"),
        ),
        _DATABASE,
        {"count": LOOKUPS},
    ),
    Case(
        "stub-gathered",
        "results",
        f"{LOOKUPS} look-ups at once, stub server",
        "lookups.gathered",
        (*_LOOPS, "floor"),
        "stub",
        (at_most("ours-host", "cpu", 1.6, "floor"),),
        settings={"count": LOOKUPS},
    ),
    Case(
        "lookups-in-turn",
        "results",
        "500 look-ups one after another",
        "lookups.in_turn",
        (*_LOOPS, "asks", "floor"),
        "database",
        (at_most("ours-host", "wall", 0.9, "published"),),
        settings={"count": 500},
    ),
    Case(
        "stub-in-turn",
        "results",
        "500 look-ups one after another, stub server",
        "lookups.in_turn",
        (*_LOOPS, "floor"),
        "stub",
        settings={"count": 500},
    ),
    Case(
        "lookups-asyncio-run",
        "results",
        "300 look-ups, asyncio.run each",
        "lookups.asyncio_run_each",
        ("ours", "published"),
        "database",
        (at_most("ours", "wall", 0.6, "published"),),
        settings={"count": 300},
    ),
    Case(
        "lookups-threads",
        "results",
        "8 threads x 250 look-ups",
        "lookups.threads",
        ("ours", "published"),
        "database",
        (
            *faster(("ours",), "published", throughput=1.0),
            at_most("ours", "cpu", 0.8, "published"),
        ),
        _DATABASE,
        {"count": 250, "threads": 8},
    ),
    Case(
        "stub-threads",
        "results",
        "8 threads x 250 look-ups, stub server",
        "lookups.threads",
        ("ours", "published"),
        "stub",
        settings={"count": 250, "threads": 8},
    ),
    Case(
        "writes-gathered",
        "results",
        "1000 result writes at once in one loop",
        "lookups.written",
        (*_LOOPS, "floor"),
        "database",
        limit=_DATABASE,
        settings={"count": 1000},
    ),
)

_CONNECTIONS = 32  # `Settings.max_connections` of this package
_WAITING_BYTES = 10_000
_GROWTH = 1.1  # in proportion, but for a tenth: the first look-ups find some memory free already


def _waiting(count: int, fewer: int | None, most_rounds: int = 1000) -> Case:
    """So many look-ups at once; one may not cost more than where there are `fewer`."""
    targets = []
    for peer in ("ours", "ours-host"):
        targets += [
            at_most(peer, "waiting_bytes", _WAITING_BYTES),
            at_most(peer, "connections", _CONNECTIONS),
        ]
        if fewer is not None:
            targets += [
                at_most(peer, "wall", _GROWTH, f"waiting-{fewer}"),
                at_most(peer, "waiting_bytes", _GROWTH, f"waiting-{fewer}"),
            ]
    return Case(
        f"waiting-{count}",
        "results",
        f"{count:,} look-ups waiting at once, stub server",
        "lookups.gathered",
        ("ours", "ours-host", "published", "floor"),
        "stub",
        tuple(targets),
        settings={"count": count, "waiting": True},
        most_rounds=most_rounds,
    )


_WAITING = (
    _waiting(1_000, None),
    _waiting(10_000, 1_000),
    _waiting(100_000, 10_000, most_rounds=2),
)

_SMALL_BUFFERS = (
    Case(
        "folder-in-turn",
        "small buffers",
        "500 small Checksum.resolve(), folder",
        "buffers.resolved_in_turn",
        ("ours", "published", "floor"),
        "folder",
        (at_most("ours", "wall", 0.25, "published"),),
        settings={"count": 500},
    ),
    Case(
        "folder-gathered",
        "small buffers",
        "1000 small buffers at once, folder",
        "buffers.gathered",
        _LOOPS,
        "folder",
        tuple(at_most(peer, "wall", 0.4, "published") for peer in _OURS),
        settings={"count": 1000},
    ),
    Case(
        "http-in-turn",
        "small buffers",
        "300 small Checksum.resolve(), HTTP",
        "buffers.resolved_in_turn",
        ("ours", "published", "floor"),
        "hashserver",
        (at_most("ours", "wall", 0.95, "published"),),
        _HASHSERVER,
        {"count": 300},
    ),
)

_LARGE_BUFFERS = (
    Case(
        "download",
        "large buffers",
        f"{LARGE_MEBIBYTES} MiB into memory, HTTP",
        "buffers.downloaded",
        (*_LOOPS, "curl", "floor"),
        "hashserver",
        (
            *faster(_OURS, "published", throughput=1.3),
            *(at_most(peer, "peak_mb", 0.8, "published") for peer in _OURS),
            *(at_most(peer, "pause_p999_ms", 10) for peer in _OURS),
            *(at_most(peer, "pause_max_ms", 50) for peer in _OURS),
        ),
        _HASHSERVER,
        {"buffer": "large"},
    ),
    Case(
        "download-folder",
        "large buffers",
        f"{LARGE_MEBIBYTES} MiB into memory, folder",
        "buffers.downloaded",
        _LOOPS,
        "folder",
        faster(_OURS, "published", throughput=1.4),
        settings={"buffer": "large"},
    ),
    Case(
        "upload",
        "large buffers",
        f"{LARGE_MEBIBYTES} MiB upload",
        "buffers.uploaded",
        ("ours", "ours-host", "published", "curl", "floor"),
        "hashserver",
        (
            *faster(("ours", "ours-host"), "published", throughput=3.0),
            *faster(("ours", "ours-host"), "curl", throughput=0.85),
        ),
        settings={"mebibytes": LARGE_MEBIBYTES},
    ),
    Case(
        "upload-again",
        "large buffers",
        "256 MiB upload of what the server has",
        "buffers.uploaded",
        ("ours", "ours-host", "published"),
        "hashserver",
        tuple(at_most(peer, "wall", 0.02, "published") for peer in ("ours", "ours-host")),
        settings={"mebibytes": 256, "again": True},
    ),
    Case(
        "same-buffer",
        "large buffers",
        "20 gets of one 16 MiB buffer at once",
        "buffers.same_buffer",
        _LOOPS,
        "hashserver",
        tuple(at_most(peer, "wall", 0.1, "published") for peer in _OURS),
        settings={"count": 20},
    ),
    Case(
        "two-servers",
        "large buffers",
        "16 MiB write to two servers ({:g} s and {:g} s)".format(*SLOW_SECONDS),
        "buffers.uploaded",
        _LOOPS,
        "slow",
        # What comes on top of the slower server's pause is hashing and sending.
        tuple(at_most(peer, "wall", 1.2 * max(SLOW_SECONDS)) for peer in _OURS),
        "the slower server",
        {"mebibytes": 16},
    ),
)

_PROGRAMS = (
    Case(
        "help",
        "programs",
        "seamless-resolve --help, 5 times",
        "commands.help_text",
        ("ours", "published"),
        "",
        (at_most("ours", "wall", 0.5, "published"),),
        settings={"count": 5},
    ),
    Case(
        "resolve-output",
        "programs",
        f"seamless-resolve --output, {LARGE_MEBIBYTES} MiB",
        "commands.downloaded",
        ("ours", "published", "curl"),
        "hashserver",
        (
            at_most("ours", "wall", 0.45, "published"),
            at_most("ours", "wall", 1.4, "curl"),
            at_most("ours", "peak_mb", 100),
        ),
        _HASHSERVER,
        {"buffer": "large"},
    ),
    # Not by the published package, which would hold the buffer in memory twice.
    Case(
        "resolve-output-huge",
        "programs",
        f"seamless-resolve --output, {HUGE_MEBIBYTES // 1024} GiB",
        "commands.downloaded",
        ("ours", "curl"),
        "hashserver",
        (at_most("ours", "wall", 1.15, "curl"), at_most("ours", "peak_mb", 100)),
        _HASHSERVER,
        {"buffer": "huge"},
        most_rounds=2,
    ),
    Case(
        "first-result",
        "programs",
        "first result on a cold cluster with a jobserver",
        "cluster.first_result",
        ("ours", "published"),
        "",
        (at_most("ours", "wall", 0.75, "published"),),
        "the start of three services, of a worker and of Python",
    ),
)

CASES = (*_LOOKUPS, *_WAITING, *_SMALL_BUFFERS, *_LARGE_BUFFERS, *_PROGRAMS)
