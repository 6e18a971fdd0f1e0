"""The methods that are compared, as rows of a table, and how each is trained and probed.

The paper names a procedure (encoder)-(decoder)-(loss): I is an image, F its features, and the loss
is pixel-wise (PW), perceptual similarity (PS) or feature prediction (FP). The other rows are
references that procedures must beat: a network trained on labels, and untrained embeddings.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.utils import check_random_state, gen_batches

from benchmarks.cnn import SimpleCNN
from benchmarks.internals import (
    Inference,
    Preprocess,
    load_loss_network,
    open_checkpoint,
    read_images,
)
from benchmarks.probes import (
    VALIDATION_FRACTION,
    measure,
    select_probe,
    selected_probe,
    validation_losses,
)
from skfp import FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder

BATCH = 512
MANY = 10_000  # images that features are computed of: worth the preparation of a deep network


def pixels(images) -> np.ndarray:
    """Describe images by their pixels, in [0, 1]."""
    return images.reshape(len(images), -1) / np.float32(255)


class LossNetworkFeatures:
    """Describe images by the features of a loss network."""

    def __init__(self, loss_network="alexnet", resize="auto"):
        network = load_loss_network(loss_network)
        self.compute, self.side = Inference(network, MANY), network.side
        self.resize = resize

    @torch.inference_mode()
    def __call__(self, images) -> np.ndarray:
        """Return the features of uint8 images, (n, height, width, 3) or (n, height, width)."""
        pixels = read_images(images, self.resize).enlarged(self.side)
        return self.compute(Preprocess()(pixels.read(slice(None)))).numpy()


class WhitenedPCA(TransformerMixin, BaseEstimator):
    """The leading z principal components of a description of images, scaled to unit variance.

    `describe` turns uint8 images into a row of numbers each. Components are found in `n_fitted`
    images, chosen at random: enough for a few hundred components, and they fit into memory.
    """

    def __init__(self, describe, z, n_fitted=5000, random_state=None):
        self.describe = describe
        self.z = z
        self.n_fitted = n_fitted
        self.random_state = random_state

    def fit(self, images, y=None):
        """Find the components."""
        random = check_random_state(self.random_state)
        images = images[np.sort(random.permutation(len(images))[: self.n_fitted])]
        described = [self.describe(images[rows]) for rows in gen_batches(len(images), BATCH)]
        self.pca_ = PCA(self.z, whiten=True, svd_solver="randomized", random_state=random)
        self.pca_.fit(np.concatenate(described))
        return self

    def transform(self, images):
        """Return the components of each image, batch by batch."""
        batches = gen_batches(len(images), BATCH)
        embedding = [self.pca_.transform(self.describe(images[rows])) for rows in batches]
        return np.concatenate(embedding).astype(np.float32)


class NoEmbedding(TransformerMixin, BaseEstimator):
    """The same for every image: probes can only learn the mean position or the class shares."""

    def fit(self, images, y=None):
        """Learn nothing."""
        return self

    def transform(self, images):
        """Return zeros."""
        return np.zeros((len(images), 1), dtype=np.float32)


class Method(NamedTuple):
    """A row of the comparison.

    `make` makes its transformer from `z`, `random_state` and, if it is trained by gradient descent,
    `max_epochs` and `verbose`; `make_as_paper` does so with the paper's settings in place of the
    defaults. A supervised one is trained on labelled images: it needs `task` too, and can predict.
    `z` is the size of an embedding that has only one.
    """

    title: str
    make: Callable
    make_as_paper: Callable | None = None
    trained: bool = True
    supervised: bool = False
    z: int | None = None


def _procedure(title: str, estimator: type, encoder: str) -> Method:
    return Method(
        title,
        partial(estimator, encoder=encoder),
        partial(estimator.with_paper_settings, encoder=encoder),
    )


PROCEDURES = {
    "I-F-FP": _procedure("feature prediction (I-F-FP)", FeaturePredictionEncoder, "image"),
    "F-F-FP": _procedure("feature prediction (F-F-FP)", FeaturePredictionEncoder, "features"),
    "I-I-PS": _procedure("perceptual autoencoder (I-I-PS)", PerceptualAutoencoder, "image"),
    "F-I-PS": _procedure("perceptual autoencoder (F-I-PS)", PerceptualAutoencoder, "features"),
    "I-I-PW": _procedure("pixel autoencoder (I-I-PW)", PixelAutoencoder, "image"),
    "F-I-PW": _procedure("pixel autoencoder (F-I-PW)", PixelAutoencoder, "features"),
}

METHODS = {
    **PROCEDURES,
    "cnn": Method("simple CNN, trained on labels", SimpleCNN, supervised=True),
    "frozen": Method(
        "frozen features, whitened PCA",
        lambda **parameters: WhitenedPCA(LossNetworkFeatures(), **parameters),
        trained=False,
    ),
    "pca": Method("pixels, whitened PCA", partial(WhitenedPCA, pixels), trained=False),
    "mean": Method(
        "no embedding: the mean", lambda **parameters: NoEmbedding(), trained=False, z=0
    ),
}

# How figures draw them: colours of Okabe and Ito; markers and dashes differ for print in grey. What
# is trained without labels is a point or a curve, the others are lines.
STYLES = {
    "I-F-FP": {"color": "#D55E00", "marker": "o"},
    "F-F-FP": {"color": "#E69F00", "marker": "s"},
    "I-I-PS": {"color": "#0072B2", "marker": "^"},
    "F-I-PS": {"color": "#56B4E9", "marker": "v"},
    "I-I-PW": {"color": "#000000", "marker": "D"},
    "F-I-PW": {"color": "#009E73", "marker": "X"},
    "cnn": {"color": "0.35", "linestyle": (0, (7, 2))},
    "cnn-probe": {"color": "0.35", "linestyle": (0, (7, 2, 1, 2))},
    "frozen": {"color": "0.35", "linestyle": "-"},
    "pca": {"color": "0.35", "linestyle": (0, (3, 1.5))},
    "mean": {"color": "0.35", "linestyle": (0, (1, 1.5))},
}


def evaluate(transformer, unlabelled, labelled, test, *, task, random_state=0, n_jobs=None):
    """Fit a method to unlabelled images and probe it; parameters and results are as in `probe`."""
    training = train(transformer, unlabelled)
    record, predicted = probe(
        transformer, labelled, test, task=task, random_state=random_state, n_jobs=n_jobs
    )
    return {"training": training, **record}, predicted


def train(transformer, images, targets=None, *, X_val=None) -> dict:
    """Fit a method, and describe its training.

    `targets` are for supervised methods; without `X_val`, a method holds out validation images
    itself. In the result, ready for JSON, `n_images` includes validation images, and `seconds` is
    the time of fit, with the epochs of an earlier attempt that a checkpoint holds. A method without
    gradient descent has no more than these two.
    """
    validation = {} if X_val is None else {"X_val": X_val}
    n_earlier = checkpointed_epochs(getattr(transformer, "checkpoint_dir", None))
    start = time.perf_counter()
    transformer.fit(images, targets, **validation)
    seconds = time.perf_counter() - start
    seconds += sum(row["seconds"] for row in getattr(transformer, "history_", ())[:n_earlier])
    n_images = len(images) + sum(map(len, validation.values()))
    training = {"n_images": n_images, "seconds": seconds}
    return training | _describe_training(transformer, training)


def checkpointed_epochs(folder) -> int:
    """Count the epochs of the one fit that has checkpoints in a folder."""
    n_epochs = 0
    for file in Path(folder).glob("*/checkpoint.safetensors") if folder else ():
        with open_checkpoint(file.parent) as checkpoint:
            n_epochs = max(n_epochs, checkpoint.n_epochs)
    return n_epochs


def train_as_paper(transformer, images) -> dict:
    """Fit a procedure with the last fifth of the images for validation; see `train`."""
    trained, validation = split_as_paper(images)
    return train(transformer, trained, X_val=validation)


def split_as_paper(images) -> tuple:
    """Split images as the paper does, into training images and the last fifth for validation."""
    n_valid = max(1, round(VALIDATION_FRACTION * len(images)))
    return images[:-n_valid], images[-n_valid:]


def check_not_interrupted(transformer) -> None:
    """Raise KeyboardInterrupt if training ended before its epochs and patience, with a finite loss.

    skorch takes an interrupt (Ctrl-C) as the end of training, and fit returns.
    """
    if (
        hasattr(transformer, "history_")
        and transformer.n_epochs_ < transformer.max_epochs
        and transformer.n_epochs_ - transformer.best_epoch_ < transformer.patience
        and math.isfinite(transformer.history_[-1]["train_loss"])
    ):
        raise KeyboardInterrupt


def probe(transformer, labelled, test, *, task, random_state=0, n_jobs=None):
    """Select the probe of a fitted method on labelled images, and test it on others.

    `labelled` and `test` are images and targets, `task` is "position" or "class", `random_state`
    seeds the probes, of which `n_jobs` are trained at the same time. Returns a record for JSON, and
    the predictions for the test images.
    """
    labelled_images, labelled_targets = labelled
    test_images, test_targets = test
    start = time.perf_counter()
    embedding, test_embedding = map(transformer.transform, (labelled_images, test_images))
    encoding_seconds = time.perf_counter() - start
    n_encoded = len(labelled_images) + len(test_images)

    start = time.perf_counter()
    search = select_probe(
        embedding, labelled_targets, task=task, random_state=random_state, n_jobs=n_jobs
    )
    record = {
        "encoding": {
            "n_images": n_encoded,
            "seconds": encoding_seconds,
            "images_per_second": n_encoded / encoding_seconds,
        },
        "probe": {
            "task": task,
            "n_images": len(labelled_images),
            "validation_losses": validation_losses(search),
            "selected": selected_probe(search),
            "seconds": time.perf_counter() - start,
        },
        "n_test_images": len(test_images),
        "test_measure": measure(search, test_embedding, test_targets),
    }
    return record, search.predict(test_embedding)


def _describe_training(transformer, training: dict) -> dict:
    """Describe epochs and losses, if the method has any."""
    if not hasattr(transformer, "history_"):
        return {}
    n_trained = (1 - transformer.validation_fraction) * training["n_images"]
    return {
        "images_per_second": transformer.n_epochs_ * n_trained / training["seconds"],
        "n_parameters": int(transformer.n_parameters_),
        "n_epochs": int(transformer.n_epochs_),
        "best_epoch": int(transformer.best_epoch_),
        "validation_loss": float(transformer.validation_loss_),
        "history": [
            {
                "epoch": int(row["epoch"]),
                **{key: _finite(row[key]) for key in ("train_loss", "valid_loss", "seconds")},
            }
            for row in transformer.history_
        ],
    }


def _finite(number: float) -> float | None:
    """Return a number for JSON, which has no NaN."""
    return float(number) if math.isfinite(number) else None
