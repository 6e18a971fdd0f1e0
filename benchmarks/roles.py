"""The data sets of the comparison: which part plays which role, and how much of it a run takes."""

from __future__ import annotations

import math
import os
from typing import NamedTuple

import numpy as np

STEPS = 150  # in a rollout of LunarLander

# What there is to find out about an image.
TASKS = {"lunarlander": "position", "stl10": "class", "svhn": "class", "fashion-mnist": "class"}

# The part of each data set that plays a role: a run of the simulator, or a published subset.
PARTS = {
    "lunarlander": {"unlabelled": 1, "labelled": 2, "test": 3},
    "stl10": {"unlabelled": "unlabeled", "labelled": "train", "test": "test"},
    "svhn": {"unlabelled": "extra", "labelled": "train", "test": "test"},
    "fashion-mnist": {"unlabelled": "train", "labelled": "train", "test": "test"},
}


class Budget(NamedTuple):
    """How much of a data set, and of training, a run takes.

    Attributes
    ----------
    n_unlabelled, n_labelled, n_test : int or None
        Images at most; None takes all there are. Of LunarLander these are the frames before those
        with the lander off screen are left out, rounded up to whole rollouts.
    stride : int
        Of LunarLander every `stride`-th frame of a rollout is kept.
    max_epochs : int
        Of everything that is trained by gradient descent, probes excepted.
    """

    n_unlabelled: int | None = None
    n_labelled: int | None = None
    n_test: int | None = None
    stride: int = 1
    max_epochs: int = 50


# "paper" is the paper's budget, "small" one that two CPU cores can afford.
BUDGETS = {
    "lunarlander": {
        "small": Budget(12_000, 9_000, 2_250, stride=10, max_epochs=5),
        "paper": Budget(105_000, 105_000, 105_000),
    },
    "stl10": {
        "small": Budget(12_000, 5_000, 8_000, max_epochs=5),
        "paper": Budget(),
    },
    "svhn": {
        "small": Budget(12_000, 8_000, 10_000, max_epochs=5),
        "paper": Budget(),
    },
    # Not in the paper: as much of it as there is.
    "fashion-mnist": {
        "small": Budget(12_000, 8_000, 10_000, max_epochs=5),
        "paper": Budget(52_000, 8_000, 10_000),
    },
}


def budget_name(dataset: str, budget: Budget) -> str:
    """Name a budget by its numbers.

    >>> budget_name("svhn", Budget()), budget_name("svhn", Budget(100, 100, 100))
    ('paper', 'custom')
    """
    names = (name for name, known in BUDGETS[dataset].items() if known == budget)
    return next(names, "custom")


def budget_with_stride(dataset: str, stride: int) -> str:
    """Name the budget that takes frames so far apart; the stride has no option of its own.

    >>> budget_with_stride("lunarlander", 10), budget_with_stride("lunarlander", 1)
    ('small', 'paper')
    """
    return "paper" if BUDGETS[dataset]["paper"].stride == stride else "small"


def describe_stride(stride: int) -> str:
    """Say which frames were taken, where not all are.

    >>> describe_stride(10), describe_stride(1)
    (', every 10th frame of a rollout', '')
    """
    return f", every {stride}th frame of a rollout" if stride > 1 else ""


class Roles(NamedTuple):
    """The images of a data set by role, and what is to be found out about them.

    Attributes
    ----------
    task : {"position", "class"}
    unlabelled : ndarray of shape (n, height, width, 3) or (n, height, width), uint8
        For the encoders.
    labelled, test : tuple of (images, targets)
        For the probes, and to test them.
    """

    task: str
    unlabelled: np.ndarray
    labelled: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def load_roles(
    dataset: str,
    budget: Budget,
    *,
    data_home: str | os.PathLike | None = None,
    n_jobs: int | None = None,
    verify: bool = True,
) -> Roles:
    """Load all that a comparison on a data set needs; the parameters are those of `load_role`."""
    unlabelled, labelled, test = (
        load_role(dataset, role, budget, data_home=data_home, n_jobs=n_jobs, verify=verify)
        for role in PARTS[dataset]
    )
    return Roles(TASKS[dataset], unlabelled[0], labelled, test)


def load_role(
    dataset: str,
    role: str,
    budget: Budget,
    *,
    data_home: str | os.PathLike | None = None,
    n_jobs: int | None = None,
    verify: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Load the images of a data set that play a role, and their targets.

    Parameters
    ----------
    dataset : {"lunarlander", "stl10", "svhn", "fashion-mnist"}
    role : {"unlabelled", "labelled", "test"}
    budget : Budget
    data_home : str, path-like or None, default=None
        Where the data are, or will be kept, as in `skfp.datasets`.
    n_jobs : int or None, default=None
        Processes that generate LunarLander.
    verify : bool, default=True
        Whether published files must be as published; False for files of your own in their format.

    Returns
    -------
    images : ndarray, uint8
    targets : ndarray or None
        Positions in the simulator's units, or classes; None where the images have none.
    """
    from skfp import datasets

    part, n_images = PARTS[dataset][role], getattr(budget, f"n_{role}")
    if dataset == "lunarlander":
        data = datasets.fetch_lunarlander(
            run=part,
            n_rollouts=math.ceil(n_images * budget.stride / STEPS),
            n_steps=STEPS,
            stride=budget.stride,
            data_home=data_home,
            n_jobs=n_jobs,
            verbose=1,
        )
        return data.images, data.positions

    fetch = {
        "stl10": datasets.fetch_stl10,
        "svhn": datasets.fetch_svhn,
        "fashion-mnist": datasets.fetch_fashion_mnist,
    }[dataset]
    data = fetch(subset=part, data_home=data_home, verify=verify)
    rows = slice(n_images)
    if part == "train" and dataset == "fashion-mnist":
        # Both roles share this part: the end is labelled, what comes before is not.
        begin_labelled = max(len(data.images) - budget.n_labelled, 0)
        rows = slice(begin_labelled, None)
        if role == "unlabelled":
            rows = slice(min(begin_labelled, budget.n_unlabelled))
    return data.images[rows], None if data.target is None else data.target[rows]
