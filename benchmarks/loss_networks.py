"""Loss networks compared: what an encoder learns from each, and what that costs.

Every network is cut at a layer, and its features of the images are probed twice: as they are,
through whitened PCA, and as predicted by a FeaturePredictionEncoder of the same size. Each cell
writes a record of its own, so that a killed study continues where it stopped. What the networks see
is computed once per data set and kept in a folder. Networks that must be shown come first, with
all seeds; the others follow with the first seed.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.demo import PIXELS_PER_UNIT
from benchmarks.records import (
    common_settings,
    describe_machine,
    fingerprint,
    markdown_table,
    read_records,
    write_atomically,
    write_record,
)
from benchmarks.roles import TASKS, Budget, Roles, load_roles
from skfp._features.extractor import PROJECTION_SAMPLE

DATASETS = {"lunarlander": "LunarLander", "fashion-mnist": "Fashion-MNIST"}
SIDE = 64
# Stated here, whatever the defaults become.
TRAINING = {
    "target_components": 512,
    "batch_size": 64,
    "lr": 3e-3,
    "lr_schedule": "one-cycle",
    "validation_fraction": 0.2,
}
# Earlier layers of VGG16 have too many places: pooled, all have 8 by 8 as the fourth has.
GRID = {"vgg16": 8}
# So that the numbers do not depend on how many cores are idle.
THREADS = 1
# Images that speed is measured on: a second or so each way.
N_TIMED = {"frozen": 128, "encoder": 2048}
REPEATS = 3


class Row(NamedTuple):
    """A loss network of the study.

    Attributes
    ----------
    title : str
        What the table and the plot call it.
    parts : tuple of (network, layer)
        Of torchvision; more than one are trained against at once.
    """

    title: str
    parts: tuple[tuple[str, str], ...]

    def make(self) -> list:
        """Describe the network, its weights fetched where the package has none."""
        from benchmarks.imagenet_weights import fetch_weights
        from skfp import LossNetwork

        return [
            LossNetwork(name, layer=layer)
            if (name, layer) in (("alexnet", "features.1"), ("alexnet", "features.4"))
            else LossNetwork(
                name, layer=layer, weights=str(fetch_weights(name)), pool=GRID.get(name, "flatten")
            )
            for name, layer in self.parts
        ]


NETWORKS = {
    "alexnet-relu2": Row("AlexNet relu2", (("alexnet", "features.4"),)),
    "vgg16-relu4_3": Row("VGG16 relu4_3", (("vgg16", "features.22"),)),
    "alexnet-relu1": Row("AlexNet relu1", (("alexnet", "features.1"),)),
    "alexnet-relu3": Row("AlexNet relu3", (("alexnet", "features.7"),)),
    "alexnet-relu4": Row("AlexNet relu4", (("alexnet", "features.9"),)),
    "alexnet-relu5": Row("AlexNet relu5", (("alexnet", "features.11"),)),
    "vgg16-relu2_2": Row("VGG16 relu2_2", (("vgg16", "features.8"),)),
    "vgg16-relu3_3": Row("VGG16 relu3_3", (("vgg16", "features.15"),)),
    "both": Row(
        "AlexNet relu2 and VGG16 relu4_3", (("alexnet", "features.4"), ("vgg16", "features.22"))
    ),
}
MAIN = ("alexnet-relu2", "vgg16-relu4_3")


class Cell(NamedTuple):
    """One number of the study.

    Attributes
    ----------
    dataset : str
    network : str
        A key of `NETWORKS`.
    epochs : int or None
        Of the encoder; None for frozen features through whitened PCA.
    seed : int
    """

    dataset: str
    network: str
    epochs: int | None
    seed: int

    def path(self, folder: Path, settings: Mapping) -> Path:
        """Where its record is written."""
        method = "frozen" if self.epochs is None else f"{self.epochs}-epochs"
        name = f"{self.dataset}-{self.network}-{method}-{self.seed}"
        return folder / f"{name}-{fingerprint(settings)}.json"


def make_cells(
    datasets: Sequence[str], networks: Sequence[str], epochs: Sequence[int], seeds: Sequence[int]
) -> list[Cell]:
    """List the cells: what must be shown, then smaller budgets, then the other networks.

    Examples
    --------
    >>> for cell in make_cells(["lunarlander"], ["alexnet-relu2", "both"], [2, 8], [0, 1]):
    ...     print(cell.network, cell.epochs, cell.seed)
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
    first = [
        Cell(dataset, name, budget, seed)
        for seed in seeds
        for dataset in datasets
        for name in main
        for budget in (None, largest)
    ]
    second = [
        Cell(dataset, name, budget, seeds[0])
        for dataset in datasets
        for name in main
        for budget in smaller
    ]
    others = [
        Cell(dataset, name, budget, seeds[0])
        for name in networks
        if name not in MAIN
        for dataset in datasets
        for budget in (None, largest, *smaller)
    ]
    return first + second + others


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--out", type=Path, default=Path("benchmarks/results/loss_networks"))
    add("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    add("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--epochs", type=int, nargs="+", default=[3, 12], help="budgets of training")
    add("--z", type=int, default=64)
    add("--images", type=int, nargs=3, default=[10_000, 8_000, 2_000])
    add("--memory", type=Path, default=Path("out/loss_networks"), help="where features are kept")
    add("--data-home", type=Path, help="where images are kept between runs")
    add("--n-jobs", type=int, default=1, help="processes for frames and probes")


def main(args: argparse.Namespace) -> None:
    """Run what is missing, then print the tables and draw the plot."""
    import torch

    torch.set_num_threads(THREADS)
    unlabelled, labelled, test = args.images
    settings = {
        "z": args.z,
        "unlabelled": unlabelled,
        "labelled": labelled,
        "test": test,
        **TRAINING,
    }
    roles: dict[str, Roles] = {}
    for cell in make_cells(args.datasets, args.networks, args.epochs, args.seeds):
        path = cell.path(args.out, settings)
        if path.exists():
            continue
        if cell.dataset not in roles:
            roles[cell.dataset] = _load(cell.dataset, args)
        record = _run(cell, roles[cell.dataset], args)
        write_record(path, {**cell._asdict(), "settings": settings, **record})
        print(f"{path.stem}: {_quality(record | cell._asdict()):.4g}", flush=True)
    records = read_records(args.out)
    for dataset in DATASETS:
        if summary(records, dataset):
            print(f"\n{DATASETS[dataset]}\n{table(records, dataset)}")
    picture = write_atomically(
        args.out / "loss_networks.png", lambda path: draw(records).savefig(path)
    )
    print(f"\nThe picture is {picture}.")


def _load(dataset: str, args: argparse.Namespace) -> Roles:
    unlabelled, labelled, test = args.images
    budget = Budget(unlabelled, labelled, test, stride=10)
    roles = load_roles(dataset, budget, data_home=args.data_home, n_jobs=args.n_jobs)
    return Roles(
        roles.task,
        _resized(roles.unlabelled),
        (_resized(roles.labelled[0]), roles.labelled[1]),
        (_resized(roles.test[0]), roles.test[1]),
    )


def _resized(images: np.ndarray) -> np.ndarray:
    """Resize images instead of tiling them: deep layers need things to be large."""
    import torch
    from torchvision.transforms.functional import resize

    if images.shape[1:3] == (SIDE, SIDE):
        return images
    return resize(torch.from_numpy(images), [SIDE, SIDE], antialias=True).numpy()


def _run(cell: Cell, roles: Roles, args: argparse.Namespace) -> dict:
    """Probe frozen features, or train an encoder and probe it."""
    from benchmarks.methods import probe, train
    from skfp import FeaturePredictionEncoder

    frozen = Frozen(NETWORKS[cell.network].make(), args.z, args.memory)
    frozen.fit(roles.unlabelled)  # before training, whose time is to count no features
    transformer: Any = frozen
    training: dict = {}
    if cell.epochs is not None:
        transformer = FeaturePredictionEncoder(
            args.z,
            loss_network=NETWORKS[cell.network].make(),
            max_epochs=cell.epochs,
            patience=cell.epochs,
            memory=args.memory,
            random_state=cell.seed,
            **TRAINING,
        )
        training = train(transformer, roles.unlabelled)
    measured, _ = probe(
        transformer,
        roles.labelled,
        roles.test,
        task=roles.task,
        random_state=cell.seed,
        n_jobs=args.n_jobs,
    )
    del measured["encoding"]  # may come out of the cache
    return {
        "machine": describe_machine(),
        "training": training,
        "embedding": _images_per_second(transformer, frozen, roles.test[0]),
        **measured,
    }


class Frozen:
    """Features of a loss network through whitened PCA, kept in the cache that fits share.

    Parameters
    ----------
    loss_network : list of LossNetwork
    z : int
        Number of components.
    memory : Path
    """

    def __init__(self, loss_network: list, z: int, memory: Path) -> None:
        from skfp._loss_network import load_loss_network

        self.network = load_loss_network(loss_network)
        self.z = z
        self.memory = memory

    def fit(self, images: np.ndarray, y: Any = None) -> Frozen:
        """Find the components, and the coefficients of all images."""
        view = self._look(images)
        self.components = view.components(TRAINING["target_components"])
        self.std = self._coefficients(view).std(axis=0)
        return self

    def transform(self, images: np.ndarray) -> np.ndarray:
        """Return the leading components, scaled to unit variance."""
        return self._coefficients(self._look(images)) / self.std

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the features themselves, always computed anew."""
        return self._look(images, keep=False).features().array

    def _coefficients(self, view: Any) -> np.ndarray:
        return np.array(view.coefficients(self.components).array[:, : self.z])

    def _look(self, images: np.ndarray, keep: bool = True) -> Any:
        import torch

        from skfp._data.image_set import check_images
        from skfp._data.preprocess import Preprocess
        from skfp._features.extractor import look

        stored = check_images(images)
        return look(
            stored,
            Preprocess(stored.format.size),
            self.network,
            torch.device("cpu"),
            self.memory if keep else None,
        )


def _images_per_second(transformer: Any, frozen: Frozen, images: np.ndarray) -> dict[str, float]:
    """Time both ways to embed in turns, with the same threads."""
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
    scale = PIXELS_PER_UNIT if TASKS[record["dataset"]] == "position" else 1
    return scale * record["test_measure"]


def summary(records: Sequence[Mapping], dataset: str) -> list[dict]:
    """Summarise each network on a data set over its seeds.

    Returns
    -------
    rows : list of dict
        In the order of `NETWORKS`, of those that have both frozen features and an encoder.
        "frozen" and "encoder" are lists of qualities by seed, "encoder" at the largest budget of
        that network; "gain" is the difference by which the encoder is better, seed by seed;
        "budgets" holds the encoder's qualities by budget.
    """
    common_settings(records)
    rows = []
    for name in NETWORKS:
        here = [r for r in records if (r["dataset"], r["network"]) == (dataset, name)]
        largest = max((r["epochs"] or 0 for r in here), default=0)
        frozen = {r["seed"]: _quality(r) for r in here if r["epochs"] is None}
        encoder = {r["seed"]: _quality(r) for r in here if r["epochs"] == largest}
        seeds = sorted(frozen.keys() & encoder.keys())
        if not seeds:
            continue
        sign = -1 if TASKS[dataset] == "position" else 1
        trained = [r for r in here if r["epochs"] == largest]
        rows.append(
            {
                "name": name,
                "title": NETWORKS[name].title,
                "seeds": len(seeds),
                "frozen": [frozen[seed] for seed in seeds],
                "encoder": [encoder[seed] for seed in seeds],
                "gain": [sign * (encoder[seed] - frozen[seed]) for seed in seeds],
                "budgets": {
                    budget: [_quality(r) for r in here if r["epochs"] == budget]
                    for budget in {r["epochs"] for r in here} - {None}
                },
                # Not timed in fit, which may find them in the cache.
                "features_seconds": statistics.median(
                    (r["training"]["n_images"] + PROJECTION_SAMPLE) / r["embedding"]["frozen"]
                    for r in trained
                ),
                "training_seconds": statistics.median(r["training"]["seconds"] for r in trained),
                "frozen_speed": statistics.median(r["embedding"]["frozen"] for r in trained),
                "encoder_speed": statistics.median(r["embedding"]["encoder"] for r in trained),
                "ratio": statistics.median(
                    r["embedding"]["encoder"] / r["embedding"]["frozen"] for r in trained
                ),
            }
        )
    return rows


def table(records: Sequence[Mapping], dataset: str) -> str:
    """Lay out a data set's networks as Markdown."""
    digits = 2 if TASKS[dataset] == "position" else 3
    rows = summary(records, dataset)
    budgets = sorted(set().union(*(row["budgets"] for row in rows)))

    def spread(values: Sequence[float], sign: str = "") -> str:
        mean = f"{statistics.mean(values):{sign}.{digits}f}"
        return mean if len(values) == 1 else f"{mean} ± {statistics.pstdev(values):.{digits}f}"

    return markdown_table(
        {
            "loss network": row["title"],
            "frozen, PCA": spread(row["frozen"]),
            **{
                f"encoder, {budget} epochs": (
                    spread(row["budgets"][budget]) if budget in row["budgets"] else "-"
                )
                for budget in budgets
            },
            "encoder better by": spread(row["gain"], "+"),
            "features, s": f"{row['features_seconds']:.0f}",
            "training, s": f"{row['training_seconds']:.0f}",
            "frozen, images/s": f"{row['frozen_speed']:,.0f}",
            "encoder, images/s": f"{row['encoder_speed']:,.0f}",
            "ratio": f"{row['ratio']:.1f}",
            "seeds": str(row["seeds"]),
        }
        for row in rows
    )


def readme_block(root: Path, folder: Path) -> str:
    """Make the README's block from the committed records."""
    records = read_records(root / folder)
    settings, machine = common_settings(records), records[0]["machine"]
    tables = [
        f"{DATASETS[dataset]}, {heading}:\n\n{table(records, dataset)}"
        for dataset, heading in (
            ("lunarlander", "test distance in pixels (lower is better)"),
            ("fashion-mnist", "accuracy (higher is better)"),
        )
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
    picture = (
        "![Quality against embedding time, frozen networks and the encoders trained on them]"
        f"({(folder / 'loss_networks.png').as_posix()})"
    )
    return "\n\n".join([*tables, text, picture])


def draw(records: Sequence[Mapping]) -> Any:
    """Draw quality against embedding time: a line from each network to its encoder."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), dpi=130, layout="constrained")
    drawn = [dataset for dataset in DATASETS if summary(records, dataset)]
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    markers = dict(zip(NETWORKS, "osv^<>XPD", strict=True))
    # Those of Okabe and Ito, and two more.
    hues = ("#D55E00", "#0072B2", "#E69F00", "#009E73", "#56B4E9", "#CC79A7", "k", "0.5", "#8B4513")
    colors = dict(zip(NETWORKS, hues, strict=True))
    for panel, dataset in zip(panels, drawn, strict=True):
        for row in summary(records, dataset):
            times = [1000 / row["frozen_speed"], 1000 / row["encoder_speed"]]
            means = [statistics.mean(row["frozen"]), statistics.mean(row["encoder"])]
            spreads = [statistics.pstdev(row["frozen"]), statistics.pstdev(row["encoder"])]
            style = {"color": colors[row["name"]], "marker": markers[row["name"]]}
            panel.plot(times, means, color=style["color"], linewidth=0.8, alpha=0.5)
            for i, fill in enumerate(("none", style["color"])):
                panel.errorbar(
                    times[i], means[i], spreads[i], **style, markerfacecolor=fill, capsize=3,
                    markersize=8, linestyle="none", label=row["title"] if i else None,
                )  # fmt: skip
        panel.set_xscale("log")
        panel.set(
            xlabel=f"embedding time (ms per image, {THREADS} thread)", title=DATASETS[dataset]
        )
        panel.grid(alpha=0.3)
        if TASKS[dataset] == "position":
            panel.set_ylabel("test distance (pixels, logarithmic), lower is better")
            panel.set_yscale("log")
            panel.set_yticks([1, 2, 3, 5, 10, 15], labels=["1", "2", "3", "5", "10", "15"])
            panel.minorticks_off()
            panel.invert_yaxis()
        else:
            panel.set_ylabel("test accuracy, higher is better")
    panels[-1].legend(
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=8,
        title="filled: encoder\nhollow: frozen, PCA",
    )
    return figure
