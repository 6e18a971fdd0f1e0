"""The paper's comparison: every procedure, every size of embedding, several times.

Each run, that is a procedure with one z and one repeat, is trained, probed and tested. The small
budget takes minutes per run on two cores, the paper's hours. Records go into the file --out, from
which `python -m benchmarks report` makes tables and figures. The same command goes on after a kill:
with the runs that are missing, and with --checkpoints after the last epoch of a run.

    python -m benchmarks comparison --dataset lunarlander --z 64 --repeats 2 --out out/mine.jsonl
    python -m benchmarks comparison --dataset folder:photos --repeats 1 --out out/photos.jsonl
    python -m benchmarks report out/mine.jsonl

--n-jobs computes runs side by side on one machine. For several machines, give each its own data
sets, procedures or z, and join the files: every line is a record.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.grid import run_grid
from benchmarks.methods import (
    METHODS,
    PROCEDURES,
    check_not_interrupted,
    probe,
    train,
    train_as_paper,
)
from benchmarks.probes import measure, probe_settings
from benchmarks.records import RESULTS, describe_machine
from benchmarks.splits import (
    BUDGETS,
    DATASET_HELP,
    Budget,
    Splits,
    add_data_arguments,
    budget_settings,
    dataset_name,
    get_budget,
    get_dataset,
    load_splits,
    show_measure,
    verify_settings,
)
from skfp import LossNetwork

PRESETS = ("defaults", "paper")


def make_runs(
    dataset: str,
    procedures: Iterable[str],
    preset: str,
    zs: Sequence[int],
    n_repeats: int,
    budget: Budget,
) -> list[dict]:
    """List the runs of a comparison, the first repeat of all before the second of any.

    A method whose embedding has one size is there once per repeat. One that is trained in only one
    way, or not at all, has no preset, so that both presets share it. All that decides the result is
    in a run: with defaults of another version, it is another run.

    >>> for run in make_runs("svhn", ["I-F-FP", "pca", "mean"], "paper", [64, 128], 1, Budget()):
    ...     print(run["procedure"], run["preset"], run["z"], run["repeat"])
    I-F-FP paper 64 0
    pca None 64 0
    mean None 0 0
    I-F-FP paper 128 0
    pca None 128 0
    """
    runs = []
    for repeat, z, name in product(range(n_repeats), zs, procedures):
        method = METHODS[name]
        run = {
            "dataset": dataset,
            "procedure": name,
            "preset": preset if method.make_as_paper else None,
            "z": z if method.z is None else method.z,
            "repeat": repeat,
            "seed": repeat,
            "settings": budget_settings(dataset, budget),
        }
        run["parameters"] = get_parameters(run)
        run["probe_settings"] = probe_settings(get_dataset(dataset).task)
        if run not in runs:
            runs.append(run)
    return runs


def get_parameters(run: Mapping, **parameters: Any) -> dict:
    """Return the parameters of a run's method that decide what is learned."""
    ignored = {"verbose", "describe", "memory", "checkpoint_dir"}
    found = make_method(run, **parameters).get_params(deep=False)
    return {
        name: value.get_params() if isinstance(value, LossNetwork) else value
        for name, value in found.items()
        if name not in ignored
    }


def make_method(run: Mapping, **parameters: Any) -> Any:
    """Make the transformer of a run; parameters are those of procedures alone."""
    method = METHODS[run["procedure"]]
    verbose = parameters.pop("verbose", 0)
    settings = {"z": run["z"], "random_state": run["seed"]}
    if method.trained:
        settings |= {"max_epochs": run["settings"]["max_epochs"], "verbose": verbose}
    if method.supervised:
        settings["task"] = get_dataset(run["dataset"]).task
    if run["procedure"] in PROCEDURES:
        settings |= parameters
    make = method.make_as_paper if run["preset"] == "paper" else method.make
    return make(**settings)


def compute(
    run: Mapping,
    splits: Splits,
    checkpoint_dir: Path | None = None,
    *,
    verbose: int = 0,
    memory: Path | None = None,
) -> dict:
    """Train, probe and test.

    `test_measure` is the mean distance in the simulator's units or the accuracy.
    `seconds_per_epoch` is the time of the whole fit, features included, over the epochs. A
    supervised method also has `end_to_end_measure`, that of its own predictions.
    """
    method = METHODS[run["procedure"]]
    transformer = make_method(run, verbose=verbose, memory=memory, checkpoint_dir=checkpoint_dir)
    if method.supervised:
        training = train(transformer, *splits.labelled)
    elif run["preset"] == "paper":
        training = train_as_paper(transformer, splits.unlabelled)
    else:
        training = train(transformer, splits.unlabelled)
    check_not_interrupted(transformer)

    measured, _ = probe(
        transformer,
        splits.labelled,
        splits.test,
        task=splits.task,
        random_state=run["seed"],
        n_jobs=-1,
    )
    if method.supervised:
        measured["end_to_end_measure"] = measure(transformer, *splits.test)
    epoch = training["seconds"] / training["n_epochs"] if method.trained else None
    return {
        "features_from_memory": memory is not None,
        "machine": describe_machine(),
        "training": training,
        "seconds_per_epoch": epoch,
        **measured,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--dataset", type=dataset_name, metavar="NAME", required=True, help=DATASET_HELP)
    add("--out", type=Path, default=RESULTS / "comparison.jsonl", help="file of the records")
    what = f"which rows: all, {', '.join(METHODS)}"
    add(
        "--procedures",
        nargs="+",
        choices=["all", *METHODS],
        default=["all"],
        metavar="NAME",
        help=what,
    )
    add("--z", type=int, nargs="+", default=[64, 128, 256], help="sizes of the embedding")
    add("--repeats", type=int, default=4, help="number of seeds")
    add("--budget", choices=BUDGETS, default="small", help="numbers of images and epochs")
    add(
        "--settings",
        choices=PRESETS,
        default="defaults",
        help="of training: this package's defaults, or the paper's, which take the last fifth of "
        "the images for validation",
    )
    add("--max-epochs", type=int, help="in place of the budget's")
    add(
        "--images",
        type=int,
        nargs=3,
        metavar=("UNLABELLED", "LABELLED", "TEST"),
        help="numbers of images, in place of the budget's",
    )
    add("--n-jobs", type=int, default=1, help="runs computed at the same time")
    add("--memory", type=Path, help="folder in which runs share features")
    add("--checkpoints", type=Path, help="folder in which procedures keep their last epoch")
    add_data_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Compute what is missing."""
    budget = get_budget(args.dataset, args.budget)
    if args.images:
        unlabelled, labelled, test = args.images
        budget = budget._replace(n_unlabelled=unlabelled, n_labelled=labelled, n_test=test)
    if args.max_epochs:
        budget = budget._replace(max_epochs=args.max_epochs)
    procedures = METHODS if "all" in args.procedures else args.procedures
    runs = make_runs(args.dataset, procedures, args.settings, args.z, args.repeats, budget)
    for run in runs:
        run["settings"] |= verify_settings(args.verify)
    return run_grid(
        runs,
        partial(
            compute, verbose=int(args.n_jobs == 1), memory=args.memory and args.memory.resolve()
        ),
        args.out,
        load=lambda _: load_splits(
            args.dataset, budget, data_home=args.data_home, n_jobs=-1, verify=args.verify
        ),
        n_jobs=args.n_jobs,
        checkpoints=args.checkpoints,
        describe=show_measure,
    )
