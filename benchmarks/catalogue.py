"""The cases: each is defined once, and run by every peer that can."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

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
LARGE_MEGABYTES = 512
SLOW_SECONDS = (0.5, 1.0)

_DATABASE = "the server, which does its SQL in its event loop"
_HASHSERVER = "the server, which hashes before its first byte"
_LOOPS = ("ours", "ours-host", "ours-trio", "published")


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    `measure` names a function in `measured`; `service` is what the peers are told of; `limit` says
    what bounds the case other than the client, if anything does.
    """

    name: str
    title: str
    measure: str
    peers: tuple[str, ...]
    service: str
    limit: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


CASES = (
    Case(
        "lookups-gathered",
        f"{LOOKUPS} look-ups at once in one loop",
        "lookups.gathered",
        (*_LOOPS, "asks", "floor"),
        "database",
        _DATABASE,
        {"count": LOOKUPS},
    ),
    Case(
        "stub-gathered",
        f"{LOOKUPS} look-ups at once, stub server",
        "lookups.gathered",
        (*_LOOPS, "asks", "floor"),
        "stub",
        settings={"count": LOOKUPS},
    ),
    *(
        Case(
            f"waiting-{count}",
            f"{count:,} look-ups waiting at once, stub server",
            "lookups.gathered",
            peers,
            "stub",
            settings={"count": count},
        )
        for count, peers in (
            (1_000, ("ours", "ours-host", "published")),
            (10_000, ("ours", "ours-host", "published")),
            (100_000, ("ours-host", "published")),
        )
    ),
    Case(
        "lookups-in-turn",
        "500 look-ups one after another",
        "lookups.in_turn",
        (*_LOOPS, "asks", "floor"),
        "database",
        settings={"count": 500},
    ),
    Case(
        "stub-in-turn",
        "500 look-ups one after another, stub server",
        "lookups.in_turn",
        (*_LOOPS, "asks", "floor"),
        "stub",
        settings={"count": 500},
    ),
    Case(
        "lookups-asyncio-run",
        "300 look-ups, asyncio.run each",
        "lookups.asyncio_run_each",
        ("ours", "published"),
        "database",
        settings={"count": 300},
    ),
    Case(
        "lookups-threads",
        "8 threads x 250 look-ups",
        "lookups.threads",
        ("ours", "published"),
        "database",
        _DATABASE,
        {"count": 250, "threads": 8},
    ),
    Case(
        "stub-threads",
        "8 threads x 250 look-ups, stub server",
        "lookups.threads",
        ("ours", "published"),
        "stub",
        settings={"count": 250, "threads": 8},
    ),
    Case(
        "folder-in-turn",
        "500 small Checksum.resolve(), folder",
        "buffers.resolved_in_turn",
        ("ours", "published", "floor"),
        "folder",
        settings={"count": 500},
    ),
    Case(
        "folder-gathered",
        "1000 small buffers at once, folder",
        "buffers.gathered",
        _LOOPS,
        "folder",
        settings={"count": 1000},
    ),
    Case(
        "http-in-turn",
        "300 small Checksum.resolve(), HTTP",
        "buffers.resolved_in_turn",
        ("ours", "published", "floor"),
        "hashserver",
        _HASHSERVER,
        {"count": 300},
    ),
    Case(
        "download",
        f"{LARGE_MEGABYTES} MB into memory, HTTP",
        "buffers.downloaded",
        (*_LOOPS, "curl", "floor"),
        "hashserver",
    ),
    Case(
        "download-folder",
        f"{LARGE_MEGABYTES} MB into memory, folder",
        "buffers.downloaded",
        _LOOPS,
        "folder",
    ),
    Case(
        "upload",
        f"{LARGE_MEGABYTES} MB upload",
        "buffers.uploaded",
        ("ours", "ours-host", "published", "curl", "floor"),
        "hashserver",
        settings={"megabytes": LARGE_MEGABYTES},
    ),
    Case(
        "upload-again",
        "256 MB upload of what the server has",
        "buffers.uploaded",
        ("ours", "ours-host", "published"),
        "hashserver",
        settings={"megabytes": 256, "again": True},
    ),
    Case(
        "resolve-output",
        f"seamless-resolve --output, {LARGE_MEGABYTES} MB",
        "commands.downloaded",
        ("ours", "published", "curl"),
        "hashserver",
    ),
    Case(
        "same-buffer",
        "20 gets of one 16 MiB buffer at once",
        "buffers.same_buffer",
        _LOOPS,
        "hashserver",
        settings={"count": 20},
    ),
    Case(
        "two-servers",
        "16 MB write to two servers ({:g} s and {:g} s)".format(*SLOW_SECONDS),
        "buffers.uploaded",
        _LOOPS,
        "slow",
        "the slower server",
        {"megabytes": 16},
    ),
    Case(
        "help",
        "seamless-resolve --help, 5 times",
        "commands.help_text",
        ("ours", "published"),
        "",
        settings={"count": 5},
    ),
)
