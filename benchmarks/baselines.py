"""Embeddings that feature prediction must beat at equal cost, as rows of a table.

Beside those of `benchmarks.methods`: patches of pixels in the manner of Coates, Ng and Lee (2011),
frozen networks, self-supervision on the same encoders, and the same encoders trained on labels.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.cluster import MiniBatchKMeans
from sklearn.utils import check_random_state, gen_batches
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn
from torch.nn import functional as F

from benchmarks.internals import (
    InputDecoder,
    Preprocess,
    completed_epochs,
    flip_and_shift,
    keep_freed_memory,
    make_encoder,
    read_images,
)
from benchmarks.methods import METHODS, LossNetworkFeatures, Method, WhitenedPCA
from benchmarks.probes import VALIDATION_FRACTION
from benchmarks.self_supervised import OBJECTIVES, SelfSupervisedEncoder

BATCH = 64
# Of the patches: the least variance that counts as contrast, in grey levels of 0 to 255, and what
# is added to eigenvalues before they are whitened. Both as published.
LEAST_VARIANCE, LEAST_EIGENVALUE = 10.0, 0.1


class KMeansPatches(BaseEstimator):
    """Describe images by how near their patches are to centroids of patches.

    Patches of 6 by 6 pixels are normalised for brightness and contrast, and whitened. Each is
    described by how much nearer than the average centroid each centroid is, 0 if it is farther; a
    quarter of an image is described by the mean over its patches. Images keep their size.

    Examples
    --------
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    >>> KMeansPatches(n_centroids=8, n_patches=500).fit(images)(images).shape
    (20, 32)
    """

    def __init__(
        self, n_centroids=400, *, side=6, stride=1, n_patches=50_000, random_state=0
    ) -> None:
        self.n_centroids = n_centroids
        self.side = side
        self.stride = stride
        self.n_patches = n_patches
        self.random_state = random_state

    def fit(self, images, y=None):
        """Find the whitening and the centroids from random patches of at most 5,000 images."""
        random = check_random_state(self.random_state)
        images = images[np.sort(random.permutation(len(images))[:5000])]
        n_each = -(-self.n_patches // len(images))
        drawn = []
        for rows in gen_batches(len(images), BATCH):
            patches = self._patches(images[rows])
            places = random.randint(patches.shape[1], size=(len(patches), n_each))
            drawn.append(np.take_along_axis(patches, places[..., None], axis=1))
        patches = np.concatenate(drawn).reshape(-1, drawn[0].shape[-1])
        self.mean_ = patches.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(patches, rowvar=False))
        scale = 1 / np.sqrt(values.clip(0) + LEAST_EIGENVALUE)
        self.whitening_ = np.float32(vectors * scale @ vectors.T)
        clusters = MiniBatchKMeans(
            self.n_centroids, batch_size=4096, n_init=1, random_state=random
        ).fit((patches - self.mean_) @ self.whitening_)
        self.centroids_ = np.float32(clusters.cluster_centers_)
        return self

    def __call__(self, images) -> np.ndarray:
        """Return the description (n, 4 * n_centroids) of images."""
        batches = gen_batches(len(images), BATCH)
        return np.concatenate([self._describe(images[rows]) for rows in batches])

    def _describe(self, images) -> np.ndarray:
        patches = torch.from_numpy((self._patches(images) - self.mean_) @ self.whitening_)
        distances = torch.cdist(patches, torch.from_numpy(self.centroids_)[None])
        nearer = F.relu(distances.mean(dim=2, keepdim=True) - distances)
        sides = [(side - self.side) // self.stride + 1 for side in images.shape[1:3]]
        maps = nearer.transpose(1, 2).unflatten(2, sides)
        return F.adaptive_avg_pool2d(maps, 2).flatten(1).numpy()

    def _patches(self, images) -> np.ndarray:
        """Cut (n, places, values) out of uint8 images, of equal brightness and contrast."""
        batch = torch.from_numpy(np.asarray(images)).to(torch.float32)
        batch = batch[:, None] if batch.ndim == 3 else batch.permute(0, 3, 1, 2)
        patches = F.unfold(batch, self.side, stride=self.stride).transpose(1, 2)
        patches -= patches.mean(dim=2, keepdim=True)
        return (patches / (patches.var(dim=2, keepdim=True) + LEAST_VARIANCE).sqrt()).numpy()


class KMeansEmbedding(WhitenedPCA):
    """The leading components of a description by `KMeansPatches`."""

    def fit(self, images, y=None):
        """Find the centroids, then the components."""
        self.describe.fit(images)
        return super().fit(images)


class LabelledEncoder(ClassifierMixin, TransformerMixin, BaseEstimator):
    """An image encoder of this package and a linear layer, trained end to end on class labels.

    AdamW trains on flipped and shifted images with a one-cycle learning rate; the epoch with the
    lowest loss on a fifth of the images, drawn class by class, is kept.

    Parameters
    ----------
    encoder : str or fitted estimator
        The encoder to begin with: one of skfp.FeaturePredictionEncoder's, with weights as they are
        before any training, or that of an estimator of skfp that is fitted already.
    z : int, default=128
        Size of the embedding of an encoder given by name.
    max_epochs, patience : int, default=50, 50
        Epochs of training, at most and after the best.
    batch_size : int, default=64
        Of few images, a quarter makes a batch.
    lr : float, default=1e-3
        The highest learning rate.
    augment : bool, default=True
        Whether to flip and shift the images of training.
    random_state, verbose : int, default=0, 0
        Seed, and whether each epoch is printed.

    Examples
    --------
    >>> images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    >>> encoder = LabelledEncoder("small", z=8, max_epochs=1).fit(images, np.arange(40) % 2)
    >>> encoder.transform(images).shape, encoder.predict(images).shape
    ((40, 8), (40,))
    """

    validation_fraction = VALIDATION_FRACTION

    def __init__(
        self,
        encoder: Any,
        z: int = 128,
        *,
        max_epochs: int = 50,
        patience: int = 50,
        batch_size: int = 64,
        lr: float = 1e-3,
        augment: bool = True,
        random_state: int = 0,
        verbose: int = 0,
    ) -> None:
        self.encoder = encoder
        self.z = z
        self.max_epochs = max_epochs
        self.patience = patience
        self.batch_size = batch_size
        self.lr = lr
        self.augment = augment
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, images, y):
        """Train on uint8 images and their classes."""
        images = np.asarray(images)
        self.classes_, labels = np.unique(y, return_inverse=True)
        n_train = len(images) - math.ceil(VALIDATION_FRACTION * len(images))
        batch_size = min(self.batch_size, max(2, n_train // 4))
        self.device_ = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with keep_freed_memory(), torch.random.fork_rng():
            torch.manual_seed(self.random_state)
            self.embed_ = self._make_embedder(images)
            z = self.embed_[-1].head.out_features
            self.network_ = nn.Sequential(self.embed_, nn.ReLU(), nn.Linear(z, len(self.classes_)))
            schedule = LRScheduler(
                torch.optim.lr_scheduler.OneCycleLR,
                max_lr=self.lr,
                total_steps=self.max_epochs * (n_train // batch_size) + 1,
                step_every="batch",
                event_name=None,
            )
            stopping = EarlyStopping(patience=self.patience, threshold=0, load_best=True)
            net = NeuralNetClassifier(
                self.network_.to(self.device_).to(memory_format=torch.channels_last),
                criterion=nn.CrossEntropyLoss,
                optimizer=torch.optim.AdamW,
                optimizer__lr=self.lr,
                max_epochs=self.max_epochs,
                batch_size=batch_size,
                iterator_train__shuffle=True,
                iterator_train__drop_last=True,
                iterator_train__generator=torch.Generator().manual_seed(self.random_state),
                train_split=ValidSplit(VALIDATION_FRACTION, stratified=True, random_state=0),
                callbacks=[schedule, stopping],
                callbacks__valid_acc=None,
                device=self.device_,
                verbose=self.verbose,
            ).fit(images, labels)
        self.network_.eval()
        self.history_ = completed_epochs(net)
        best = min(self.history_, key=lambda row: row["valid_loss"])
        self.best_epoch_, self.validation_loss_ = best["epoch"], best["valid_loss"]
        self.n_epochs_ = len(self.history_)
        self.n_parameters_ = sum(p.numel() for p in self.network_.parameters())
        return self

    def _make_embedder(self, images) -> nn.Sequential:
        """Return the layers from images to embeddings, with those of augmentation."""
        if isinstance(self.encoder, str):
            format = read_images(images).format
            encoder = make_encoder(self.encoder, 0, format.network_size, self.z)
            layers = [InputDecoder(format), Preprocess(), encoder]
        else:
            layers = list(self.encoder.to_torch())
        decode, *others = layers
        return nn.Sequential(decode, *[FlipAndShift()] * self.augment, *others).train()

    def transform(self, images) -> np.ndarray:
        """Return the embedding (n, z) of images."""
        return self._compute(self.embed_, images)

    def predict(self, images) -> np.ndarray:
        """Return the class of each image."""
        return self.classes_[self._compute(self.network_, images).argmax(axis=1)]

    @torch.inference_mode()
    def _compute(self, module: nn.Module, images) -> np.ndarray:
        outputs = [
            module(torch.from_numpy(np.asarray(images[rows])).to(self.device_)).cpu()
            for rows in gen_batches(len(images), 256)
        ]
        return torch.cat(outputs).numpy()


class FlipAndShift(nn.Module):
    """Flip and shift images in training, as FeaturePredictionEncoder(augment=True) does."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map a batch (b, channels, height, width) to another of the same shape."""
        return flip_and_shift(images) if self.training else images


def k_means(z: int, random_state: int = 0) -> KMeansEmbedding:
    """Make the embedding by k-means patches, through whitened PCA."""
    return KMeansEmbedding(KMeansPatches(random_state=random_state), z, random_state=random_state)


def frozen(loss_network: Any, z: int, random_state: int = 0) -> WhitenedPCA:
    """Make the embedding by a frozen network, through whitened PCA."""
    return WhitenedPCA(LossNetworkFeatures(loss_network), z, random_state=random_state)


# Self-supervised rows also take `encoder`, `lr` and others.
BASELINES = {
    "pca": METHODS["pca"],
    "k-means": Method("k-means patches, whitened PCA", k_means, trained=False),
    "frozen-alexnet": METHODS["frozen"],
    **{
        name: Method(objective.title, partial(SelfSupervisedEncoder, name))
        for name, objective in OBJECTIVES.items()
    },
}
