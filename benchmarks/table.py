"""The results as a table in Markdown."""

from __future__ import annotations

from typing import Any

from .catalogue import PEERS

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
    "pause p99.9, max",
)


def table(results: dict[str, Any]) -> str:
    """One row a case and peer; then what bounds the cases, and where they were measured."""
    lines = [_row(_HEAD), _row(["---"] * len(_HEAD))]
    for case in results["cases"]:
        title = f"{case['title']}{' *' if case['limit'] else ''}"
        for peer, figures in case["peers"].items():
            lines.append(_row([title, PEERS[peer], *_cells(figures)]))
            title = ""
    lines.append("")
    lines += [
        f"\\* {case['title']}: limited by {case['limit']}."
        for case in results["cases"]
        if case["limit"]
    ]
    machine = results["machine"]
    lines += [
        "",
        f"Time and CPU are for one operation, medians of {results['rounds']} rounds. Ratios are "
        "taken pair by pair: the median, and in brackets the least and the greatest.",
        f"{machine['cores']} cores ({machine['processor']}), Python {machine['python']}, "
        f"{machine['system']}, {machine['date']}, commit {machine['commit']}.",
    ]
    return "\n".join(lines)


def _cells(figures: dict[str, Any]) -> list[str]:
    median = figures["median"]
    if not median:
        return ["failed", *[""] * (len(_HEAD) - 3)]
    ratios = figures["ratios"]
    plain = ratios.get("curl") or ratios.get("floor") or {}
    pause = ""
    if "pause_max_ms" in median:
        pause = f"{median['pause_p999_ms']:.1f} ms, {median['pause_max_ms']:.0f} ms"
    failed = f" ({figures['failed']} failed)" if figures["failed"] else ""
    return [
        _seconds(median["wall"] / figures["operations"]) + failed,
        _seconds(median["cpu"] / figures["operations"]),
        f"{median['peak_mb']:.0f} (+{median['grown_mb']:.0f})",
        _ratio(ratios.get("published", {}).get("wall")),
        _ratio(ratios.get("published", {}).get("cpu")),
        _ratio(plain.get("wall")),
        _ratio(plain.get("cpu")),
        pause,
    ]


def _seconds(value: float) -> str:
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.1f} ms" if value >= 0.01 else f"{value * 1e6:.0f} µs"


def _ratio(spread: dict[str, float] | None) -> str:
    if not spread:
        return ""
    return f"{spread['median']:.2f} ({spread['min']:.2f}-{spread['max']:.2f})"


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
