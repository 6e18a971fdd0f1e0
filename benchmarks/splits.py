"""The data sets, and how each is split: unlabelled images, labelled images, test images.

To add a data set, write its `fetch_NAME` in `skfp.datasets`, and a row of `DATASETS` here. Your own
images need no row: "folder:PATH" is a folder of class folders, and "npz:PATH" is a file of arrays
named as those of MedMNIST, train_images, train_labels, val_..., test_....
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

STEPS = 150  # in a rollout of LunarLander
IMAGE_SIZE = 64
PIXELS_PER_UNIT = IMAGE_SIZE / 2  # a LunarLander frame spans 2 units of the simulator
SPLITS = ("unlabelled", "labelled", "test")


class Budget(NamedTuple):
    """How many images of each split, and epochs of training.

    None takes all images there are. Of LunarLander, the numbers count frames before those with the
    lander off screen are left out, rounded up to whole rollouts, of which every `stride`-th frame
    is taken. `max_epochs` holds for all that is trained by gradient descent, except probes.
    """

    n_unlabelled: int | None = None
    n_labelled: int | None = None
    n_test: int | None = None
    stride: int = 1
    max_epochs: int = 50


class DataSet(NamedTuple):
    """A data set of the comparison.

    `task` is what probes predict, "position" or "class". `subsets` are the published subsets, or
    runs of the simulator, for the three splits; where the first two are the same, the end of it is
    labelled, or, with `shares`, splits of one subset divide it at random in this proportion. The
    paper's budget is "paper"; "small" is one that two CPU cores can afford.
    """

    title: str
    task: str
    subsets: tuple[Any, Any, Any]
    small: Budget
    paper: Budget = Budget()
    shares: tuple[float, float, float] | None = None


# For images of one's own, of which there may be few: the numbers are upper limits.
SHARES = (0.6, 0.2, 0.2)
OWN = Budget(12_000, 4_000, 4_000, max_epochs=20)

DATASETS = {
    "lunarlander": DataSet(
        "LunarLander",
        "position",
        (1, 2, 3),
        small=Budget(12_000, 9_000, 2_250, stride=10, max_epochs=5),
        paper=Budget(105_000, 105_000, 105_000),
    ),
    "stl10": DataSet(
        "STL-10",
        "class",
        ("unlabeled", "train", "test"),
        small=Budget(12_000, 5_000, 8_000, max_epochs=5),
    ),
    "svhn": DataSet(
        "SVHN",
        "class",
        ("extra", "train", "test"),
        small=Budget(12_000, 8_000, 10_000, max_epochs=5),
    ),
    # Not in the paper: as much of it as there is.
    "fashion-mnist": DataSet(
        "Fashion-MNIST",
        "class",
        ("train", "train", "test"),
        small=Budget(12_000, 8_000, 10_000, max_epochs=5),
        paper=Budget(52_000, 8_000, 10_000),
    ),
    "cifar10": DataSet(
        "CIFAR-10",
        "class",
        ("train", "train", "test"),
        small=Budget(12_000, 8_000, 10_000, max_epochs=5),
        paper=Budget(42_000, 8_000, 10_000),
    ),
    "digits": DataSet("Digits", "class", ("all", "all", "all"), small=OWN, shares=SHARES),
}
BUDGETS = ("small", "paper")


def get_dataset(name: str) -> DataSet:
    """Return a row of `DATASETS`, or one for "folder:PATH" or "npz:PATH".

    >>> get_dataset("folder:photos/flowers").title
    'flowers'
    """
    if name in DATASETS:
        return DATASETS[name]
    kind, _, path = name.partition(":")
    if path and kind == "folder":
        return DataSet(Path(path).name, "class", ("all", "all", "all"), small=OWN, shares=SHARES)
    if path and kind == "npz":
        subsets = ("train", "train", "test")
        return DataSet(Path(path).stem, "class", subsets, small=OWN, shares=SHARES)
    raise ValueError(
        f"There is no data set {name!r}. Expected one of {', '.join(DATASETS)}, or folder:PATH for "
        "a folder of class folders, or npz:PATH for a file of arrays named as those of MedMNIST."
    )


def get_budget(dataset: str, name: str) -> Budget:
    """Return a budget of a data set by name."""
    return getattr(get_dataset(dataset), name)


DATASET_HELP = f"which data set: {', '.join(DATASETS)}, folder:PATH or npz:PATH"


def dataset_name(text: str) -> str:
    """Check the name of a data set on the command line."""
    try:
        get_dataset(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where data sets are, and whether they must be the published files."""
    parser.add_argument("--data-home", type=Path, help="where data sets are kept between runs")
    parser.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="take files that differ from the published ones, or some of them; records say so",
    )


def verify_settings(verify: bool) -> dict:
    """Return what belongs into the settings of records from files that were not verified."""
    return {} if verify else {"verified": False}


def budget_settings(dataset: str, budget: Budget) -> dict:
    """Return a budget for a record, with its name, which is "custom" for others than the two."""
    names = (name for name in BUDGETS if get_budget(dataset, name) == budget)
    return {"budget": next(names, "custom"), **budget._asdict()}


def show_measure(record: Mapping) -> str:
    """Say what a record's probe reached on the test images.

    >>> show_measure({"test_measure": 0.05, "probe": {"task": "position"}})
    'distance 1.60 px'
    """
    if record["probe"]["task"] == "position":
        return f"distance {PIXELS_PER_UNIT * record['test_measure']:.2f} px"
    return f"accuracy {record['test_measure']:.3f}"


class Splits(NamedTuple):
    """Images of a data set, uint8 of shape (n, height, width[, 3]), and targets for probes."""

    task: str
    unlabelled: np.ndarray
    labelled: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def load_splits(dataset: str, budget: Budget, **kwargs: Any) -> Splits:
    """Load all splits of a data set; further parameters are those of `load_split`."""
    unlabelled, labelled, test = (load_split(dataset, split, budget, **kwargs) for split in SPLITS)
    return Splits(get_dataset(dataset).task, unlabelled[0], labelled, test)


def load_split(
    dataset: str,
    split: str,
    budget: Budget,
    *,
    data_home: Any = None,
    n_jobs: int | None = None,
    verify: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Load images of a split and their targets, None where there are none.

    `verify=False` takes published files that differ from the published ones, such as those of a
    test.
    """
    row = get_dataset(dataset)
    subsets = dict(zip(SPLITS, row.subsets, strict=True))
    n_images = getattr(budget, f"n_{split}")
    if dataset == "lunarlander":
        n_rollouts = math.ceil(n_images * budget.stride / STEPS)
        frames = fetch_frames(subsets[split], n_rollouts, budget.stride, data_home, n_jobs)
        return frames.images, frames.positions

    images, target = _fetch(dataset, subsets[split], data_home, n_jobs, verify)
    rows: Any = slice(n_images)
    if row.shares:
        shares = {
            name: share
            for name, share in zip(SPLITS, row.shares, strict=True)
            if subsets[name] == subsets[split]
        }
        rows = divide(target, list(shares.values()))[list(shares).index(split)][:n_images]
    elif split != "test" and subsets["unlabelled"] == subsets["labelled"]:
        first_labelled = max(len(images) - budget.n_labelled, 0)
        rows = slice(first_labelled, None)
        if split == "unlabelled":
            rows = slice(min(first_labelled, budget.n_unlabelled))
    return images[rows], None if target is None else target[rows]


def divide(target: np.ndarray, shares: Sequence[float], seed: int = 0) -> list[np.ndarray]:
    """Divide rows at random in the given proportion, every class alike; each part is shuffled.

    Rows of class -1, which have no label, all belong to the first part.

    >>> [len(rows) for rows in divide(np.arange(20) % 2, (0.6, 0.2, 0.2))]
    [12, 4, 4]
    """
    random = np.random.default_rng(seed)
    ends = np.cumsum(shares)[:-1] / np.sum(shares)
    parts: list[list[np.ndarray]] = [[] for _ in shares]
    for label in np.unique(target):
        rows = random.permutation(np.flatnonzero(target == label))
        cuts = np.round(ends * len(rows)).astype(int) if label >= 0 else [len(rows)] * len(ends)
        for part, piece in zip(parts, np.split(rows, cuts), strict=True):
            part.append(piece)
    return [random.permutation(np.concatenate(part)) for part in parts]


def _fetch(
    dataset: str, subset: str, data_home: Any, n_jobs: int | None, verify: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Load images of a subset and their classes."""
    from sklearn.datasets import load_digits

    from skfp import datasets

    kind, _, path = dataset.partition(":")
    if kind == "npz":
        names = {"train": ("train", "val"), "test": ("test",)}[subset]
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = (
                np.concatenate([arrays[f"{name}_{what}"] for name in names])
                for what in ("images", "labels")
            )
        return images, labels.reshape(len(images)).astype(np.int64)
    if kind == "folder":
        data = datasets.fetch_image_folder(
            path, size=IMAGE_SIZE, data_home=data_home, n_jobs=n_jobs
        )
        if data.target is None:
            raise ValueError(
                f"The images in {path!r} have no classes. Expected a folder of images for each "
                "class."
            )
    elif kind == "digits":
        digits = load_digits()
        return np.uint8(np.round(digits.images * (255 / 16))), digits.target
    else:
        fetch = getattr(datasets, f"fetch_{dataset.replace('-', '_')}")
        data = fetch(subset=subset, data_home=data_home, verify=verify)
    return data.images, data.target


def fetch_frames(
    run: int, n_rollouts: int, stride: int, data_home: Any = None, n_jobs: int | None = None
) -> Any:
    """Load or generate LunarLander frames: images, positions and rollouts."""
    from skfp.datasets import fetch_lunarlander

    return fetch_lunarlander(
        run=run,
        n_rollouts=n_rollouts,
        n_steps=STEPS,
        stride=stride,
        data_home=data_home,
        n_jobs=n_jobs,
        verbose=1,
    )
