"""The data sets, and how each is split: unlabelled images, labelled images, test images.

To add a data set, write its `fetch_NAME` in `skfp.datasets`, and a row of `DATASETS` here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

STEPS = 150  # in a rollout of LunarLander
IMAGE_SIZE = 64
PIXELS_PER_UNIT = IMAGE_SIZE / 2  # a LunarLander frame spans 2 units of the simulator


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
    labelled. The paper's budget is "paper"; "small" is one that two CPU cores can afford.
    """

    title: str
    task: str
    subsets: tuple[Any, Any, Any]
    small: Budget
    paper: Budget = Budget()


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
}
BUDGETS = ("small", "paper")


def get_budget(dataset: str, name: str) -> Budget:
    """Return a budget of a data set by name."""
    return getattr(DATASETS[dataset], name)


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
    unlabelled, labelled, test = (
        load_split(dataset, split, budget, **kwargs) for split in ("unlabelled", "labelled", "test")
    )
    return Splits(DATASETS[dataset].task, unlabelled[0], labelled, test)


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
    from skfp import datasets

    subsets = dict(zip(("unlabelled", "labelled", "test"), DATASETS[dataset].subsets, strict=True))
    n_images = getattr(budget, f"n_{split}")
    if dataset == "lunarlander":
        n_rollouts = math.ceil(n_images * budget.stride / STEPS)
        frames = fetch_frames(subsets[split], n_rollouts, budget.stride, data_home, n_jobs)
        return frames.images, frames.positions

    fetch = getattr(datasets, f"fetch_{dataset.replace('-', '_')}")
    data = fetch(subset=subsets[split], data_home=data_home, verify=verify)
    rows = slice(n_images)
    if split != "test" and subsets["unlabelled"] == subsets["labelled"]:
        first_labelled = max(len(data.images) - budget.n_labelled, 0)
        rows = slice(first_labelled, None)
        if split == "unlabelled":
            rows = slice(min(first_labelled, budget.n_unlabelled))
    return data.images[rows], None if data.target is None else data.target[rows]


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
