"""Feature prediction beside other embeddings of the same size, at equal seconds.

Feature prediction trains first; self-supervised methods then train the same encoder for the seconds
that its whole fit took, with each of three learning rates. Networks trained on labels, from scratch
and from the fitted encoder, have only the labelled images. Linear, k-NN and MLP probes read the
embeddings with several numbers of labels; the table shows the linear one, with the learning rate
that was best on validation images. Takes hours. Records go into the file --out. The same command
goes on after a kill.

    python -m benchmarks baselines --dataset cifar10 --seeds 0 --out out/baselines.jsonl
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.baselines import BASELINES, LabelledEncoder
from benchmarks.grid import run_grid
from benchmarks.methods import train
from benchmarks.probes import draw_labelled, measure, measure_probes
from benchmarks.records import (
    RESULTS,
    common_settings,
    describe_machine,
    markdown_table,
    read_records,
    spread,
)
from benchmarks.self_supervised import OBJECTIVES
from benchmarks.splits import (
    BUDGETS,
    DATASET_HELP,
    add_data_arguments,
    budget_settings,
    dataset_name,
    get_budget,
    get_dataset,
    load_splits,
    verify_settings,
)
from skfp import FeaturePredictionEncoder

# Titles of rows, in the order in which they are computed.
ROWS = {
    "feature-prediction": "feature prediction",
    "fine-tuned": "feature prediction, fine-tuned on labels",
    **{name: method.title for name, method in BASELINES.items()},
}
TUNED = ("fine-tuned", *OBJECTIVES, "labels", "labels-pretrained")
OWN = "own predictions"  # of networks trained on labels
UNLIMITED = 10_000  # epochs, where seconds end training


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--dataset", type=dataset_name, metavar="NAME", required=True, help=DATASET_HELP)
    add("--out", type=Path, default=RESULTS / "baselines.jsonl", help="file of the records")
    what = f"which: {', '.join(ROWS)}"
    add("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME", help=what)
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="each trains once")
    add("--z", type=int, default=128, help="size of the embedding")
    add("--encoder", default="image", help="as in FeaturePredictionEncoder")
    add("--loss-network", default="alexnet", help="as in FeaturePredictionEncoder")
    add("--lr", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3], help="values that are tried")
    add("--labels", type=int, nargs="+", default=[100, 1000, 6000], help="numbers of labels")
    add("--budget", choices=BUDGETS, default="small", help="numbers of images and epochs")
    add("--max-epochs", type=int, help="of feature prediction, in place of the budget's")
    add("--label-epochs", type=int, default=50, help="of training on labels")
    add_data_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Compute what is missing and print the table."""
    budget = get_budget(args.dataset, args.budget)
    if args.max_epochs:
        budget = budget._replace(max_epochs=args.max_epochs)
    names = ("z", "encoder", "loss_network", "labels", "label_epochs")
    settings = {
        **{name: getattr(args, name) for name in names},
        **budget_settings(args.dataset, budget),
        **verify_settings(args.verify),
    }
    runs = [
        {"dataset": args.dataset, "row": row, "seed": seed, "lr": lr, "settings": settings}
        for seed, row in product(args.seeds, ROWS)
        if row in args.rows
        for lr in (args.lr if row in TUNED else [None])
    ]
    status = run_grid(
        runs,
        partial(compute, results=args.out),
        args.out,
        load=lambda _: load_splits(
            args.dataset, budget, data_home=args.data_home, verify=args.verify
        ),
        describe=lambda record: " ".join(
            f"{n} labels {next(iter(measured.values()))['test']:.3f}"
            for n, measured in record["measured"].items()
        ),
    )
    if args.out.exists():
        print(f"\n{table([r for r in read_records(args.out) if r['settings'] == settings])}")
    return status


def compute(run: Mapping, splits: Any, checkpoint_dir: None, *, results: Path) -> dict:
    """Train a row, and test it with each number of labels."""
    settings, row, seed = run["settings"], run["row"], run["seed"]
    z, encoder = settings["z"], settings["encoder"]
    if row in ("fine-tuned", "labels", "labels-pretrained"):
        start = {"labels": encoder, "labels-pretrained": "pretrained"}.get(row)
        if start is None:
            start = _feature_prediction(run).fit(splits.unlabelled)
        network = LabelledEncoder(
            start, z, lr=run["lr"], max_epochs=settings["label_epochs"], random_state=seed
        )
        return {"machine": describe_machine(), **_measure_labelled(network, run, splits)}
    if row == "feature-prediction":
        transformer: Any = _feature_prediction(run)
    elif row in OBJECTIVES:
        transformer = BASELINES[row].make(
            z=z,
            encoder=encoder,
            lr=run["lr"],
            max_epochs=UNLIMITED,
            max_seconds=_seconds_of_feature_prediction(run, results),
            random_state=seed,
        )
    else:
        transformer = BASELINES[row].make(z=z, random_state=seed)
    training = train(transformer, splits.unlabelled)
    (images, target), (test, test_target) = splits.labelled, splits.test
    measured = measure_probes(
        transformer.transform(images),
        target,
        transformer.transform(test),
        test_target,
        task=splits.task,
        n_labelled=settings["labels"],
        random_state=seed,
    )
    return {"machine": describe_machine(), "training": training, "measured": measured}


def _feature_prediction(run: Mapping) -> FeaturePredictionEncoder:
    settings = run["settings"]
    names = ("z", "encoder", "loss_network", "max_epochs")
    return FeaturePredictionEncoder(
        **{name: settings[name] for name in names}, random_state=run["seed"]
    )


def _seconds_of_feature_prediction(run: Mapping, results: Path) -> float:
    wanted = {**run, "row": "feature-prediction", "lr": None}
    for record in read_records(results):
        if record.items() >= wanted.items():
            return record["training"]["seconds"]
    raise ValueError(f"Run the row 'feature-prediction' with seed {run['seed']} first.")


def _measure_labelled(network: LabelledEncoder, run: Mapping, splits: Any) -> dict:
    """Train on each number of labels; the loss on the held-out fifth selects the learning rate."""
    images, target = splits.labelled
    measured, seconds = {}, 0.0
    for n in sorted({min(n, len(target)) for n in run["settings"]["labels"]}):
        rows: Any = slice(None) if n == len(target) else draw_labelled(target, n, run["seed"])
        seconds = train(network, images[rows], target[rows])["seconds"]  # with most labels, at last
        scores = {"test": measure(network, *splits.test), "validation": -network.validation_loss_}
        measured[str(n)] = {OWN: scores}
    return {"training": {"seconds": seconds}, "measured": measured}


def summary(records: Sequence[Mapping], probe: str = "linear") -> list[dict]:
    """Return test measures of each row by number of labels: of a probe, or of predictions.

    The learning rate is the one with the best mean validation score over the seeds.
    """
    common_settings(records)
    rows = []
    for row in ROWS:
        of_row = [r for r in records if r["row"] == row]
        tests = {}
        for n in sorted({n for r in of_row for n in r["measured"]}, key=int):
            by_lr: dict[Any, list[dict]] = {}
            for record in of_row:
                measured = record["measured"][n]
                by_lr.setdefault(record["lr"], []).append(measured.get(probe) or measured[OWN])
            best = max(by_lr.values(), key=lambda of: statistics.mean(m["validation"] for m in of))
            tests[n] = [m["test"] for m in best]
        if tests:
            rows.append({"row": row, "tests": tests})
    return rows


def table(records: Sequence[Mapping]) -> str:
    """Lay out the linear probe of each embedding, or the network's own predictions, as Markdown."""
    rows = summary(records)
    numbers = sorted({n for row in rows for n in row["tests"]}, key=int)
    seconds: dict[str, float] = {}
    for record in records:
        row, took = record["row"], record["training"]["seconds"]
        seconds[row] = min(took, seconds.get(row, took))
    title = get_dataset(records[0]["dataset"]).title
    return markdown_table(
        {
            title: ROWS[row["row"]],
            **{f"{int(n):,} labels": spread(row["tests"][n], 3) for n in numbers},
            "fit, least, s": f"{seconds[row['row']]:.0f}",
        }
        for row in rows
    )
