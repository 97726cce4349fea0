"""The results as tables in Markdown: a full one, and a short one for a README."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .catalogue import PEERS
from .results import compared

_HEAD = (
    "case",
    "peer",
    "time",
    "CPU",
    "peak MB (growth)",
    "time / published",
    "CPU / published",
    "time / curl or floor",
    "CPU / curl or floor",
    "also",
    "targets",
)


def table(results: dict[str, Any]) -> str:
    """One row a case and peer; then the targets, what bounds the cases, and where it was."""
    lines = [_row(_HEAD), _row(["---"] * len(_HEAD))]
    for case in results["cases"]:
        title = f"{case['title']}{' *' if case['limit'] else ''}"
        for peer, figures in case["peers"].items():
            lines.append(_row([title, PEERS[peer], *_cells(figures)]))
            title = ""
    return "\n".join([*lines, "", *_outcomes(results["cases"]), "", *_notes(results)])


_SHORT_PEERS = {"ours": "any loop", "ours-host": "asyncio host", "ours-trio": "trio host"}
_SHORT_FIGURES = {"wall": "time", "cpu": "CPU"}


def short_table(results: dict[str, Any]) -> str:
    """One row a case: the medians of the ratios to the published package."""
    head = [
        f"{figure}, {peer}" for figure in _SHORT_FIGURES.values() for peer in _SHORT_PEERS.values()
    ]
    lines = [_row(["", *head]), _row(["---", *["---:"] * len(head)])]
    for case in compared(results):
        cells = [
            _median_ratio(case["peers"].get(peer), name)
            for name in _SHORT_FIGURES
            for peer in _SHORT_PEERS
        ]
        lines.append(_row([case["title"], *cells]))
    return "\n".join(lines)


def _median_ratio(figures: dict[str, Any] | None, name: str) -> str:
    spread = figures and figures["ratios"].get("published", {}).get(name)
    return f"{spread['median']:.2g}" if spread else ""


def _outcomes(cases: list[dict[str, Any]]) -> list[str]:
    """How many targets are met, and which are not."""
    targets = [
        (f"{case['title']}, {PEERS[peer]}", target)
        for case in cases
        for peer, figures in case["peers"].items()
        for target in figures["targets"]
    ]
    met = sum(bool(target["met"]) for _, target in targets)
    missed = [
        f"- {place}: {target['target']}: {_spread(target, 'reached') or 'not measured'}"
        for place, target in targets
        if not target["met"]
    ]
    return [f"Targets met: {met} of {len(targets)}.", *missed]


def _notes(results: dict[str, Any]) -> list[str]:
    cases, machine = results["cases"], results["machine"]
    fewer = [case for case in cases if case["rounds"] < results["rounds"]]
    return [
        *(f"\\* {case['title']}: limited by {case['limit']}." for case in cases if case["limit"]),
        "",
        f"Time and CPU are for one operation, medians of {results['rounds']} rounds"
        + "".join(f"; {case['rounds']} of {case['title']!r}" for case in fewer)
        + ". Ratios are taken pair by pair: the median, and in brackets the least and the "
        "greatest. Memory is the whole process's; its growth is above what was in use before. "
        "Pauses are those of another task in the caller's loop: 99.9th percentile, and the "
        "longest. Connections are counted by the server.",
        f"{machine['cores']} cores ({machine['processor']}), Python {machine['python']}, "
        f"{machine['system']}, {machine['date']}, commit {machine['commit']}; "
        f"the whole took {results['seconds'] / 60:.1f} minutes.",
    ]


def _cells(figures: dict[str, Any]) -> list[str]:
    median, ratios = figures["median"], figures["ratios"]
    targets = "; ".join(
        f"{target['target']} {_VERDICTS[target['met']]}" for target in figures["targets"]
    )
    if not median:
        return ["failed", *[""] * (len(_HEAD) - 4), targets]
    published, plain = ratios.get("published", {}), ratios.get("curl") or ratios.get("floor") or {}
    failed = f" ({figures['failed']} failed)" if figures["failed"] else ""
    return [
        _seconds(median["wall"]) + failed,
        _seconds(median["cpu"]),
        f"{median['peak_mb']:.0f} (+{median['grown_mb']:.0f})",
        *(_spread(each.get(name)) for each in (published, plain) for name in ("wall", "cpu")),
        ", ".join(text.format(**median) for name, text in _ALSO.items() if name in median),
        targets,
    ]


_VERDICTS = {True: "met", False: "**missed**", None: "not measured"}
_ALSO = {
    "pause_max_ms": "pauses {pause_p999_ms:.1f} and {pause_max_ms:.1f} ms",
    "waiting_bytes": "{waiting_bytes:.0f} bytes each that waits",
    "errors": "{errors:.0f} errors",
    "connections": "{connections:.0f} connections at once, {accepted:.0f} new",
}
"""What is measured in some cases only, by the figure that tells so."""


def _spread(spread: dict[str, float] | None, middle: str = "median") -> str:
    if not spread or spread[middle] is None:
        return ""
    return f"{_short(spread[middle])} ({_short(spread['min'])}-{_short(spread['max'])})"


def _short(value: float) -> str:
    """Three digits, or as many as there are before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _seconds(value: float) -> str:
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.1f} ms" if value >= 0.01 else f"{value * 1e6:.0f} µs"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
