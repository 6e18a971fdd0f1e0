r"""Targets, batch size, schedule and augmentation against training seconds.

Most variants change one thing in a reference setting; the best changes together are the package's
defaults. All train on the same LunarLander frames with several seeds and go through the same
probes. Takes an hour on two cores with the default sizes. Records go into the file --out, and a
picture beside it. The same command goes on after a kill.

    python -m benchmarks study --variants default frozen --seeds 0 --out out/study.jsonl

The table "defaults" of the user guide has more images:

    python -m benchmarks study --variants default frozen reference --rollouts 4800 --max-epochs 6 \
        --labelled-rollouts 700 --test-rollouts 700 --labelled-stride 5 --out out/defaults.jsonl
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from skorch.callbacks import Callback

from benchmarks.grid import run_grid
from benchmarks.internals import FeatureExtractor, PCAProjection
from benchmarks.methods import METHODS, evaluate
from benchmarks.records import (
    RESULTS,
    common_settings,
    describe_machine,
    markdown_table,
    read_records,
    save_figure,
)
from benchmarks.splits import PIXELS_PER_UNIT, fetch_frames, show_measure
from skfp import FeaturePredictionEncoder


class Variant(NamedTuple):
    """A row of the study: the parameters that differ from the package's defaults."""

    title: str
    parameters: Mapping[str, Any] = {}
    augmented: bool = False
    equal_seconds: bool = False  # train with the paper's settings for the default's seconds
    frozen: bool = False  # train nothing
    power: float = 0.0  # components are scaled by this negative power of their deviation


# Single changes are made to these settings, and compared with them.
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
    "scaled-half": Variant("components scaled by std^-0.5", REFERENCE, power=0.5),
    "scaled-one": Variant("components scaled by std^-1", REFERENCE, power=1.0),
    "batch-512": _change("batches of 512", batch_size=512),
    "constant-lr": _change("constant learning rate 1e-3", lr_schedule=None, lr=1e-3),
    "lr-1e-3": _change("one-cycle to 1e-3", lr=1e-3),
    "features": _change("encoder of features (F-F-FP)", encoder="features"),
    "plain-features": _change("encoder of features, not normalised", encoder="paper-features"),
    "augmented": Variant("flips and shifts", REFERENCE, augmented=True),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--out", type=Path, default=RESULTS / "study.jsonl", help="file of the records")
    what = f"which rows: {', '.join(VARIANTS)}"
    add("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="NAME", help=what)
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="each trains once")
    add("--rollouts", type=int, default=1200, help="unlabelled rollouts")
    add("--labelled-rollouts", type=int, default=600, help="for the probes")
    add("--test-rollouts", type=int, default=150, help="to test the probes")
    add("--stride", type=int, default=10, help="keep every k-th frame of unlabelled rollouts")
    add("--labelled-stride", type=int, default=10, help="of labelled and test rollouts")
    add("--z", type=int, default=64, help="size of the embedding")
    add("--max-epochs", type=int, default=3, help="epochs of training")
    add("--data-home", type=Path, help="where frames are kept between runs")
    add("--n-jobs", type=int, default=-1, help="processes for frames and probes")


def main(args: argparse.Namespace) -> int:
    """Compute what is missing, print the table and draw the picture."""
    names = ("rollouts", "stride", "labelled_rollouts", "labelled_stride", "test_rollouts")
    settings = {name: getattr(args, name) for name in (*names, "z", "max_epochs")}
    runs = [
        {"variant": name, "seed": seed, "settings": settings}
        for seed, name in product(args.seeds, args.variants)
    ]
    status = run_grid(
        runs,
        partial(compute, results=args.out, n_jobs=args.n_jobs),
        args.out,
        load=lambda _: load_frames(settings, args),
        describe=show_measure,
    )
    if args.out.exists():
        records = read_records(args.out)
        picture = save_figure(args.out.with_suffix(".png"), draw(records))
        print(f"\n{table(records)}\n\nThe picture is {picture}.")
    return status


def load_frames(settings: Mapping, args: argparse.Namespace) -> tuple:
    """Load unlabelled, labelled and test frames."""
    strides = (settings["stride"], settings["labelled_stride"], settings["labelled_stride"])
    numbers = ("rollouts", "labelled_rollouts", "test_rollouts")
    return tuple(
        fetch_frames(run, settings[n_rollouts], stride, args.data_home, args.n_jobs)
        for run, (n_rollouts, stride) in enumerate(zip(numbers, strides, strict=True), start=1)
    )


def compute(
    run: Mapping, frames: tuple, checkpoint_dir: None, *, results: Path, n_jobs: int
) -> dict:
    """Train and probe a variant."""
    variant, settings, seed = VARIANTS[run["variant"]], run["settings"], run["seed"]
    unlabelled, labelled, test = frames
    images = unlabelled.images
    parameters = {"z": settings["z"], "random_state": seed, "max_epochs": settings["max_epochs"]}
    make: Any = FeaturePredictionEncoder
    if variant.equal_seconds:
        make = FeaturePredictionEncoder.with_paper_settings
        stop = StopAfter(_seconds_of_default(run, results))
        parameters |= {"max_epochs": 1000, "callbacks": [stop]}
    if variant.augmented:
        # One epoch over as many copies as others have epochs, each with its own features.
        images = augment(images, settings["max_epochs"], seed)
        parameters["max_epochs"] = 1
    if variant.frozen:
        transformer = METHODS["frozen"].make(z=settings["z"], random_state=seed)
    else:
        transformer = make(**{**parameters, **variant.parameters})
    with scaled_components(variant.power):
        measured, _ = evaluate(
            transformer,
            images,
            (labelled.images, labelled.positions),
            (test.images, test.positions),
            task="position",
            random_state=seed,
            n_jobs=n_jobs,
        )
    return {"machine": describe_machine(), **measured}


def _seconds_of_default(run: Mapping, results: Path) -> float:
    default = {**run, "variant": "default"}
    for record in read_records(results):
        if record.items() >= default.items():
            return record["training"]["seconds"]
    raise ValueError(f"Run the variant 'default' with seed {run['seed']} first.")


@contextmanager
def scaled_components(power: float) -> Iterator[None]:
    """Scale the components that are predicted by a negative power of their standard deviation.

    Not an option of the package: the study shows that it does not help.
    """
    fit_projection = FeatureExtractor.fit_projection

    def fit_scaled(self: FeatureExtractor, n_components: int | str) -> PCAProjection:
        projection = fit_projection(self, n_components)
        std = torch.from_numpy(self.projected(projection).array[:, :-1].std(axis=0))
        scale = std**-power
        # The loss keeps its size, so that the learning rate means the same.
        scale *= std.norm() / (scale * std).norm()
        projection.basis *= scale[:, None]
        return projection

    with patch.object(FeatureExtractor, "fit_projection", fit_scaled if power else fit_projection):
        yield


def augment(images: np.ndarray, copies: int, seed: int) -> np.ndarray:
    """Return flipped and shifted copies of images: so many copies of all, one after the other.

    Half of them are mirrored; all are shifted by up to 4 pixels, with the edge repeated.

    Examples
    --------
    >>> augment(np.zeros((3, 64, 64, 3), dtype=np.uint8), copies=2, seed=0).shape
    (6, 64, 64, 3)
    """
    random = np.random.default_rng(seed)
    _, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge")
    copied = np.empty((copies * len(images), *images.shape[1:]), dtype=images.dtype)
    for row in range(len(copied)):
        top, left = random.integers(0, 9, 2)
        copy = padded[row % len(images), top : top + height, left : left + width]
        copied[row] = copy[:, ::-1] if random.random() < 0.5 else copy
    return copied


class StopAfter(Callback):
    """Stop training at the end of the epoch that is under way after so many seconds of fit."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start = time.perf_counter()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Stop as a user would, which keeps the best epoch."""
        if time.perf_counter() - self.start >= self.seconds:
            raise KeyboardInterrupt


def summary(records: list[dict]) -> list[dict]:
    """Return distances in pixels over the seeds of each variant, and its least time."""
    common_settings(records)
    rows = []
    for name, variant in VARIANTS.items():
        of_variant = [record for record in records if record["variant"] == name]
        if of_variant:
            # The least says most: other work on a machine only ever adds to it.
            fastest = min(of_variant, key=lambda record: record["training"]["seconds"])
            rows.append(
                {
                    "name": name,
                    "title": variant.title,
                    "distances": [PIXELS_PER_UNIT * r["test_measure"] for r in of_variant],
                    "seconds": fastest["training"]["seconds"],
                    "cores": fastest["machine"]["cores"],
                }
            )
    return rows


def table(records: list[dict]) -> str:
    """Lay out the study as Markdown."""
    rows, mean = summary(records), statistics.mean
    default = [mean(row["distances"]) for row in rows if row["name"] == "default"]
    return markdown_table(
        {
            "variant": row["title"],
            "test distance (px)": (
                f"{mean(row['distances']):.2f} ± {statistics.pstdev(row['distances']):.2f}"
            ),
            "relative to default": f"{mean(row['distances']) / default[0]:.2f}" if default else "-",
            "training, least (s)": f"{row['seconds']:.0f}",
            "cores": str(row["cores"]),
            "seeds": str(len(row["distances"])),
        }
        for row in rows
    )


def block(results: Path, name: str = "study") -> str:
    """Write the block of the user guide."""
    records = read_records(results / f"{name}.jsonl")
    settings, machine = common_settings(records), records[0]["machine"]
    # Augmented variants count every copy of an image.
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
            statistics.mean(row["distances"]),
            yerr=statistics.pstdev(row["distances"]),
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
