"""What a second of feature prediction training buys: targets, batches, schedules, augmentation.

Most variants change one thing in a reference setting; the best of them together are the package's
defaults. All train on the same LunarLander frames with several seeds, and go through the same
probes. A killed study continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from skorch.callbacks import Callback

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


class Variant(NamedTuple):
    """What is measured: the parameters it does not leave at the package's defaults."""

    title: str
    parameters: Mapping[str, Any] = {}
    augmented: bool = False
    # The paper's settings train until they have had the default's seconds.
    equal_seconds: bool = False
    # Learns nothing by gradient descent: the row that feature prediction has to beat.
    frozen: bool = False


# What single changes are made to, and held against.
REFERENCE = {"target_components": 512, "batch_size": 128, "lr": 3e-3, "lr_schedule": "one-cycle"}


def _change(title: str, **parameters: Any) -> Variant:
    return Variant(title, {**REFERENCE, **parameters})


VARIANTS = {
    "default": Variant("this package's defaults: the reference in batches of 64"),
    "paper": Variant("paper settings, for the same seconds", equal_seconds=True),
    "frozen": Variant("nothing trained: frozen features, whitened PCA", frozen=True),
    "reference": _change("the reference: 512 components, batches of 128"),
    "components-64": _change("64 components", target_components=64),
    "components-128": _change("128 components", target_components=128),
    "components-256": _change("256 components", target_components=256),
    "components-1024": _change("1,024 components", target_components=1024),
    "components-all": _change("all features", target_components=None),
    "scaled-half": _change("components scaled by std^-0.5", power=0.5),
    "scaled-one": _change("components scaled by std^-1", power=1.0),
    "batch-512": _change("batches of 512", batch_size=512),
    "constant-lr": _change("constant learning rate 1e-3", lr_schedule=None, lr=1e-3),
    "lr-1e-3": _change("one-cycle to 1e-3", lr=1e-3),
    "features": _change("encoder of features (F-F-FP)", encoder="features"),
    "plain-features": _change(
        "encoder of features, not normalised", encoder="features", normalize_features=False
    ),
    "augmented": Variant("flips and shifts", REFERENCE, augmented=True),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--out", type=Path, default=Path("benchmarks/results/study"), help="folder of the records")
    add("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--rollouts", type=int, default=1200, help="unlabelled rollouts")
    add("--labelled-rollouts", type=int, default=600)
    add("--test-rollouts", type=int, default=150)
    add("--stride", type=int, default=10)
    add("--labelled-stride", type=int, default=10, help="of labelled and test rollouts")
    add("--z", type=int, default=64)
    add("--max-epochs", type=int, default=3)
    add("--data-home", type=Path, help="where frames are kept between runs")
    add("--n-jobs", type=int, default=-1, help="processes for frames and probes")


def main(args: argparse.Namespace) -> None:
    """Run what is missing, then print the table and draw the plot."""
    names = (
        "rollouts",
        "stride",
        "labelled_rollouts",
        "labelled_stride",
        "test_rollouts",
        "z",
        "max_epochs",
    )
    settings = {name: getattr(args, name) for name in names}
    frames = None
    for seed in args.seeds:
        for name in args.variants:
            path = _path(args.out, name, seed, settings)
            if path.exists():
                continue
            frames = frames or _frames(args)
            record = _run(name, seed, settings, frames, args)
            write_record(path, {"variant": name, "seed": seed, "settings": settings, **record})
            print(
                f"{VARIANTS[name].title}, seed {seed}: {_pixels(record):.2f} px after "
                f"{record['training']['seconds']:.0f} s",
                flush=True,
            )
    records = read_records(args.out)
    print(f"\n{table(records)}")
    picture = write_atomically(args.out / "study.png", lambda path: draw(records).savefig(path))
    print(f"\nThe picture is {picture}.")


def _path(folder: Path, name: str, seed: int, settings: Mapping) -> Path:
    return folder / f"{name}-{seed}-{fingerprint(settings)}.json"


def _frames(args: argparse.Namespace) -> tuple:
    from skfp.datasets import fetch_lunarlander

    collections = {
        1: (args.rollouts, args.stride),
        2: (args.labelled_rollouts, args.labelled_stride),
        3: (args.test_rollouts, args.labelled_stride),
    }
    return tuple(
        fetch_lunarlander(
            run=run,
            n_rollouts=n_rollouts,
            stride=stride,
            data_home=args.data_home,
            n_jobs=args.n_jobs,
            verbose=1,
        )
        for run, (n_rollouts, stride) in collections.items()
    )


def _run(name: str, seed: int, settings: Mapping, frames: tuple, args: argparse.Namespace) -> dict:
    from benchmarks.methods import METHODS, evaluate
    from skfp import FeaturePredictionEncoder

    variant = VARIANTS[name]
    unlabelled, labelled, test = frames
    images = unlabelled.images
    parameters = {"z": args.z, "random_state": seed, "max_epochs": args.max_epochs}
    make: Callable = FeaturePredictionEncoder
    if "power" in variant.parameters:
        make = _scaled_encoder()
    if variant.equal_seconds:
        default = _path(args.out, "default", seed, settings)
        if not default.exists():
            raise SystemExit(f"Run the variant 'default' with seed {seed} first.")
        seconds = json.loads(default.read_text("utf-8"))["training"]["seconds"]
        make = FeaturePredictionEncoder.with_paper_settings
        parameters |= {"max_epochs": 1000, "callbacks": [StopAfter(seconds)]}
    if variant.augmented:
        # One epoch over as many views as the others see epochs, each with its own features.
        images = augment(images, args.max_epochs, seed)
        parameters["max_epochs"] = 1
    transformer = make(**{**parameters, **variant.parameters})
    if variant.frozen:
        transformer = METHODS["frozen"].make(z=args.z, random_state=seed)
    measured, _ = evaluate(
        transformer,
        images,
        (labelled.images, labelled.positions),
        (test.images, test.positions),
        task="position",
        random_state=seed,
        n_jobs=args.n_jobs,
    )
    return {"machine": describe_machine(), **measured}


def _scaled_encoder() -> type:
    from skfp import FeaturePredictionEncoder
    from skfp._features.extractor import PCAProjection

    class ScaledEncoder(FeaturePredictionEncoder):
        """Predicts components scaled by a power of their standard deviation.

        Not an option of the package: the study shows that it does not help.
        """

        def __init__(self, z=128, *, power=0.0, **parameters):
            super().__init__(z, **parameters)
            self.power = power

        def _find_target(self, view):
            components = super()._find_target(view)
            std = torch.from_numpy(view.coefficients(components).array[:, :-1].std(axis=0))
            scale = std**-self.power
            # The loss keeps its size, so that the learning rate means the same.
            scale *= std.norm() / (scale * std).norm()
            return PCAProjection(
                components.mean,
                components.basis * scale[:, None],
                components.explained_variance_ratio,
            )

    return ScaledEncoder


def augment(images: np.ndarray, views: int, seed: int) -> np.ndarray:
    """Return flipped and shifted views of images, one after the other.

    The loss network looks at the views themselves, so that image and features stay a pair.

    Parameters
    ----------
    images : ndarray of shape (n, height, width, channels)
    views : int
        How many of each image.
    seed : int

    Returns
    -------
    views : ndarray of shape (n * views, height, width, channels)
        Half of them mirrored, shifted by up to 4 pixels with the edge repeated.

    Examples
    --------
    >>> augment(np.zeros((3, 64, 64, 3), dtype=np.uint8), views=2, seed=0).shape
    (6, 64, 64, 3)
    """
    random = np.random.default_rng(seed)
    _, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge")
    seen = np.empty((views * len(images), *images.shape[1:]), dtype=images.dtype)
    for row in range(len(seen)):
        top, left = random.integers(0, 9, 2)
        view = padded[row % len(images), top : top + height, left : left + width]
        seen[row] = view[:, ::-1] if random.random() < 0.5 else view
    return seen


class StopAfter(Callback):
    """Stop training at the end of the epoch in which a time is up.

    Parameters
    ----------
    seconds : float
        Since the estimator was fitted, the computation of features included.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start = time.perf_counter()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Stop as a user would, which leaves the best epoch in place."""
        if time.perf_counter() - self.start >= self.seconds:
            raise KeyboardInterrupt


def _pixels(record: Mapping) -> float:
    return PIXELS_PER_UNIT * record["test_measure"]


def summary(records: list[dict]) -> list[dict]:
    """Mean and spread over the seeds of each variant, and its least time, as in `VARIANTS`."""
    common_settings(records)
    rows = []
    for name, variant in VARIANTS.items():
        of_variant = [record for record in records if record["variant"] == name]
        if not of_variant:
            continue
        distances = [_pixels(record) for record in of_variant]
        # The least says most: other work on a machine only ever adds to it.
        fastest = min(of_variant, key=lambda record: record["training"]["seconds"])
        rows.append(
            {
                "name": name,
                "title": variant.title,
                "seeds": len(of_variant),
                "mean": statistics.mean(distances),
                "std": statistics.pstdev(distances),
                "seconds": fastest["training"]["seconds"],
                "cores": fastest["machine"]["cores"],
            }
        )
    return rows


def table(records: list[dict]) -> str:
    """Lay out the study as Markdown."""
    rows = summary(records)
    default = next((row["mean"] for row in rows if row["name"] == "default"), None)
    return markdown_table(
        {
            "variant": row["title"],
            "test distance (px)": f"{row['mean']:.2f} ± {row['std']:.2f}",
            "relative to default": f"{row['mean'] / default:.2f}" if default else "-",
            "training, least (s)": f"{row['seconds']:.0f}",
            "cores": str(row["cores"]),
            "seeds": str(row["seeds"]),
        }
        for row in rows
    )


def readme_block(root: Path, folder: Path) -> str:
    """Make the README's block from the committed records."""
    records = read_records(root / folder)
    settings, machine = common_settings(records), records[0]["machine"]
    # Augmented variants count every view of an image.
    n_images = min(record["training"]["n_images"] for record in records)
    text = (
        f"z = {settings['z']}, {n_images:,} unlabelled frames of "
        f"{settings['rollouts']:,} rollouts, "
        f"{settings['max_epochs']} epochs; probes learned from {records[0]['probe']['n_images']:,} "
        f"frames of {settings['labelled_rollouts']} rollouts and were tested on "
        f"{records[0]['n_test_images']:,} of {settings['test_rollouts']}; mean and standard "
        f"deviation over seeds; {machine['cpu']}."
    )
    return f"{table(records)}\n\n{text}"


def draw(records: list[dict]) -> Any:
    """Draw test distance against training seconds, a point per variant."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), dpi=130, layout="constrained")
    axes = figure.subplots()
    markers = dict(zip(VARIANTS, "oDsv^<>PXph*d8H12", strict=True))
    for row in summary(records):
        axes.errorbar(
            row["seconds"],
            row["mean"],
            yerr=row["std"],
            fmt=markers[row["name"]],
            capsize=3,
            markersize=8,
            label=row["title"],
        )
    axes.set_xlabel("seconds of fit, targets included, the least over seeds")
    axes.set_ylabel("probe's test distance (pixels, logarithmic)")
    # From 2 to 20 pixels, with what matters at the lower end.
    axes.set_yscale("log")
    axes.set_yticks([2, 3, 4, 6, 10, 16], labels=["2", "3", "4", "6", "10", "16"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    figure.suptitle("LunarLander, z = 64: one change at a time, mean and spread over seeds")
    return figure
