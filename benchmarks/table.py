"""The results as tables in Markdown: a full one, and a short one for a README."""

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
    "also",
    "target: reached",
)


def table(results: dict[str, Any]) -> str:
    """One row a case and peer; then the targets, what bounds the cases, and where it was."""
    lines = [_row(_HEAD), _row(["---"] * len(_HEAD))]
    for case in results["cases"]:
        title = f"{case['title']}{' *' if case['limit'] else ''}"
        for peer, figures in case["peers"].items():
            lines.append(_row([title, PEERS[peer], *_cells(figures)]))
            title = ""
    lines += ["", _summary(results["cases"]), "", *_notes(results)]
    return "\n".join(lines)


_SHORT_PEERS = {"ours": "any loop", "ours-host": "asyncio host", "ours-trio": "trio host"}
_SHORT_FIGURES = {"wall": "time", "cpu": "CPU"}


def short_table(results: dict[str, Any]) -> str:
    """One row a case that the published package runs: the medians of the ratios to it."""
    head = [
        f"{figure}, {peer}" for figure in _SHORT_FIGURES.values() for peer in _SHORT_PEERS.values()
    ]
    lines = [_row(["", *head]), _row(["---", *["---:"] * len(head)])]
    for case in results["cases"]:
        if "published" in case["peers"]:
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


def _summary(cases: list[dict[str, Any]]) -> str:
    """How many targets are met, and which are not."""
    outcomes = [
        (f"{case['title']}, {PEERS[peer]}: {_outcome(target)}", target["met"])
        for case in cases
        for peer, figures in case["peers"].items()
        for target in figures["targets"]
    ]
    met = sum(1 for _, each in outcomes if each)
    lines = [f"Targets met: {met} of {len(outcomes)}."]
    return "\n".join([*lines, *(f"- {text}" for text, each in outcomes if not each)])


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
        "longest.",
        f"{machine['cores']} cores ({machine['processor']}), Python {machine['python']}, "
        f"{machine['system']}, {machine['date']}, commit {machine['commit']}; "
        f"the whole took {results['seconds'] / 60:.1f} minutes.",
    ]


def _cells(figures: dict[str, Any]) -> list[str]:
    median = figures["median"]
    targets = "; ".join(_outcome(target) for target in figures["targets"])
    if not median:
        return ["failed", *[""] * (len(_HEAD) - 4), targets]
    ratios = figures["ratios"]
    plain = ratios.get("curl") or ratios.get("floor") or {}
    failed = f" ({figures['failed']} failed)" if figures["failed"] else ""
    return [
        _seconds(median["wall"] / figures["operations"]) + failed,
        _seconds(median["cpu"] / figures["operations"]),
        f"{median['peak_mb']:.0f} (+{median['grown_mb']:.0f})",
        _ratio(ratios.get("published", {}).get("wall")),
        _ratio(ratios.get("published", {}).get("cpu")),
        _ratio(plain.get("wall")),
        _ratio(plain.get("cpu")),
        _also(median),
        targets,
    ]


def _also(median: dict[str, float]) -> str:
    """What is measured only in some cases."""
    texts = []
    if "pause_max_ms" in median:
        shown = f"{median['pause_p999_ms']:.1f} and {median['pause_max_ms']:.1f}"
        texts.append(f"pauses {shown} ms")
    if "waiting_bytes" in median:
        texts.append(f"{median['waiting_bytes']:.0f} bytes each that waits")
        texts.append(f"{median['connections']:.0f} connections")
    return ", ".join(texts)


def _outcome(target: dict[str, Any]) -> str:
    if target["met"] is None:
        return f"{target['target']}: not measured"
    spread = f"{_short(target['min'])}-{_short(target['max'])}"
    reached = f"{_short(target['reached'])} ({spread})"
    if target["unit"]:
        reached += f" {target['unit']}"
    return f"{target['target']}: {reached} {'met' if target['met'] else '**missed**'}"


def _short(value: float) -> str:
    """Three digits, or as many as there are before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _seconds(value: float) -> str:
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.1f} ms" if value >= 0.01 else f"{value * 1e6:.0f} µs"


def _ratio(spread: dict[str, float] | None) -> str:
    if not spread:
        return ""
    return f"{_short(spread['median'])} ({_short(spread['min'])}-{_short(spread['max'])})"


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
