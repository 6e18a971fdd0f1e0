"""The methods that are compared, as rows of a table, and how each is measured.

The paper names a procedure (encoder)-(decoder)-(loss): I is an image, F its features, and the loss
is pixel-wise (PW), perceptual similarity (PS) or feature prediction (FP). The reference rows learn
nothing by gradient descent; they say what the procedures must beat.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.utils import check_random_state, gen_batches

from benchmarks.probes import measure, select_probe, selected_probe, validation_losses
from skfp import FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder
from skfp.loss_network import load_loss_network

BATCH = 512


def pixels(images) -> np.ndarray:
    """Describe images by their pixels, in [0, 1]."""
    return images.reshape(len(images), -1) / np.float32(255)


class LossNetworkFeatures:
    """Describe images by the features of a loss network."""

    def __init__(self, loss_network="alexnet"):
        self.network = load_loss_network(loss_network)

    @torch.inference_mode()
    def __call__(self, images) -> np.ndarray:
        """Return the features of uint8 images of shape (n, height, width, 3)."""
        return self.network(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).numpy()


class WhitenedPCA(TransformerMixin, BaseEstimator):
    """The leading principal components of a description of images, scaled to unit variance.

    Parameters
    ----------
    describe : callable
        Turns uint8 images into one row of numbers each.
    z : int
        Number of components.
    n_fitted : int, default=5000
        The components are found in so many images, chosen at random: enough for a few hundred
        components, and it fits into memory.
    random_state : int or None, default=None
    """

    def __init__(self, describe, z, n_fitted=5000, random_state=None):
        self.describe = describe
        self.z = z
        self.n_fitted = n_fitted
        self.random_state = random_state

    def fit(self, images, y=None):
        """Find the components."""
        random = check_random_state(self.random_state)
        chosen = np.sort(random.permutation(len(images))[: self.n_fitted])
        self.pca_ = PCA(self.z, whiten=True, svd_solver="randomized", random_state=random)
        self.pca_.fit(self._described(images[chosen]))
        return self

    def transform(self, images):
        """Return the components of each image, batch by batch."""
        batches = gen_batches(len(images), BATCH)
        parts = [self.pca_.transform(self.describe(images[rows])) for rows in batches]
        return np.concatenate(parts).astype(np.float32)

    def _described(self, images):
        return np.concatenate([self.describe(images[b]) for b in gen_batches(len(images), BATCH)])


class NoEmbedding(TransformerMixin, BaseEstimator):
    """Tell the probe nothing, so that it can only learn the mean position or the class shares."""

    def fit(self, images, y=None):
        """Learn nothing."""
        return self

    def transform(self, images):
        """Return the same for every image."""
        return np.zeros((len(images), 1), dtype=np.float32)


class Method(NamedTuple):
    """A row of the comparison.

    Attributes
    ----------
    title : str
        What tables and pictures call it.
    make : callable
        Makes its transformer from `z`, `random_state` and, where trained, `max_epochs`, ...
    trained : bool
        Whether it is trained by gradient descent.
    """

    title: str
    make: Callable
    trained: bool = True


METHODS = {
    "I-F-FP": Method(
        "feature prediction (I-F-FP)", partial(FeaturePredictionEncoder, encoder="image")
    ),
    "F-F-FP": Method(
        "feature prediction (F-F-FP)", partial(FeaturePredictionEncoder, encoder="features")
    ),
    "I-I-PS": Method(
        "perceptual autoencoder (I-I-PS)", partial(PerceptualAutoencoder, encoder="image")
    ),
    "F-I-PS": Method(
        "perceptual autoencoder (F-I-PS)", partial(PerceptualAutoencoder, encoder="features")
    ),
    "I-I-PW": Method("pixel autoencoder (I-I-PW)", partial(PixelAutoencoder, encoder="image")),
    "F-I-PW": Method("pixel autoencoder (F-I-PW)", partial(PixelAutoencoder, encoder="features")),
    "frozen": Method(
        "frozen features, whitened PCA",
        lambda **parameters: WhitenedPCA(LossNetworkFeatures(), **parameters),
        trained=False,
    ),
    "pca": Method("pixels, whitened PCA", partial(WhitenedPCA, pixels), trained=False),
    "mean": Method("no embedding: the mean", lambda **parameters: NoEmbedding(), trained=False),
}


def evaluate(transformer, unlabelled, labelled, test, *, task, random_state=0, n_jobs=None):
    """Fit a method on images, select its probe on labelled ones, and test it on others.

    Parameters
    ----------
    transformer : estimator with fit and transform
    unlabelled : ndarray of shape (n, height, width, 3), uint8
    labelled, test : tuple of (images, targets)
    task : {"position", "class"}
    random_state : int, default=0
        Seeds the probes.
    n_jobs : int or None, default=None
        Probes trained at the same time.

    Returns
    -------
    record : dict
        Ready for JSON: training, encoding, probe and `test_measure`. Training images per second
        count every epoch's images over the whole time of fit, the computation of features
        included.
    predicted : ndarray
        What the selected probe says of the test images.
    """
    start = time.perf_counter()
    transformer.fit(unlabelled)
    training = {"n_images": len(unlabelled), "seconds": time.perf_counter() - start}
    training |= _describe_training(transformer, training)

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
        "training": training,
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
    """Return what gradient descent leaves behind, nothing for a reference row."""
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
                **{key: float(row[key]) for key in ("train_loss", "valid_loss", "seconds")},
            }
            for row in transformer.history_
        ],
    }
