"""Validation loss by epoch until it no longer falls, as in the paper's figure 9.

Each procedure trains with the paper's settings, a constant learning rate among them, until its
patience is over. Takes hours. Records go into the file --out; `python -m benchmarks report` draws
the figure. The same command goes on after a kill.

    python -m benchmarks convergence --dataset lunarlander --images 3000 --out out/mine.jsonl
    python -m benchmarks report out/mine.jsonl
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.grid import run_grid
from benchmarks.methods import PROCEDURES, check_not_interrupted, split_as_paper, train_as_paper
from benchmarks.records import RESULTS, describe_machine
from benchmarks.splits import (
    BUDGETS,
    DATASET_HELP,
    add_data_arguments,
    budget_settings,
    dataset_name,
    get_budget,
    load_split,
    verify_settings,
)
from benchmarks.studies.comparison import get_parameters, make_method


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--dataset", type=dataset_name, metavar="NAME", required=True, help=DATASET_HELP)
    add("--out", type=Path, default=RESULTS / "convergence.jsonl", help="file of the records")
    what = f"which curves: {', '.join(PROCEDURES)}"
    add(
        "--procedures", nargs="+", choices=PROCEDURES, default=PROCEDURES, metavar="NAME", help=what
    )
    add("--z", type=int, default=64, help="size of the embedding")
    add("--patience", type=int, default=15, help="epochs without a better one that end training")
    add("--max-epochs", type=int, default=500, help="epochs at most")
    add("--budget", choices=BUDGETS, default="small", help="number of images")
    add("--images", type=int, help="number of images, in place of the budget's")
    add("--checkpoints", type=Path, help="folder in which procedures keep their last epoch")
    add_data_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Compute what is missing."""
    budget = get_budget(args.dataset, args.budget)
    if args.images:
        budget = budget._replace(n_unlabelled=args.images)
    names = ("budget", "n_unlabelled", "stride")
    settings = {name: budget_settings(args.dataset, budget)[name] for name in names}
    settings |= {"max_epochs": args.max_epochs, "patience": args.patience}
    settings |= verify_settings(args.verify)
    runs = []
    for procedure in args.procedures:
        run = {
            "dataset": args.dataset,
            "procedure": procedure,
            "preset": "paper",
            "z": args.z,
            "seed": 0,
            "settings": settings,
        }
        runs.append({**run, "parameters": get_parameters(run, patience=args.patience)})
    return run_grid(
        runs,
        compute,
        args.out,
        load=lambda _: load_split(
            args.dataset,
            "unlabelled",
            budget,
            data_home=args.data_home,
            n_jobs=-1,
            verify=args.verify,
        )[0],
        checkpoints=args.checkpoints,
        describe=lambda record: "best epoch {best_epoch} of {n_epochs}".format(
            **record["training"]
        ),
    )


def compute(run: Mapping, images: np.ndarray, checkpoint_dir: Path | None) -> dict:
    """Train until patience is over."""
    patience = run["settings"]["patience"]
    encoder = make_method(run, patience=patience, verbose=1, checkpoint_dir=checkpoint_dir)
    training = train_as_paper(encoder, images)
    check_not_interrupted(encoder)
    trained, _ = split_as_paper(images)
    return {
        "steps_per_epoch": math.ceil(len(trained) / encoder.batch_size),
        "machine": describe_machine(),
        "training": training,
    }
