"""Train each procedure until its validation loss no longer falls, as in the paper's figure 9.

The paper's settings, a constant learning rate among them, until so many epochs passed without a
better one. Every curve is divided by its value after the first epoch, so that losses of different
kinds fit into one picture. A killed run continues with the procedure in which it was killed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.methods import PROCEDURES, STYLES, train_as_paper, was_interrupted
from benchmarks.records import (
    describe_machine,
    fingerprint,
    markdown_table,
    write_atomically,
    write_record,
)
from benchmarks.roles import BUDGETS, budget_name, load_role


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--dataset", choices=BUDGETS, required=True)
    add("--out", type=Path, required=True, help="folder of records and pictures, of its own")
    add("--procedures", nargs="+", choices=PROCEDURES, default=list(PROCEDURES))
    add("--z", type=int, default=64, help="size of the embedding")
    add("--patience", type=int, default=15, help="epochs without a better one")
    add("--max-epochs", type=int, default=500)
    add("--budget", choices=["small", "paper"], default="small")
    add("--images", type=int, help="number of unlabelled images, in place of the budget's")
    add("--data-home", type=Path, help="where data sets are kept between runs")


def main(args: argparse.Namespace) -> None:
    """Run what is missing, then print the table and draw the picture."""
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
    records = []
    for name in args.procedures:
        parameters = {
            "z": args.z,
            "max_epochs": args.max_epochs,
            "patience": args.patience,
            "random_state": 0,
        }
        make = PROCEDURES[name].make_as_paper
        facts = {**settings, "parameters": make(**parameters).get_params()}
        del facts["budget"]
        path = args.out / f"{args.dataset}-{name}-z{args.z}-{fingerprint(facts)}.json"
        if not path.exists():
            print(f"{PROCEDURES[name].title}", flush=True)
            if images is None:
                images, _ = load_role(
                    args.dataset, "unlabelled", budget, data_home=args.data_home, n_jobs=-1
                )
            encoder = make(verbose=1, **parameters)
            training = train_as_paper(encoder, images)
            if was_interrupted(encoder):
                raise KeyboardInterrupt
            record = {
                "dataset": args.dataset,
                "procedure": name,
                "title": PROCEDURES[name].title,
                "preset": "paper",
                "z": args.z,
                "seed": 0,
                "settings": settings,
                "machine": describe_machine(),
                "training": training,
            }
            write_record(path, record)
        records.append(json.loads(path.read_text("utf-8")))
    print(f"\n{table(records)}\n")
    figure = draw(records)
    for suffix in ("png", "svg"):
        path = args.out / f"convergence-{args.dataset}-z{args.z}.{suffix}"
        print(write_atomically(path, figure.savefig))


def relative_losses(record: Mapping) -> list[float]:
    """Return the validation loss by epoch, 1 after the first.

    >>> relative_losses({"training": {"history": [{"valid_loss": 4.0}, {"valid_loss": 1.0}]}})
    [1.0, 0.25]
    """
    losses = [row["valid_loss"] for row in record["training"]["history"]]
    return [loss / losses[0] for loss in losses]


def table(records: Sequence[Mapping]) -> str:
    """Lay the records out as a Markdown table."""
    return markdown_table(
        {
            "procedure": record["title"],
            "epochs": str(record["training"]["n_epochs"]),
            "best epoch": str(record["training"]["best_epoch"]),
            "training, s": f"{record['training']['seconds']:.0f}",
            "final loss, 1 after epoch 1": f"{relative_losses(record)[-1]:.3f}",
        }
        for record in records
    )


def draw(records: Sequence[Mapping]):
    """Draw validation loss by epoch, every curve 1 after its first epoch.

    Encoders of features are dashed.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 5.5), dpi=130, layout="constrained")
    axes = figure.subplots()
    for record in records:
        losses = relative_losses(record)
        axes.plot(
            range(1, len(losses) + 1),
            losses,
            markevery=max(1, len(losses) // 12),
            markersize=7,
            markeredgecolor="white",
            linewidth=1.8,
            label=f"{record['title']}, best epoch {record['training']['best_epoch']}",
            linestyle="-" if record["procedure"].startswith("I") else "--",
            **STYLES[record["procedure"]],
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation loss, 1 after the first epoch")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="0.9")
    axes.legend()
    axes.set_title(f"{records[0]['dataset']}, z = {records[0]['z']}")
    return figure
