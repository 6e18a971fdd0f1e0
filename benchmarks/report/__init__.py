"""Tables I and II and figures 6 to 9 of the paper, made of result records, its numbers beside ours.

Reads every record below a folder and writes one HTML page that holds everything, the same as
Markdown, the figures as PNG and SVG, and the numbers as CSV. Records of different settings never
share a table or a figure, and what has not been run yet is shown as missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import paper
from benchmarks.methods import METHODS
from benchmarks.records import write_atomically
from benchmarks.report import convergence, figure, page
from benchmarks.report.numbers import DATASETS, Group, group_runs, read_runs
from benchmarks.report.tables import MISSING, coverage, full_table, table_1, table_2, to_csv
from benchmarks.report.words import describe, group_commands, orderings, run_command

CNN_BATCH = METHODS["cnn"].make(64, task="class").batch_size

INTRODUCTION = f"""Grund Pihlgren, Sandin and Liwicki, Pretraining Image Encoders without
Reconstruction via Feature Prediction Loss, ICPR 2020, run again. A procedure is named
(encoder)-(decoder)-(loss): I is an image, F its features in the loss network; the loss is pixel-
wise (PW), perceptual similarity (PS) or feature prediction (FP). Rows that do not say "paper
settings" were trained with this package's defaults. Numbers are means over repeats ± the
uncorrected standard deviation (ddof = 0), which one repeat does not have; the spread of a
difference is the root of the sum of both variances. Of seven probes the one with the lowest
validation loss is tested, and the best z of table II is the one with the lowest validation loss.
Unlike the paper's, a probe goes back to its best epoch by a fifth of what it learns from, drawn
at random, and the selected one is fitted again on all labelled images. The simple CNN has a ReLU
between z and its hidden layer, and batches of {CNN_BATCH}. Distances are in pixels of a 64x64
image, 32 of which are a unit of the simulator; the paper does not state its unit. A "{MISSING}"
is a number that does not exist, or not yet."""

README_INTRODUCTION = """± is the uncorrected standard deviation over repeats, and the spread of a
difference the root of the sum of both variances. Distances are in pixels of a 64x64 image and in
the simulator's units; the paper does not state its unit. Rows that do not say "paper settings" are
this package's defaults."""

FULL = """Probe columns are validation losses of the seven probes, named by their hidden layers:
mean squared error of positions in units, or log loss of classes. Seconds per epoch are those of the
whole fit over its epochs."""

TABLE_1 = """The paper trained these probes on the extra images, and ran it once. This trains them
on the training images, of which there are fewer:"""

FIGURE_9 = """Losses are divided by the one after the first epoch. The paper, on SVHN, where an
epoch is some 830 steps: F-F-FP collapses near epoch 15 and does not recover, all others converge
similarly fast, within 50 epochs. Epochs of fewer steps cannot be compared with these one by one.
This makes these curves and those that are missing:"""


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
        ("list", orderings(group)),
        ("h4", "Everything measured"),
        ("p", FULL),
        ("table", full_table(group)),
        ("h4", "Repeats of each cell"),
        ("table", coverage(group)),
        ("p", "This makes these results and what is missing; what is there is not run again:"),
        command,
    ]


def trial_document(trial: convergence.Trial) -> page.Document:
    """Lay out a figure 9 and what is seen in it."""
    return [
        ("h3", trial.title),
        ("p", convergence.describe(trial)),
        ("picture", (trial.name, "Validation loss by epoch, 1 after the first")),
        ("table", convergence.table(trial)),
        ("p", FIGURE_9),
        ("code", convergence.command(trial)),
    ]


def document(
    groups: Sequence[Group], trials: Sequence[convergence.Trial], folder: Path
) -> page.Document:
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
    curves = (folder / "convergence").as_posix()
    draw_curves = f"python -m benchmarks convergence --dataset svhn --z 64 --out {curves}"
    return [
        *parts,
        ("h2", f"Table I: SVHN, z = {paper.TABLE_1_Z}"),
        ("table", table_1(groups)),
        ("p", TABLE_1),
        ("code", run_command(folder, "svhn", [*paper.TABLE_1], [paper.TABLE_1_Z], 1, options)),
        ("h2", "Figure 9: convergence"),
        *(part for trial in trials for part in trial_document(trial)),
        *([] if trials else [("p", "No results yet. This makes them:"), ("code", draw_curves)]),
        ("h2", "This report"),
        ("code", f"python -m benchmarks report {folder.as_posix()}"),
    ]


def write_report(folder: Path, out: Path) -> list[Path]:
    """Make the report of the records below a folder; return its files, the HTML page first."""
    groups, trials = group_runs(read_runs(folder)), convergence.read_trials(folder)
    draw = {g.name: partial(figure.draw, g) for g in groups if figure.trained(g).size}
    draw |= {trial.name: partial(convergence.draw, trial) for trial in trials}
    # Drawn for each file: saving moves what the layout places.
    pictures = [
        write_atomically(out / f"{name}{suffix}", partial(figure.save, drawing()))
        for name, drawing in draw.items()
        for suffix in (".png", ".svg")
    ]
    parts = document(groups, trials, folder)
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
    parts: list[tuple[str, Any]] = [("p", README_INTRODUCTION)]
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
