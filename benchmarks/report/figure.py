"""Figures 6 to 8: the test measure against seconds per epoch, a point per procedure and z."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import Formatter, LogLocator, NullFormatter, ScalarFormatter

from benchmarks.methods import PROCEDURES, STYLES
from benchmarks.report.aggregate import Group
from benchmarks.report.tables import shown_measure, title


def trained(group: Group) -> pd.DataFrame:
    """Return the points of the figure of a group."""
    measured = group.means[group.means["repeats"] > 0]
    return measured[measured.index.isin(PROCEDURES, level="procedure")]


def draw(group: Group) -> Figure:
    """Draw the figure of a group.

    Larger markers are larger z; those of the paper's settings are hollow. Error bars are one
    standard deviation to each side. Rows without epochs are horizontal lines.
    """
    points = trained(group)
    figure = Figure(figsize=(11, 6), dpi=120, layout="constrained")
    axes = figure.subplots()
    handles = []
    sizes = {z: 6 + 3 * rank for rank, z in enumerate(sorted(points.index.unique("z")))}
    for (procedure, preset), rows in points.groupby(["procedure", "preset"], sort=False):
        style = _marker(procedure, preset)
        axes.plot(rows["seconds per epoch"], rows["test"], color=style["color"], linewidth=0.8)
        for (_, _, z), row in rows.iterrows():
            several = row["repeats"] > 1
            axes.errorbar(
                row["seconds per epoch"],
                row["test"],
                xerr=row["seconds per epoch std"] if several else None,
                yerr=row["test std"] if several else None,
                capsize=3,
                markersize=sizes[z],
                zorder=3,
                **style,
            )
        handles.append(Line2D([], [], label=title(procedure, preset), markersize=8, **style))
    handles += [
        Line2D([], [], label=f"z = {z}", marker="o", color="0.7", linestyle="none", markersize=size)
        for z, size in sizes.items()
    ]

    best = group.best()
    references = best[(best["repeats"] > 0) & ~best.index.isin(PROCEDURES, level="procedure")]
    for (procedure, preset, _), row in references.iterrows():
        # Knowing nothing is so much less accurate that its line would squeeze all others.
        if group.positions or procedure != "mean":
            label = f"{title(procedure, preset)}: {shown_measure(group, row)}"
            line = axes.axhline(row["test"], label=label, zorder=1, **STYLES[procedure])
            handles.append(line)

    if group.positions:
        scale_logarithmically(axes, ScalarFormatter())
        axes.set_ylabel("test distance in pixels, log scale (lower is better)")
    else:
        axes.set_ylabel("test accuracy (higher is better)")
    axes.set_xlabel("training time, seconds per epoch")
    axes.set_xlim(left=0)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.set_title(group.title)
    figure.legend(handles=handles, loc="outside right upper", fontsize=9, frameon=False)
    return figure


def _marker(procedure: str, preset: str) -> dict:
    style = STYLES[procedure]
    face = "white" if preset == "paper" else style["color"]
    return {**style, "linestyle": "none", "markerfacecolor": face, "markeredgewidth": 1.5}


def scale_logarithmically(axes: Axes, formatter: Formatter) -> None:
    """Label 1, 2 and 5 of every decade of a logarithmic y-axis."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(formatter)
    axes.yaxis.set_minor_formatter(NullFormatter())
