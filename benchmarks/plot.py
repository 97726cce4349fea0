"""A plot of the results: `python plot.py RESULTS.json PLOT`, in the environment with matplotlib.

Each case's time and client CPU as ratios to the published package, with their spread.
"""

from __future__ import annotations

import itertools
import json
import sys
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

_FIGURES = {"wall": "time", "cpu": "client CPU"}
_SHOWN = {
    "ours": ("called from any loop or thread", "tab:blue", "o"),
    "ours-host": ("nursery in an asyncio host's loop", "tab:green", "s"),
    "ours-trio": ("nursery in a trio host's loop", "tab:orange", "D"),
    "curl": ("curl", "0.45", "x"),
}
_STEP = 0.62
_GAP = 0.9
_INCHES = 0.34


def plot(results: dict[str, Any], path: str) -> None:
    """Write the plot; the format follows the path's suffix."""
    cases = [case for case in results["cases"] if _ratios(case, "wall")]
    rows, kinds = _rows(cases)
    height = 1.9 + _INCHES * (rows[-1] + 1)
    figure, axes = plt.subplots(
        1, 2, figsize=(11, height), sharex=True, sharey=True, layout="constrained"
    )
    for axis, (name, label) in zip(axes, _FIGURES.items(), strict=True):
        for row, case in zip(rows, cases, strict=True):
            axis.axhspan(row - 0.45, row + 0.45, color="0.95", linewidth=0, zorder=0)
            _draw(axis, row, case, name)
        _finish(axis, f"{label} / that of seamless-remote 0.4.0")
    axes[0].set_yticks(rows, [case["title"] for case in cases])
    axes[0].set_ylim(rows[-1] + 0.7, rows[0] - 1.3)
    for row, kind in kinds:
        axes[0].text(0.01, row, kind, transform=axes[0].get_yaxis_transform(), weight="bold")
    handles = [
        plt.Line2D([], [], color=colour, marker=marker, linestyle="", label=label)
        for label, colour, marker in _SHOWN.values()
    ]
    figure.legend(handles=handles, ncols=len(handles), loc="outside upper center", frameon=False)
    machine = results["machine"]
    figure.supxlabel(
        f"Left of 1 is better. Medians of {results['rounds']} rounds, bars from the least to the "
        f"greatest; {machine['cores']} cores, Python {machine['python']}, {machine['date'][:10]}",
        fontsize="small",
    )
    figure.savefig(path, dpi=100)


def _rows(cases: list[dict[str, Any]]) -> tuple[list[float], list[tuple[float, str]]]:
    """Where each case is, with a gap for the name of each kind; and where those names are."""
    rows: list[float] = []
    kinds = []
    row = 0.0
    for kind, group in itertools.groupby(cases, key=lambda case: case["kind"]):
        kinds.append((row - 0.65, kind.capitalize()))
        for _ in group:
            rows.append(row)
            row += 1
        row += _GAP
    return rows, kinds


def _ratios(case: dict[str, Any], name: str) -> list[tuple[str, dict[str, float]]]:
    """The peers with a ratio of this figure to the published package, with its spread."""
    return [
        (peer, figures["ratios"]["published"][name])
        for peer, figures in case["peers"].items()
        if peer in _SHOWN and figures["ratios"].get("published", {}).get(name)
    ]


def _draw(axis: Any, row: float, case: dict[str, Any], name: str) -> None:
    shown = _ratios(case, name)
    for place, (peer, spread) in enumerate(shown):
        _, colour, marker = _SHOWN[peer]
        middle = spread["median"]
        axis.errorbar(
            middle,
            row + _STEP * ((place + 0.5) / len(shown) - 0.5),
            xerr=[[middle - spread["min"]], [spread["max"] - middle]],
            fmt=marker,
            markersize=4.5,
            elinewidth=1.2,
            color=colour,
        )


def _finish(axis: Any, label: str) -> None:
    axis.axvline(1, color="black", linewidth=0.9)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(axis="x", labelsize="small", rotation=45, top=True, labeltop=True)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", which="major", linewidth=0.5, color="0.8")
    axis.set_axisbelow(True)
    axis.set_title(label, fontsize="medium")
    axis.spines[["top", "left", "right"]].set_visible(False)


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        plot(json.load(file), sys.argv[2])
