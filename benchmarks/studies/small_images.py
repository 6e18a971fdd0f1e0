"""Small images resized to 64 by 64 pixels, as is the default, or tiled, as in the paper.

Each data set is embedded four ways, with several seeds: by a FeaturePredictionEncoder and by frozen
features of AlexNet through whitened PCA, of resized and of tiled images, all as many, in as many
epochs. Takes half an hour on one core. Records go into the file --out. The same command goes on
after a kill.

    python -m benchmarks small_images --datasets digits --seeds 0 --out out/small_images.jsonl
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.grid import run_grid
from benchmarks.methods import LossNetworkFeatures, WhitenedPCA, train
from benchmarks.probes import measure, select_probe, select_simple_probe
from benchmarks.records import (
    RESULTS,
    common_settings,
    describe_machine,
    markdown_table,
    read_records,
    spread,
)
from benchmarks.splits import (
    DATASET_HELP,
    Budget,
    add_data_arguments,
    dataset_name,
    get_dataset,
    load_splits,
    verify_settings,
)
from skfp import FeaturePredictionEncoder

METHODS = {"encoder": "encoder", "frozen": "frozen features, PCA"}
WAYS = {"auto": "resized", "tile": "tiled"}
HIDDEN_LAYERS = (64, 64)
PROBES = {"linear": "linear", "mlp": "MLP"}
THREADS = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--out", type=Path, default=RESULTS / "small_images.jsonl", help="file of the records")
    add(
        "--datasets",
        nargs="+",
        type=dataset_name,
        metavar="NAME",
        default=["fashion-mnist", "cifar10", "digits"],
        help=DATASET_HELP,
    )
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="each trains once")
    add("--z", type=int, default=64, help="size of the embedding")
    add("--max-epochs", type=int, default=3, help="epochs of training")
    add(
        "--images",
        type=int,
        nargs=3,
        metavar=("UNLABELLED", "LABELLED", "TEST"),
        default=[8_000, 4_000, 4_000],
        help="numbers of images, where there are so many",
    )
    add_data_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Compute what is missing and print the table."""
    torch.set_num_threads(THREADS)
    numbers = dict(zip(("n_unlabelled", "n_labelled", "n_test"), args.images, strict=True))
    settings = {"z": args.z, "max_epochs": args.max_epochs, **numbers}
    settings |= verify_settings(args.verify)
    runs = [
        {
            "dataset": dataset,
            "method": method,
            "resize": way,
            "seed": seed,
            "settings": settings,
        }
        for seed, dataset, method, way in product(args.seeds, args.datasets, METHODS, WAYS)
    ]

    def load(missing: list[dict]) -> dict:
        return {
            dataset: load_splits(
                dataset, Budget(**numbers), data_home=args.data_home, verify=args.verify
            )
            for dataset in {run["dataset"] for run in missing}
        }

    status = run_grid(
        runs,
        compute,
        args.out,
        load=load,
        describe=lambda record: " ".join(f"{p} {record['accuracy'][p]:.3f}" for p in PROBES),
    )
    if args.out.exists():
        print(f"\n{table(read_records(args.out))}")
    return status


def compute(run: Mapping, data: Mapping, checkpoint_dir: None) -> dict:
    """Embed in one way, and test the probes on the embedding."""
    (images, y), (test, y_test) = data[run["dataset"]].labelled, data[run["dataset"]].test
    z, epochs, seed = run["settings"]["z"], run["settings"]["max_epochs"], run["seed"]
    transformer: Any = (
        FeaturePredictionEncoder(z, max_epochs=epochs, resize=run["resize"], random_state=seed)
        if run["method"] == "encoder"
        else WhitenedPCA(LossNetworkFeatures(resize=run["resize"]), z, random_state=seed)
    )
    training = train(transformer, data[run["dataset"]].unlabelled)
    embedding, test_embedding = map(transformer.transform, (images, test))
    probes = {
        "linear": select_simple_probe("linear", embedding, y, task="class"),
        "mlp": select_probe(
            embedding, y, task="class", random_state=seed, hidden_layers=[HIDDEN_LAYERS]
        ),
    }
    return {
        "machine": describe_machine(),
        "training": training,
        "image_shape": images.shape[1:],
        "n_labelled_images": len(images),
        "n_test_images": len(test),
        "accuracy": {
            name: measure(probe, test_embedding, y_test) for name, probe in probes.items()
        },
    }


def _common_settings(records: Sequence[Mapping]) -> dict:
    """Return the settings that all records share; files of some need not be the published ones."""
    shared = [{k: v for k, v in r["settings"].items() if k != "verified"} for r in records]
    return common_settings([{"settings": settings} for settings in shared])


def summary(records: Sequence[Mapping]) -> list[dict]:
    """Return the accuracies of each data set, method and probe by way, seed by seed."""
    _common_settings(records)
    rows = []
    datasets = dict.fromkeys(record["dataset"] for record in records)
    for dataset, method, probe in product(datasets, METHODS, PROBES):
        of_row = [r for r in records if (r["dataset"], r["method"]) == (dataset, method)]
        accuracies = {
            way: {r["seed"]: r["accuracy"][probe] for r in of_row if r["resize"] == way}
            for way in WAYS
        }
        seeds = sorted(set.intersection(*map(set, accuracies.values())))
        if seeds:
            row = {way: [accuracies[way][seed] for seed in seeds] for way in WAYS}
            gain = [a - b for a, b in zip(row["auto"], row["tile"], strict=True)]
            rows.append({"dataset": dataset, "method": method, "probe": probe, **row, "gain": gain})
    return rows


def table(records: Sequence[Mapping]) -> str:
    """Lay out the study as Markdown."""
    sides = {r["dataset"]: r["image_shape"][0] for r in records}
    return markdown_table(
        {
            "data set": f"{get_dataset(row['dataset']).title}, {sides[row['dataset']]} pixels",
            "embedding": METHODS[row["method"]],
            "probe": PROBES[row["probe"]],
            **{title: spread(row[way], 3) for way, title in WAYS.items()},
            "resized better by": spread(row["gain"], 3, "+"),
            "seeds": str(len(row["gain"])),
        }
        for row in summary(records)
    )


def block(results: Path) -> str:
    """Write the block of the user guide."""
    records = read_records(results / "small_images.jsonl")
    settings, machine = _common_settings(records), records[0]["machine"]
    gains = [statistics.mean(row["gain"]) for row in summary(records)]
    hidden = "-".join(map(str, HIDDEN_LAYERS))
    unverified = sorted(
        get_dataset(name).title
        for name in {r["dataset"] for r in records if "verified" in r["settings"]}
    )
    note = f" Not checked to be the published files: {', '.join(unverified)}." if unverified else ""
    return (
        f"{table(records)}\n\nTest accuracy, mean and standard deviation over seeds; resized is "
        f"better in {sum(gain > 0 for gain in gains)} of {len(gains)} rows. "
        f"z = {settings['z']}, at most {settings['n_unlabelled']:,} unlabelled, "
        f"{settings['n_labelled']:,} labelled and {settings['n_test']:,} test images, "
        f"{settings['max_epochs']} epochs; the MLP has {hidden} hidden units; {machine['cpu']}."
        f"{note}"
    )
