"""Probes measure what an embedding holds.

As in the paper, seven MLPs are trained on the embedding of the labelled images. The one with the
lowest loss on a fixed fifth of these images is selected, and that one alone is tested on the test
images. A linear model and nearest neighbours are selected in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.base import is_classifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

HIDDEN_LAYERS = ((), (32,), (64,), (32, 32), (64, 32), (64, 64), (128, 128))
VALIDATION_FRACTION = 0.2


def _last_fifth(embedding, target):
    """Hold out the end, unshuffled: neighbouring frames of a rollout belong on the same side."""
    rows = np.arange(len(target))
    cut = len(rows) - max(1, round(VALIDATION_FRACTION * len(rows)))
    return [(rows[:cut], rows[cut:])]


def _stratified_fifth(embedding, target):
    """Hold out the same share of every class, so that the log loss sees all of them."""
    splitter = StratifiedShuffleSplit(1, test_size=VALIDATION_FRACTION, random_state=0)
    return list(splitter.split(embedding, target))


class Task(NamedTuple):
    """What a probe predicts: its model, the score that selects it, and the fixed split.

    `tol` is the least gain of the inner score that counts: any for the smooth R2 of positions,
    more than none for accuracies, which often stay equal.
    """

    model: type
    scoring: str
    split: Callable
    tol: float


# The paper trains all 500 epochs and keeps the best. With scikit-learn's tolerance, probes stop
# while they still learn: 3.2 px instead of 2.3 px for one and the same embedding.
TASKS = {
    "position": Task(MLPRegressor, "neg_mean_squared_error", _last_fifth, tol=0),
    "class": Task(MLPClassifier, "neg_log_loss", _stratified_fifth, tol=1e-6),
}

# An epoch has about as many steps as the paper's: batches of 512 of some 95,000 images. Large
# batches of few images stop at worse probes (frozen features of 11,000 frames, 128-128: 5.4 px with
# batches of 512, 2.0 px with batches of 64).
STEPS_PER_EPOCH = 185
BATCH_SIZES = (32, 512)

# How every probe is trained.
TRAINING = {
    # As good as 1e-3 here, in half the time.
    "learning_rate_init": 2e-3,
    "max_iter": 500,
    "early_stopping": True,
    "n_iter_no_change": 25,
    "validation_fraction": VALIDATION_FRACTION,
}


def probe_settings(task: str) -> dict:
    """Return all that decides what probes learn, ready for JSON.

    >>> probe_settings("class")["model"]
    'MLPClassifier'
    """
    model, scoring, split, tol = TASKS[task]
    return {
        "model": model.__name__,
        "hidden_layers": HIDDEN_LAYERS,
        "scoring": scoring,
        "split": split.__name__.strip("_"),
        "steps_per_epoch": STEPS_PER_EPOCH,
        "batch_sizes": BATCH_SIZES,
        "tol": tol,
        **TRAINING,
    }


def select_probe(
    embedding, target, *, task, random_state=0, n_jobs=None, hidden_layers=HIDDEN_LAYERS
) -> GridSearchCV:
    """Train the seven probes, or some of them, and keep the one with the lowest validation loss.

    Every probe standardises the embedding (n, z), trains for at most 500 epochs, and goes back to
    its best epoch on an inner fifth of its images. The selected one is then fitted again on all
    labelled images, an inner fifth still deciding the epoch, so the tested probe has learned from
    80 % of them, as in the paper. Targets are positions (n, 2) or classes (n,). `random_state`
    seeds the MLPs; the outer split is always the same.

    >>> embedding = np.random.default_rng(0).uniform(-1, 1, (200, 4))
    >>> search = select_probe(embedding, embedding[:, :2], task="position")
    >>> search.predict(embedding).shape
    (200, 2)
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {sorted(TASKS)}, got {task!r}.")
    model, scoring, split, tol = TASKS[task]
    embedding, target = np.asarray(embedding), np.asarray(target)
    mlp = model(
        batch_size=_batch_size(len(embedding)), tol=tol, random_state=random_state, **TRAINING
    )
    search = GridSearchCV(
        Pipeline([("scale", StandardScaler()), ("mlp", mlp)]),
        {"mlp__hidden_layer_sizes": hidden_layers},
        scoring=scoring,
        cv=split(embedding, target),
        n_jobs=n_jobs,
        error_score="raise",
    )
    return search.fit(embedding, target)


# Per task, a model without hidden layers and the values of its parameter that compete.
SIMPLE_PROBES = {
    "linear": {
        "class": (LogisticRegression(max_iter=1000), {"C": (0.01, 0.1, 1.0)}),
        "position": (Ridge(), {"alpha": (0.1, 10.0, 1000.0)}),
    },
    "k-NN": {
        "class": (KNeighborsClassifier(), {"n_neighbors": (1, 5, 10, 20)}),
        "position": (KNeighborsRegressor(), {"n_neighbors": (1, 5, 10, 20)}),
    },
}


def select_simple_probe(name, embedding, target, *, task) -> GridSearchCV:
    """Fit a "linear" or "k-NN" probe to the standardised embedding.

    Its one parameter is the best on the fifth that also selects MLPs, by accuracy of classes or
    squared error of positions; the selected probe is fitted again to all labelled images.

    >>> embedding = np.random.default_rng(0).uniform(-1, 1, (200, 4))
    >>> search = select_simple_probe("linear", embedding, embedding[:, 0] > 0, task="class")
    >>> measure(search, embedding, embedding[:, 0] > 0) > 0.95
    True
    """
    model, grid = SIMPLE_PROBES[name][task]
    embedding, target = np.asarray(embedding), np.asarray(target)
    search = GridSearchCV(
        Pipeline([("scale", StandardScaler()), ("model", model)]),
        {f"model__{parameter}": values for parameter, values in grid.items()},
        scoring="accuracy" if task == "class" else TASKS[task].scoring,
        cv=TASKS[task].split(embedding, target),
        error_score="raise",
    )
    return search.fit(embedding, target)


def draw_labelled(target, n_images, random_state=0) -> np.ndarray:
    """Draw the rows of so many labelled images, every class in its share.

    >>> np.bincount(np.repeat([0, 1], [30, 10])[draw_labelled(np.repeat([0, 1], [30, 10]), 8)])
    array([6, 2])
    """
    splitter = StratifiedShuffleSplit(1, train_size=n_images, random_state=random_state)
    ((rows, _),) = splitter.split(np.zeros(len(target)), target)
    return rows


def measure_probes(
    embedding, target, test_embedding, test_target, *, task, n_labelled, random_state=0, n_jobs=None
) -> dict[str, dict[str, dict[str, float]]]:
    """Test the linear, the k-NN and the selected MLP probe, each with several numbers of labels.

    Labelled images are drawn with the seed, classes in their shares; numbers of `n_labelled` that
    are not less than all take all of them. Returns, by number of labels and probe, the test measure
    and the validation score that selected the probe.
    """
    results: dict[str, dict] = {}
    for n in sorted({min(n, len(target)) for n in n_labelled}):
        rows = slice(None)
        if n < len(target):
            rows = draw_labelled(
                target if task == "class" else np.zeros(len(target)), n, random_state
            )
        labelled = embedding[rows], target[rows]
        probes = {name: select_simple_probe(name, *labelled, task=task) for name in SIMPLE_PROBES}
        probes["MLP"] = select_probe(*labelled, task=task, random_state=random_state, n_jobs=n_jobs)
        results[str(n)] = {
            name: {
                "test": measure(probe, test_embedding, test_target),
                "validation": float(probe.best_score_),
            }
            for name, probe in probes.items()
        }
    return results


def _batch_size(n_images: int) -> int:
    least, greatest = BATCH_SIZES
    return int(np.clip(n_images // STEPS_PER_EPOCH, min(least, n_images // 2), greatest))


def validation_losses(search: GridSearchCV) -> dict[str, float]:
    """Return the validation loss of each probe, keyed by its name."""
    layers = search.cv_results_["param_mlp__hidden_layer_sizes"]
    return {
        layer_name(layer): -float(score)
        for layer, score in zip(layers, search.cv_results_["mean_test_score"], strict=True)
    }


def layer_name(hidden_layers) -> str:
    """Name a probe by its hidden layers, such as "64-32"; without any it is "linear"."""
    return "-".join(map(str, hidden_layers)) or "linear"


def selected_probe(search: GridSearchCV) -> str:
    """Return the name of the selected probe."""
    return layer_name(search.best_params_["mlp__hidden_layer_sizes"])


def measure(search, embedding, target) -> float:
    """Test a fitted search or other estimator on embeddings or whatever it takes.

    Returns the accuracy of classes, or the mean Euclidean distance of positions in their units.
    """
    predicted = search.predict(embedding)
    if is_classifier(search):
        return float(accuracy_score(target, predicted))
    return float(np.linalg.norm(predicted - np.asarray(target), axis=1).mean())
