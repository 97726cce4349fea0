"""What each case is to reach, and how the runs of two peers are compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .catalogue import FAR_DELAY, SLOW_SECONDS
from .runs import Run, Runs


@dataclass(frozen=True)
class Target:
    """An upper bound on the median of a peer's figure, or of its ratios to that of `against`.

    `against` is another peer of the case, or another case of the same peer.
    """

    case: str
    peer: str
    figure: str
    bound: float
    against: str = ""

    def __str__(self) -> str:
        against = f" x {self.against}" if self.against else ""
        return f"{self.figure} ≤ {number(self.bound)}{against}"

    def values(self, runs: Runs) -> list[float]:
        """What was reached, round by round."""
        peers = runs[self.case]
        mine = peers[self.peer]
        if not self.against:
            return [run[self.figure] for run in mine if "error" not in run]
        theirs = peers.get(self.against) or runs.get(self.against, {}).get(self.peer, [])
        return ratios(mine, theirs, self.figure)


def ratios(mine: Sequence[Run], theirs: Sequence[Run], figure: str) -> list[float]:
    """The figure of each run to that of the other peer's run in the same round.

    Only where both did all that was asked: a call that fails fast is no fast call, and closing that
    leaves jobs behind is no fast closing.
    """
    return [
        one[figure] / other[figure]
        for one, other in zip(mine, theirs, strict=False)
        if _complete(one) and _complete(other) and other[figure] > 0
    ]


def number(value: float) -> str:
    """Three digits, or as many as there are before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _complete(run: Run) -> bool:
    return not any(run.get(failing) for failing in ("error", "errors", "lost"))


_ANY = ("ours",)
_HOSTS = ("ours-host", "ours-trio")
_ASYNCIO = ("ours", "ours-host")
_OURS = ("ours", "ours-host", "ours-trio")
_CONNECTIONS = 32  # `Settings.max_connections` of this package
_GROWTH = 1.1  # in proportion, but for a tenth: the first look-ups find some memory free already
_WORSE = 1.05


def _aim(case: str, peers: Sequence[str], against: str = "", **bounds: float) -> Iterator[Target]:
    """A bound on each figure of each peer."""
    for peer in peers:
        for figure, bound in bounds.items():
            yield Target(case, peer, figure, bound, against)


_AIMS = [
    *_aim("lookups-gathered", _ANY, "published", wall=1.0, cpu=0.68),
    *_aim("lookups-gathered", _HOSTS, "published", wall=1.0),
    *_aim("stub-gathered", _ANY, "published", wall=0.6, cpu=0.6),
    *_aim("stub-gathered", _ASYNCIO, "floor", cpu=2.0),
    *_aim("stub-warm", _ASYNCIO, "floor", cpu=1.4),
    *_aim("lookups-in-turn", _ANY, "published", wall=0.85, cpu=0.65),
    *_aim("stub-in-turn", _ANY, "published", wall=0.65, cpu=0.6),
    *_aim("lookups-asyncio-run", _ANY, "published", wall=0.5, cpu=0.45),
    *_aim("lookups-threads", _ANY, "published", cpu=0.5),
    *_aim("stub-threads", _ANY, "published", wall=0.35, cpu=0.35),
    *_aim("waiting-1000", _ASYNCIO, waiting_bytes=10_000, connections=_CONNECTIONS),
    *_aim("waiting-10000", _ASYNCIO, waiting_bytes=10_000, connections=_CONNECTIONS),
    *_aim("waiting-100000", _ASYNCIO, waiting_bytes=10_000, connections=_CONNECTIONS),
    *_aim("waiting-10000", _ASYNCIO, "waiting-1000", wall=_GROWTH, waiting_bytes=_GROWTH),
    *_aim("waiting-100000", _ASYNCIO, "waiting-10000", wall=_GROWTH, waiting_bytes=_GROWTH),
    *_aim("http-in-turn", _ANY, "published", wall=0.75),
    # One for the ping, which has a lane of its own.
    *_aim("storm", _ASYNCIO, errors=0, connections=_CONNECTIONS + 1),
    *_aim("download", _OURS, "published", peak_mb=0.8),
    *_aim("download", _OURS, pause_p999_ms=10, pause_max_ms=50),
    *_aim("upload", _ASYNCIO, "curl", wall=1.18),
    # What comes on top of the slower server's pause is hashing and sending.
    *_aim("two-servers", _OURS, wall=1.2 * max(SLOW_SECONDS)),
    *_aim("far-get", _ANY, wall=1.1 * 2 * FAR_DELAY),
    *_aim("far-write", _ANY, wall=1.2 * 2 * FAR_DELAY),
    # The second round trip is for the length of the server's file, which may be damaged.
    *_aim("far-write-again", _ANY, wall=2.3 * 2 * FAR_DELAY),
    *_aim("far-write-3", _ANY, "published", wall=1.05),
    *_aim("far-download", _ANY, wall=4.5),
    *_aim("jobs-1024", _ASYNCIO, "jobs-100000", wall=1.3),
    *_aim("jobs-1024", _ASYNCIO, errors=0, waiting_bytes=20_000),
    *_aim("jobs-100000", _ASYNCIO, errors=0, waiting_bytes=20_000),
    *_aim("jobs-close", _ANY, wall=2.0, lost=0),
    *_aim("jobs-real", _ANY, "published", wall=1.0),
    *_aim("resolve-output", _ANY, "curl", wall=1.4),
    *_aim("resolve-output", _ANY, peak_mb=100),
    *_aim("resolve-output-huge", _ANY, "curl", wall=1.15),
    *_aim("resolve-output-huge", _ANY, peak_mb=100),
]

_RELEASED = {
    "lookups-gathered": (1.1, 1.1, 1, 0.86, 0.68, 0.74),
    "stub-gathered": (0.78, 0.57, 0.81, 0.76, 0.57, 0.81),
    "lookups-in-turn": (1, 0.81, 0.75, 1.1, 0.51, 0.56),
    "stub-in-turn": (1.4, 0.57, 0.7, 1.4, 0.46, 0.61),
    "lookups-asyncio-run": (0.76, None, None, 0.73, None, None),
    "lookups-threads": (0.75, None, None, 0.61, None, None),
    "stub-threads": (0.38, None, None, 0.37, None, None),
    "writes-gathered": (0.89, 0.92, 0.9, 0.73, 0.52, 0.6),
    "waiting-1000": (0.6, 0.42, None, 0.63, 0.42, None),
    "waiting-10000": (0.82, 0.53, None, 0.85, 0.54, None),
    "waiting-100000": (0.79, 0.56, None, 0.82, 0.56, None),
    "folder-in-turn": (0.094, None, None, 0.096, None, None),
    "folder-gathered": (0.064, 0.061, 0.069, 0.058, 0.057, 0.064),
    "http-in-turn": (0.84, None, None, 0.75, None, None),
    "download": (0.57, 0.55, 0.53, 0.41, 0.49, 0.46),
    "download-folder": (0.7, 0.72, 0.71, 1.2, 1.2, 1.2),
    "upload": (0.48, 0.43, None, 0.17, 0.15, None),
    "upload-again": (0.005, 0.0043, None, 0.0022, 0.0014, None),
    "same-buffer": (0.051, 0.048, 0.045, 0.049, 0.046, 0.042),
    "two-servers": (0.65, 0.65, 0.65, 0.44, 0.48, 0.64),
    "help": (0.25, None, None, 0.24, None, None),
    "resolve-output": (0.37, None, None, 0.28, None, None),
    "first-result": (0.43, None, None, 0.81, None, None),
}
"""Time and CPU of 0.5.0 as ratios to the published package: any loop, asyncio host, trio host."""


def _kept() -> Iterator[Target]:
    """Where nothing was aimed at, nothing may be worse than in 0.5.0 by more than a twentieth."""
    aimed = {(aim.case, aim.peer, aim.figure) for aim in _AIMS if aim.against == "published"}
    places = [(peer, figure) for figure in ("wall", "cpu") for peer in _OURS]
    for case, released in _RELEASED.items():
        for (peer, figure), ratio in zip(places, released, strict=True):
            if ratio is not None and (case, peer, figure) not in aimed:
                yield Target(case, peer, figure, _WORSE * ratio, "published")


TARGETS = [*_AIMS, *_kept()]
