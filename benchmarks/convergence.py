"""Train each procedure until its validation loss no longer falls, as in the paper's figure 9.

The paper's settings, a constant learning rate among them, until so many epochs passed without a
better one. Each procedure writes a record of its own, so a killed run continues with the one in
which it was killed; `python -m benchmarks report` draws the figure.
"""

from __future__ import annotations

import argparse
import math
import shutil
from pathlib import Path

from benchmarks.methods import PROCEDURES, split_as_paper, train_as_paper, was_interrupted
from benchmarks.records import describe_machine, fingerprint, write_record
from benchmarks.roles import BUDGETS, budget_name, load_role


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--dataset", choices=BUDGETS, required=True)
    add("--out", type=Path, required=True, help="folder of the records")
    add("--procedures", nargs="+", choices=PROCEDURES, default=list(PROCEDURES))
    add("--z", type=int, default=64, help="size of the embedding")
    add("--patience", type=int, default=15, help="epochs without a better one")
    add("--max-epochs", type=int, default=500)
    add("--budget", choices=["small", "paper"], default="small")
    add("--images", type=int, help="number of unlabelled images, in place of the budget's")
    add("--checkpoints", type=Path, help="where procedures keep their last epoch in case of a kill")
    add("--data-home", type=Path, help="where data sets are kept between runs")


def main(args: argparse.Namespace) -> None:
    """Run what is missing."""
    budget = BUDGETS[args.dataset][args.budget]
    if args.images:
        budget = budget._replace(n_unlabelled=args.images)
    settings = {
        "budget": budget_name(args.dataset, budget),
        "n_unlabelled": budget.n_unlabelled,
        "stride": budget.stride,
        "max_epochs": args.max_epochs,
        "patience": args.patience,
    }
    images = None
    for name in args.procedures:
        parameters = {
            "z": args.z,
            "max_epochs": args.max_epochs,
            "patience": args.patience,
            "random_state": 0,
        }
        title, make = PROCEDURES[name].title, PROCEDURES[name].make_as_paper
        facts = {**settings, "parameters": make(**parameters).get_params()}
        del facts["budget"]
        path = args.out / f"{args.dataset}-{name}-z{args.z}-{fingerprint(facts)}.json"
        if path.exists():
            print(f"{title}: already there", flush=True)
            continue
        print(f"{title}: started", flush=True)
        if images is None:
            images, _ = load_role(
                args.dataset, "unlabelled", budget, data_home=args.data_home, n_jobs=-1
            )
        checkpoint_dir = args.checkpoints and args.checkpoints / path.stem
        encoder = make(verbose=1, checkpoint_dir=checkpoint_dir, **parameters)
        training = train_as_paper(encoder, images)
        if was_interrupted(encoder):
            raise KeyboardInterrupt
        trained, _ = split_as_paper(images)
        record = {
            "dataset": args.dataset,
            "procedure": name,
            "title": title,
            "preset": "paper",
            "z": args.z,
            "seed": 0,
            "settings": settings,
            "steps_per_epoch": math.ceil(len(trained) / encoder.batch_size),
            "machine": describe_machine(),
            "training": training,
        }
        print(f"{title}: best epoch {training['best_epoch']} of {training['n_epochs']}", flush=True)
        print(write_record(path, record), flush=True)
        if checkpoint_dir:
            shutil.rmtree(checkpoint_dir, ignore_errors=True)
