"""The runs as tables in Markdown: a full one with the targets, and a short one for a README."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from .catalogue import TITLES, Case
from .runs import Run, Runs
from .targets import TARGETS, number, ratios

_COMPARED = ("wall", "cpu", "peak_mb")
_RATIOS = tuple(f"{figure} / published" for figure in _COMPARED)
_HEAD = ("case", "peer", "wall, ms", "cpu, ms", "peak_mb", "also", *_RATIOS)
_SHORT = {
    "time": ("ours", "wall"),
    "CPU": ("ours", "cpu"),
    "asyncio host, time": ("ours-host", "wall"),
    "asyncio host, CPU": ("ours-host", "cpu"),
    "trio host, time": ("ours-trio", "wall"),
    "trio host, CPU": ("ours-trio", "cpu"),
}
_NOTE = """
Wall and CPU time are for one operation; all figures are medians of the rounds. Ratios are taken
pair by pair: the median, and in brackets the least and the greatest. A look-up that waits takes
waiting_bytes of memory, and so does a job. Of jobs, as many were started at the server, that many
ran there at once, and lost are those that it went on with when the clients were closed. Pauses are
those of another task in the caller's loop: 99.9th percentile, and the longest. Connections are
those that the server had open at once.
"""


def table(cases: Sequence[Case], runs: Runs) -> str:
    """One row a case and peer; then what bounds the cases, and the targets."""
    lines = [_row(_HEAD), _row(["---"] * len(_HEAD))]
    for case in cases:
        title = f"{TITLES[case.name]}{' *' if case.limit else ''}"
        for peer in case.peers:
            lines.append(_row([title, peer, *_cells(peer, runs[case.name])]))
            title = ""
    limits = [f"\\* {TITLES[case.name]}: limited by {case.limit}." for case in cases if case.limit]
    return "\n".join([*lines, _NOTE, *limits, "", *_outcomes(runs)])


def short_table(cases: Sequence[Case], runs: Runs) -> str:
    """One row a case: the medians of the ratios to the published package."""
    lines = [_row(["", *_SHORT]), _row(["---", *["---:"] * len(_SHORT)])]
    for case in cases:
        each = [_compared(peer, runs[case.name], figure) for peer, figure in _SHORT.values()]
        if any(each):
            cells = [number(statistics.median(found)) if found else "" for found in each]
            lines.append(_row([TITLES[case.name], *cells]))
    return "\n".join(lines)


def _cells(peer: str, runs: Mapping[str, Sequence[Run]]) -> list[str]:
    """A peer's figures, from the runs of its case by peer."""
    good = [run for run in runs[peer] if "error" not in run]
    if not good:
        return ["failed", *[""] * (len(_HEAD) - 3)]
    failed = f" ({len(runs[peer]) - len(good)} failed)" if len(good) < len(runs[peer]) else ""
    median = {figure: statistics.median(run[figure] for run in good) for figure in good[0]}
    others = [f"{figure} {number(median[figure])}" for figure in median if figure not in _COMPARED]
    return [
        number(median["wall"] * 1e3) + failed,
        number(median["cpu"] * 1e3),
        number(median["peak_mb"]),
        ", ".join(others),
        *(_spread(_compared(peer, runs, figure)) for figure in _COMPARED),
    ]


def _compared(peer: str, runs: Mapping[str, Sequence[Run]], figure: str) -> list[float]:
    """The peer's ratios to the published package; none for that itself."""
    if peer == "published":
        return []
    return ratios(runs.get(peer, []), runs.get("published", []), figure)


def _outcomes(runs: Runs) -> list[str]:
    """Every target with what was reached; then how many are met."""
    lines, met = [], 0
    for target in (target for case in runs for target in TARGETS if target.case == case):
        reached = target.values(runs)
        verdict = "not measured"
        if reached:
            kept = statistics.median(reached) <= target.bound
            met += kept
            verdict = f"{_spread(reached)}, {'met' if kept else '**missed**'}"
        lines.append(f"- {target.case}, {target.peer}: {target}: {verdict}")
    return [*lines, "", f"Targets met: {met} of {len(lines)}."]


def _spread(found: Sequence[float]) -> str:
    if not found:
        return ""
    return f"{number(statistics.median(found))} ({number(min(found))}-{number(max(found))})"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
