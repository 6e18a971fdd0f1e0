"""Tables I and II and figures 6 to 9 of the paper, made of result records, its numbers beside ours.

Reads every record below a folder and writes one HTML page that holds everything, the same as
Markdown, the figures as PNG and SVG, and the numbers as CSV. Records of different settings never
share a table or a figure, and what has not been run yet is shown as missing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from benchmarks import paper
from benchmarks.records import write_atomically
from benchmarks.report import figure, page
from benchmarks.report.numbers import DATASETS, Group, group_runs, read_runs
from benchmarks.report.tables import MISSING, full_table, table_1, table_2, to_csv
from benchmarks.report.words import describe, group_commands, orderings, run_command

INTRODUCTION = f"""Grund Pihlgren, Sandin and Liwicki, Pretraining Image Encoders without
Reconstruction via Feature Prediction Loss, ICPR 2020, run again. A procedure is named
(encoder)-(decoder)-(loss): I is an image, F its features in the loss network; the loss is
pixel-wise (PW), perceptual similarity (PS) or feature prediction (FP). Rows that do not say "paper
settings" were trained with this package's defaults. Numbers are means over repeats ± the
uncorrected standard deviation (ddof = 0), which one repeat does not have. Of seven probes the one
with the lowest validation loss is tested, and the best z of table II is the one with the lowest
validation loss. Distances are in pixels of a 64x64 image, 32 of which are a unit of the simulator;
the paper does not state its unit. A "{MISSING}" is a number that does not exist, or not yet."""

FULL = """Probe columns are validation losses of the seven probes, named by their hidden layers:
mean squared error of positions in units, or log loss of classes. Seconds per epoch are those of the
whole fit over its epochs."""

TABLE_1 = """Netzer et al. (2011), whose features the paper compares with, reached 0.897. The paper
trained these probes on the extra images, and ran it once. This trains them on the training images,
of which there are fewer:"""


def group_document(group: Group, folder: Path) -> page.Document:
    """Lay out all that is known of a group."""
    command = ("code", group_commands(group, folder))
    if group.runs.empty:
        return [("p", "No results yet. This makes them:"), command, ("table", table_2(group))]
    drawn = figure.trained(group).size
    return [
        ("h3", f"{group.title}, settings {group.fingerprint}"),
        ("p", describe(group)),
        *([("picture", (group.name, figure.alternative(group)))] if drawn else []),
        ("h4", "Table II: the best z of each row"),
        ("table", table_2(group)),
        ("h4", "What the numbers say"),
        ("p", "Spread here is the root of the sum of both variances over repeats."),
        ("list", orderings(group)),
        ("h4", "Everything measured"),
        ("p", FULL),
        ("table", full_table(group)),
        ("p", "This makes these results and what is missing; what is there is not run again:"),
        command,
    ]


def convergence_document(folder: Path, out: Path) -> page.Document:
    """Lay out figures 9 as far as `benchmarks convergence` drew them below the folder."""
    drawn = sorted(path.with_suffix("") for path in folder.rglob("convergence-*.svg"))
    if not drawn:
        records = (folder / "convergence").as_posix()
        command = f"python -m benchmarks convergence --dataset svhn --z 64 --out {records}"
        return [("p", "No results yet. This makes them:"), ("code", command)]
    alternative = "Validation loss by epoch, 1 after the first"
    names = (Path(os.path.relpath(path, out)).as_posix() for path in drawn)
    return [("picture", (name, alternative)) for name in names]


def document(groups: Sequence[Group], folder: Path, out: Path) -> page.Document:
    """Lay out the whole report."""
    parts = [
        ("h1", "Pretraining by feature prediction: the paper's comparison, run again"),
        ("p", INTRODUCTION),
    ]
    for dataset, title in DATASETS.items():
        parts.append(("h2", title))
        for group in groups:
            if group.dataset == dataset:
                parts += group_document(group, folder)
    options = "--budget paper --settings paper"
    return [
        *parts,
        ("h2", f"Table I: SVHN, z = {paper.TABLE_1_Z}"),
        ("table", table_1(groups)),
        ("p", TABLE_1),
        ("code", run_command(folder, "svhn", [*paper.TABLE_1], [paper.TABLE_1_Z], 1, options)),
        ("h2", "Figure 9: convergence"),
        *convergence_document(folder, out),
        ("h2", "This report"),
        ("code", f"python -m benchmarks report {folder.as_posix()}"),
    ]


def write_report(folder: Path, out: Path) -> list[Path]:
    """Make the report of the records below a folder; return its files, the HTML page first."""
    groups = group_runs(read_runs(folder))
    pictures = [
        write_atomically(out / f"{group.name}{suffix}", partial(figure.save, figure.draw(group)))
        for group in groups
        for suffix in (".png", ".svg")
        if figure.trained(group).size
    ]
    parts = document(groups, folder, out)
    texts = {
        "report.html": page.to_html(parts, out),
        "report.md": page.to_markdown(parts),
        "table-1.csv": pd.DataFrame(table_1(groups)).to_csv(index=False),
        "table-2.csv": to_csv(groups, best=True),
        "full.csv": to_csv(groups),
    }
    written = [
        write_atomically(out / name, lambda p, text=text: Path(p).write_text(text, "utf-8"))
        for name, text in texts.items()
    ]
    return written + pictures


def readme_block(root: Path, folder: Path) -> str:
    """Make the README's block: table II of what anyone can run offline, and what it says.

    The records are in `folder`, relative to the README's folder `root`, and the report in its
    folder `report`.
    """
    parts = []
    for group in group_runs(read_runs(root / folder)):
        if group.dataset in ("lunarlander", "fashion-mnist") and not group.runs.empty:
            rows = [r for r in table_2(group) if {r["paper"], r[group.measure]} != {MISSING}]
            parts += [
                ("p", f"**{group.title}.** {describe(group)}"),
                ("table", rows),
                ("list", orderings(group)),
            ]
            if figure.trained(group).size:
                picture = folder / "report" / group.name
                parts.append(("picture", (picture.as_posix(), figure.alternative(group))))
    return page.to_markdown(parts)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder of the records")
    parser.add_argument("--out", type=Path, help="folder of the report (default: DIR/report)")


def main(args: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    try:
        paths = write_report(args.folder, args.out or args.folder / "report")
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"The report is {paths[0]}; {len(paths) - 1} tables and figures are beside it.")
    return 0
