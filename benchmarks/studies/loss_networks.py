"""Loss networks compared: what an encoder learns from each, and what that costs.

Every network is cut at a layer. Its features of the images are probed through whitened PCA, and as
predicted by a FeaturePredictionEncoder of the same size. Takes hours on one core; features are
computed once per data set and kept in the folder --memory. Records go into the file --out, and a
picture beside it. The same command goes on after a kill.

    python -m benchmarks loss_networks --networks alexnet-relu2 --epochs 3 --out out/mine.jsonl
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.transforms.functional import resize

from benchmarks.grid import run_grid
from benchmarks.internals import (
    PROJECTION_SAMPLE,
    FeatureExtractor,
    Preprocess,
    load_loss_network,
    read_images,
)
from benchmarks.methods import probe, train
from benchmarks.records import (
    RESULTS,
    common_settings,
    describe_machine,
    markdown_table,
    read_records,
    save_figure,
    spread,
)
from benchmarks.splits import (
    DATASETS,
    PIXELS_PER_UNIT,
    Budget,
    Splits,
    load_splits,
    show_measure,
)
from benchmarks.weights.imagenet import fetch_weights
from skfp import FeaturePredictionEncoder, LossNetwork

# Data sets of the study: digits of the quality, and what it is.
QUALITY = {
    "lunarlander": (2, "test distance in pixels (lower is better)"),
    "fashion-mnist": (3, "accuracy (higher is better)"),
}
SIDE = 64
# Written out, so that the study stays the same when defaults change.
TRAINING = {
    "target_components": 512,
    "batch_size": 64,
    "lr": 3e-3,
    "lr_schedule": "one-cycle",
    "validation_fraction": 0.2,
}
# Earlier layers of VGG16 have too many places: pooled, all have 8 by 8 as the fourth has.
GRID = {"vgg16": 8}
# Layers whose weights come with the package.
SHIPPED = (("alexnet", "features.1"), ("alexnet", "features.4"))
THREADS = 1  # so that times do not depend on how many cores are idle
# Images that speed is measured on: a second or so each way.
N_TIMED = {"frozen": 128, "encoder": 2048}
REPEATS = 3


# Title, and (network, layer) of torchvision; from several, encoders learn at once.
NETWORKS = {
    "alexnet-relu2": ("AlexNet relu2", [("alexnet", "features.4")]),
    "vgg16-relu4_3": ("VGG16 relu4_3", [("vgg16", "features.22")]),
    "alexnet-relu1": ("AlexNet relu1", [("alexnet", "features.1")]),
    "alexnet-relu3": ("AlexNet relu3", [("alexnet", "features.7")]),
    "alexnet-relu4": ("AlexNet relu4", [("alexnet", "features.9")]),
    "alexnet-relu5": ("AlexNet relu5", [("alexnet", "features.11")]),
    "vgg16-relu2_2": ("VGG16 relu2_2", [("vgg16", "features.8")]),
    "vgg16-relu3_3": ("VGG16 relu3_3", [("vgg16", "features.15")]),
    "both": (
        "AlexNet relu2 and VGG16 relu4_3",
        [("alexnet", "features.4"), ("vgg16", "features.22")],
    ),
}
MAIN = ("alexnet-relu2", "vgg16-relu4_3")


def make_network(name: str) -> list[LossNetwork]:
    """Describe a row's networks, and fetch weights that the package does not have."""
    return [
        LossNetwork(
            network,
            layer=layer,
            weights="default" if (network, layer) in SHIPPED else str(fetch_weights(network)),
            pool=GRID.get(network, "flatten"),
        )
        for network, layer in NETWORKS[name][1]
    ]


def make_runs(
    datasets: Sequence[str],
    networks: Sequence[str],
    epochs: Sequence[int],
    seeds: Sequence[int],
    settings: Mapping | None = None,
) -> list[dict]:
    """List the runs; no epochs stand for frozen features.

    The main networks come first: with the largest budget and all seeds, then with smaller budgets.
    The other networks follow with the first seed.

    Examples
    --------
    >>> for run in make_runs(["lunarlander"], ["alexnet-relu2", "both"], [2, 8], [0, 1]):
    ...     print(run["network"], run["epochs"], run["seed"])
    alexnet-relu2 None 0
    alexnet-relu2 8 0
    alexnet-relu2 None 1
    alexnet-relu2 8 1
    alexnet-relu2 2 0
    both None 0
    both 8 0
    both 2 0
    """
    *smaller, largest = sorted(epochs)
    main = [name for name in networks if name in MAIN]
    others = [name for name in networks if name not in MAIN]
    keys = [
        *product(seeds, datasets, main, (None, largest)),
        *product(seeds[:1], datasets, main, smaller),
        *(
            (seeds[0], dataset, name, budget)
            for name, dataset, budget in product(others, datasets, (None, largest, *smaller))
        ),
    ]
    return [
        {
            "dataset": dataset,
            "network": name,
            "epochs": budget,
            "seed": seed,
            "settings": dict(settings or {}),
        }
        for seed, dataset, name, budget in keys
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--out", type=Path, default=RESULTS / "loss_networks.jsonl", help="file of the records")
    add("--datasets", nargs="+", choices=QUALITY, default=list(QUALITY), help="which data sets")
    what = f"which: {', '.join(NETWORKS)}"
    add("--networks", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="NAME", help=what)
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the two main networks")
    add("--epochs", type=int, nargs="+", default=[3, 12], help="encoders train for each of these")
    add("--z", type=int, default=64, help="size of the embedding")
    add(
        "--images",
        type=int,
        nargs=3,
        metavar=("UNLABELLED", "LABELLED", "TEST"),
        default=[10_000, 8_000, 2_000],
        help="numbers of images",
    )
    add("--memory", type=Path, default=Path("out/loss_networks"), help="where features are kept")
    add("--data-home", type=Path, help="where images are kept between runs")
    add("--n-jobs", type=int, default=1, help="processes for frames and probes")


def main(args: argparse.Namespace) -> int:
    """Compute what is missing, print the tables and draw the picture."""
    torch.set_num_threads(THREADS)
    settings = {
        "z": args.z,
        **dict(zip(("unlabelled", "labelled", "test"), args.images, strict=True)),
        **TRAINING,
    }
    status = run_grid(
        make_runs(args.datasets, args.networks, args.epochs, args.seeds, settings),
        partial(compute, memory=args.memory, n_jobs=args.n_jobs),
        args.out,
        load=lambda runs: {
            dataset: load_resized(dataset, args) for dataset in {run["dataset"] for run in runs}
        },
        describe=show_measure,
    )
    if args.out.exists():
        records = read_records(args.out)
        for dataset in QUALITY:
            if summary(records, dataset):
                print(f"\n{DATASETS[dataset].title}\n{table(records, dataset)}")
        picture = save_figure(args.out.with_suffix(".png"), draw(records))
        print(f"\nThe picture is {picture}.")
    return status


def load_resized(dataset: str, args: argparse.Namespace) -> Splits:
    """Load a data set, resized instead of tiled: deep layers need things to be large."""
    budget = Budget(*args.images, stride=10)
    splits = load_splits(dataset, budget, data_home=args.data_home, n_jobs=args.n_jobs)

    def resized(images: np.ndarray) -> np.ndarray:
        if images.shape[1:3] == (SIDE, SIDE):
            return images
        return resize(torch.from_numpy(images), [SIDE, SIDE], antialias=True).numpy()

    (labelled, y), (test, y_test) = splits.labelled, splits.test
    return Splits(
        splits.task, resized(splits.unlabelled), (resized(labelled), y), (resized(test), y_test)
    )


def compute(
    run: Mapping,
    data: Mapping[str, Splits],
    checkpoint_dir: None,
    *,
    memory: Path,
    n_jobs: int,
) -> dict:
    """Probe frozen features, or train an encoder and probe it."""
    splits, z, epochs = data[run["dataset"]], run["settings"]["z"], run["epochs"]
    frozen = Frozen(make_network(run["network"]), z, memory)
    frozen.fit(splits.unlabelled)  # before training, whose time is to count no features
    transformer: Any = frozen
    training: dict = {}
    if epochs is not None:
        transformer = FeaturePredictionEncoder(
            z,
            loss_network=make_network(run["network"]),
            max_epochs=epochs,
            patience=epochs,
            memory=memory,
            random_state=run["seed"],
            **TRAINING,
        )
        training = train(transformer, splits.unlabelled)
    measured, _ = probe(
        transformer,
        splits.labelled,
        splits.test,
        task=splits.task,
        random_state=run["seed"],
        n_jobs=n_jobs,
    )
    del measured["encoding"]  # may come out of the cache
    return {
        "machine": describe_machine(),
        "training": training,
        "embedding": _images_per_second(transformer, frozen, splits.test[0]),
        **measured,
    }


class Frozen:
    """Features of loss networks through whitened PCA, kept in the cache that fits share."""

    def __init__(self, loss_network: list, z: int, memory: Path) -> None:
        self.network = load_loss_network(loss_network)
        self.z = z
        self.memory = memory

    def fit(self, images: np.ndarray, y: Any = None) -> Frozen:
        """Find the components, and the projection of all images."""
        extractor = self._extractor(images)
        self.projection = extractor.fit_projection(TRAINING["target_components"])
        self.std = self._project(extractor).std(axis=0)
        return self

    def transform(self, images: np.ndarray) -> np.ndarray:
        """Return the leading components, scaled to unit variance."""
        return self._project(self._extractor(images)) / self.std

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the features themselves, never from the cache."""
        return self._extractor(images, cached=False).features().array

    def _project(self, extractor: FeatureExtractor) -> np.ndarray:
        return np.array(extractor.projected(self.projection).array[:, : self.z])

    def _extractor(self, images: np.ndarray, cached: bool = True) -> FeatureExtractor:
        checked = read_images(images)
        return FeatureExtractor.from_images(
            checked,
            Preprocess(),
            self.network,
            torch.device("cpu"),
            self.memory if cached else None,
        )


def _images_per_second(transformer: Any, frozen: Frozen, images: np.ndarray) -> dict[str, float]:
    """Time both ways to embed, in turns."""
    ways: dict[str, Callable] = {"frozen": frozen.features}
    if transformer is not frozen:
        ways["encoder"] = transformer.transform
    seconds = dict.fromkeys(ways, math.inf)
    for _ in range(REPEATS):
        for name, embed in ways.items():
            start = time.perf_counter()
            embed(images[: N_TIMED[name]])
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return {name: min(len(images), N_TIMED[name]) / seconds[name] for name in ways}


def _quality(record: Mapping) -> float:
    """Return pixels for positions, a share for classes."""
    scale = PIXELS_PER_UNIT if DATASETS[record["dataset"]].task == "position" else 1
    return scale * record["test_measure"]


def summary(records: Sequence[Mapping], dataset: str) -> list[dict]:
    """Summarise each network that has both frozen features and an encoder.

    "frozen" and "encoder" are qualities by seed, "encoder" at the largest budget of that network;
    "gain" is by how much the encoder is better, seed by seed; "budgets" holds qualities by epochs.
    """
    common_settings(records)
    median, sign = statistics.median, -1 if DATASETS[dataset].task == "position" else 1
    rows = []
    for name, (title, _) in NETWORKS.items():
        here = [r for r in records if (r["dataset"], r["network"]) == (dataset, name)]
        largest = max((r["epochs"] or 0 for r in here), default=0)
        trained = [r for r in here if r["epochs"] == largest]
        frozen = {r["seed"]: _quality(r) for r in here if r["epochs"] is None}
        encoder = {r["seed"]: _quality(r) for r in trained}
        seeds = sorted(frozen.keys() & encoder.keys())
        if not seeds:
            continue
        speeds = [(r["embedding"]["frozen"], r["embedding"]["encoder"]) for r in trained]
        sizes = [r["training"]["n_images"] + PROJECTION_SAMPLE for r in trained]
        budgets = {r["epochs"] for r in here} - {None}
        rows.append(
            {
                "name": name,
                "title": title,
                "seeds": len(seeds),
                "frozen": [frozen[seed] for seed in seeds],
                "encoder": [encoder[seed] for seed in seeds],
                "gain": [sign * (encoder[seed] - frozen[seed]) for seed in seeds],
                "budgets": {n: [_quality(r) for r in here if r["epochs"] == n] for n in budgets},
                # Not timed in fit, which may find them in the cache.
                "features_seconds": median(n / f for n, (f, _) in zip(sizes, speeds, strict=True)),
                "training_seconds": median(r["training"]["seconds"] for r in trained),
                "frozen_speed": median(f for f, _ in speeds),
                "encoder_speed": median(e for _, e in speeds),
                "ratio": median(e / f for f, e in speeds),
            }
        )
    return rows


def table(records: Sequence[Mapping], dataset: str) -> str:
    """Lay out a data set's networks as Markdown."""
    digits, _ = QUALITY[dataset]
    rows = summary(records, dataset)
    budgets = sorted(set().union(*(row["budgets"] for row in rows)))
    return markdown_table(
        {
            "loss network": row["title"],
            "frozen, PCA": spread(row["frozen"], digits),
            **{
                f"encoder, {n} epochs": spread(row["budgets"][n], digits)
                if n in row["budgets"]
                else "-"
                for n in budgets
            },
            "encoder better by": spread(row["gain"], digits, "+"),
            "features, s": f"{row['features_seconds']:.0f}",
            "training, s": f"{row['training_seconds']:.0f}",
            "frozen, images/s": f"{row['frozen_speed']:,.0f}",
            "encoder, images/s": f"{row['encoder_speed']:,.0f}",
            "ratio": f"{row['ratio']:.1f}",
            "seeds": str(row["seeds"]),
        }
        for row in rows
    )


def block(results: Path) -> str:
    """Write the block of the user guide."""
    records = read_records(results / "loss_networks.jsonl")
    settings, machine = common_settings(records), records[0]["machine"]
    tables = [
        f"{DATASETS[dataset].title}, {heading}:\n\n{table(records, dataset)}"
        for dataset, (_, heading) in QUALITY.items()
        if summary(records, dataset)
    ]
    text = (
        f"z = {settings['z']}, {settings['unlabelled']:,} unlabelled images of {SIDE} by {SIDE} "
        f"pixels (Fashion-MNIST resized), {settings['target_components']} components, batches of "
        f"{settings['batch_size']}; probes learned from at most {settings['labelled']:,} labelled "
        f"images and were tested on at most {settings['test']:,}. ± is the standard deviation over "
        "seeds; the gain is that of the most epochs, seed by seed. Training does not count the "
        "features, which are computed once per set of images: their time is that of the frozen "
        f"network over all unlabelled images, and over {PROJECTION_SAMPLE:,} of them again to find "
        f"the components. {THREADS} thread on {machine['cpu']}."
    )
    alt = "Quality against embedding time, frozen networks and the encoders trained on them"
    return "\n\n".join([*tables, text, f"![{alt}](loss_networks.png)"])


def draw(records: Sequence[Mapping]) -> Any:
    """Draw quality against embedding time: a line from each network to its encoder."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), dpi=130, layout="constrained")
    drawn = [dataset for dataset in QUALITY if summary(records, dataset)]
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    markers = dict(zip(NETWORKS, "osv^<>XPD", strict=True))
    # Colours of Okabe and Ito, and two more.
    hues = ("#D55E00", "#0072B2", "#E69F00", "#009E73", "#56B4E9", "#CC79A7", "k", "0.5", "#8B4513")
    colors = dict(zip(NETWORKS, hues, strict=True))
    for panel, dataset in zip(panels, drawn, strict=True):
        for row in summary(records, dataset):
            color, marker = colors[row["name"]], markers[row["name"]]
            times = [1000 / row["frozen_speed"], 1000 / row["encoder_speed"]]
            means = [statistics.mean(row[way]) for way in ("frozen", "encoder")]
            panel.plot(times, means, color=color, linewidth=0.8, alpha=0.5)
            for i, (way, fill) in enumerate((("frozen", "none"), ("encoder", color))):
                panel.errorbar(
                    times[i], means[i], statistics.pstdev(row[way]), color=color, marker=marker,
                    markerfacecolor=fill, capsize=3, markersize=8, linestyle="none",
                    label=row["title"] if i else None,
                )  # fmt: skip
        panel.set(
            xscale="log",
            xlabel=f"embedding time (ms per image, {THREADS} thread)",
            ylabel="test accuracy, higher is better",
            title=DATASETS[dataset].title,
        )
        panel.grid(alpha=0.3)
        if DATASETS[dataset].task == "position":
            panel.set(yscale="log", ylabel="test distance (pixels, logarithmic), lower is better")
            panel.set_yticks([1, 2, 3, 5, 10, 15], labels=["1", "2", "3", "5", "10", "15"])
            panel.minorticks_off()
            panel.invert_yaxis()
    panels[-1].legend(
        loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8,
        title="filled: encoder\nhollow: frozen, PCA",
    )  # fmt: skip
    return figure
