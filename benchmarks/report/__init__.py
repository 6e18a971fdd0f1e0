"""Tables I and II and figures 6 to 9 of the paper, from records, beside the paper's numbers.

Reads the records of `comparison` and `convergence`, the committed ones by default, and writes
report.md, its figures, and runs.csv with the means of every z into the folder --out, in seconds.
Records of different settings never share a table or a figure. A "-" is a number that does not exist
yet.

    python -m benchmarks report out/mine.jsonl --out out/report
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import paper
from benchmarks.records import RESULTS, markdown_table, save_figure, write_text
from benchmarks.report import convergence, figure
from benchmarks.report.aggregate import Group, group_runs, read_runs
from benchmarks.report.tables import MISSING, table_1, table_2, to_csv
from benchmarks.splits import get_dataset

COMPARISON, CONVERGENCE = RESULTS / "comparison.jsonl", RESULTS / "convergence.jsonl"
# Data sets of the user guide: what anyone can run offline.
OFFLINE = ("lunarlander", "fashion-mnist")

INTRODUCTION = f"""# Pretraining by feature prediction: the paper's comparison, run again

Grund Pihlgren, Sandin and Liwicki, Pretraining Image Encoders without Reconstruction via Feature
Prediction Loss, ICPR 2020. A procedure is named (encoder)-(decoder)-(loss): I is an image, F its
features in the loss network; the loss is pixel-wise (PW), perceptual similarity (PS) or feature
prediction (FP). Rows that do not say "paper settings" were trained with this package's defaults.
Numbers are means over repeats ± the uncorrected standard deviation (ddof = 0), which one repeat
does not have. Of seven probes the one with the lowest validation loss is tested, and the best z of
table II is the one with the lowest validation loss. Unlike the paper's, a probe goes back to its
best epoch by a random fifth of its images, and the selected one is fitted again on all labelled
images. The simple CNN has a ReLU between z and its hidden layer. Distances are in pixels of a 64x64
image, 32 of which are a unit of the simulator; the paper does not state its unit. A "{MISSING}" is
a number that does not exist, or not yet: `python -m benchmarks comparison` computes the rest.
"""

BLOCK_INTRODUCTION = (
    "± is the uncorrected standard deviation over repeats. Distances are in pixels of a 64x64 "
    "image and in the simulator's units; the paper does not state its unit. Rows that do not say "
    '"paper settings" are this package\'s defaults.'
)

TABLE_1 = """The paper trained these probes on the extra images, and ran it once. These learn from
the training images, of which there are fewer."""

FIGURE_9 = """Losses are divided by the one after the first epoch. The paper, on SVHN, where an
epoch is some 830 steps: F-F-FP collapses near epoch 15 and does not recover, all others converge
similarly fast, within 50 epochs. Epochs of fewer steps cannot be compared with these one by one."""


def write_report(sources: Sequence[Path], out: Path) -> list[Path]:
    """Write the report of files of records; return its files, report.md first."""
    groups, trials = group_runs(read_runs(sources)), convergence.read_trials(sources)
    text = "\n\n".join(
        [
            INTRODUCTION.strip(),
            *(section for group in groups for section in _sections(group)),
            f"## Table I: SVHN, z = {paper.TABLE_1_Z}",
            markdown_table(table_1(groups)),
            TABLE_1,
            "## Figure 9: convergence",
            *(
                f"### {trial.title}\n\n{convergence.describe(trial)}\n\n"
                f"![Validation loss by epoch, 1 after the first]({trial.name}.png)\n\n"
                f"{markdown_table(convergence.table(trial))}\n\n{FIGURE_9}"
                for trial in trials
            ),
            *([] if trials else ["No results yet."]),
        ]
    )
    return [
        write_text(out / "report.md", text + "\n"),
        write_text(out / "runs.csv", to_csv(groups)),
        *_draw(groups, out),
        *(save_figure(out / f"{trial.name}.png", convergence.draw(trial)) for trial in trials),
    ]


def _sections(group: Group) -> list[str]:
    """Lay out table II of a group, and its figure."""
    known = ["No results yet."] if group.runs.empty else [group.describe(), *_picture(group)]
    return [f"## {group.title}", *known, markdown_table(table_2(group))]


def _picture(group: Group) -> list[str]:
    alt = f"{get_dataset(group.dataset).title}: {group.measure} against seconds per epoch"
    return [f"![{alt}]({group.name}.png)"] if figure.trained(group).size else []


def _draw(groups: Sequence[Group], out: Path) -> list[Path]:
    drawn = (group for group in groups if figure.trained(group).size)
    return [save_figure(out / f"{group.name}.png", figure.draw(group)) for group in drawn]


def block(results: Path) -> str:
    """Write the block of the user guide: table II of what anyone can run offline."""
    paragraphs = [BLOCK_INTRODUCTION]
    for group in _offline_groups(results):
        rows = [r for r in table_2(group) if {r["paper"], r[group.measure]} != {MISSING}]
        paragraphs += [
            f"**{group.title}.** {group.describe()}",
            markdown_table(rows),
            *_picture(group),
        ]
    return "\n\n".join(paragraphs)


def draw_block_figures(results: Path) -> None:
    """Draw the figures of the block."""
    _draw(_offline_groups(results), results)


def _offline_groups(results: Path) -> list[Group]:
    groups = group_runs(read_runs([results / COMPARISON.name]))
    return [group for group in groups if group.dataset in OFFLINE and not group.runs.empty]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "records",
        nargs="*",
        type=Path,
        metavar="FILE",
        default=[COMPARISON, CONVERGENCE],
        help="files of records (default: the committed ones)",
    )
    parser.add_argument("--out", type=Path, default=Path("out/report"), help="folder of the report")


def main(args: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    try:
        paths = write_report(args.records, args.out)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"The report is {paths[0]}; {len(paths) - 1} tables and figures are beside it.")
    return 0
