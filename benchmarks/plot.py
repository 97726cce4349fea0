"""A plot of the results: `python plot.py RESULTS.json PLOT`, in the environment with matplotlib.

Each case's time, CPU time and peak memory as ratios to the published package, with their spread.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

_FIGURES = {"wall": "time", "cpu": "client CPU", "peak_mb": "peak memory"}
_COLOURS = {
    "ours": "tab:blue",
    "ours-host": "tab:cyan",
    "ours-trio": "tab:purple",
    "asks": "tab:orange",
    "curl": "tab:green",
    "floor": "tab:gray",
}
_STEP = 0.8


def plot(results: dict[str, Any], path: str) -> None:
    """Write the plot; the format follows the path's suffix."""
    cases = [case for case in results["cases"] if "published" in case["peers"]]
    height = 1.5 + 0.75 * len(cases)
    figure, axes = plt.subplots(1, len(_FIGURES), figsize=(15, height), sharey=True, squeeze=False)
    for axis, (name, label) in zip(axes[0], _FIGURES.items(), strict=True):
        for row, case in enumerate(cases):
            _draw(axis, row, case, name)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_xscale("log")
        axis.grid(axis="x", which="both", linewidth=0.3)
        axis.set_xlabel(f"{label} / that of the published package")
    axes[0][0].set_yticks(range(len(cases)), [case["title"] for case in cases])
    axes[0][0].invert_yaxis()
    handles = [
        plt.Line2D([], [], color=colour, marker="o", linestyle="", label=peer)
        for peer, colour in _COLOURS.items()
    ]
    figure.legend(handles=handles, ncols=len(handles), loc="upper center", frameon=False)
    machine = results["machine"]
    figure.supxlabel(
        f"{results['rounds']} rounds, {machine['cores']} cores, Python {machine['python']}, "
        f"{machine['date'][:10]}; bars: least to greatest; left of 1 is better",
        fontsize="small",
    )
    figure.tight_layout(rect=(0, 0.01, 1, 0.97))
    figure.savefig(path, dpi=110)


def _draw(axis: Any, row: int, case: dict[str, Any], name: str) -> None:
    shown = [
        (peer, figures["ratios"]["published"][name])
        for peer, figures in case["peers"].items()
        if figures["ratios"].get("published", {}).get(name)
    ]
    for place, (peer, spread) in enumerate(shown):
        middle = spread["median"]
        axis.errorbar(
            middle,
            row + _STEP * ((place + 0.5) / len(shown) - 0.5),
            xerr=[[middle - spread["min"]], [spread["max"] - middle]],
            fmt="o",
            markersize=5,
            color=_COLOURS[peer],
        )


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        plot(json.load(file), sys.argv[2])
