"""Features of images in a frozen network, their mean and their principal components."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from sklearn.utils import gen_batches

from .._data import ImageSet, Preprocess
from .._loss_network import FrozenNetwork, Inference, check_features, is_deep
from .._utils import distributed
from .._utils.fingerprint import fingerprint
from .._utils.sampling import evenly_spaced
from .cache import Cache
from .projection import ARRAYS, PCAProjection, fit_pca
from .store import BATCH_SIZE, MAX_BYTES_IN_MEMORY, FeatureStore, compute_rows

PROJECTION_SAMPLE = 4096


class FeatureExtractor:
    """Computes features of images with a frozen loss network, or reads features computed before.

    Nothing is computed before it is asked for, and nothing but the cache keeps it.

    Parameters
    ----------
    source : ImageSet or FeatureStore
        The images, or their features (see `precomputed`).
    extract : callable
        Maps a batch from `source` to features (batch_size, n_features), on any device.
    n_features : int
        Number of features of an image.
    cache : Cache
        Keeps results under the fingerprints of images and network.
    """

    # Whether to compute all features before any projection: a deep network's cost most of a fit.
    computes_once = False

    def __init__(
        self, source: ImageSet | FeatureStore, extract: Callable, n_features: int, cache: Cache
    ) -> None:
        self.source = source
        self.extract = extract
        self.n_features = n_features
        self.cache = cache

    @classmethod
    def from_images(
        cls,
        images: ImageSet,
        preprocess: Preprocess,
        network: FrozenNetwork,
        device: torch.device,
        memory: Any,
    ) -> FeatureExtractor:
        """Extract features with a loss network, which moves to the device."""
        network = network.to(device)
        compute = Inference(network, len(images)) if device.type == "cpu" else network

        def extract(batch: torch.Tensor) -> torch.Tensor:
            return compute(preprocess(batch.to(device, non_blocking=True)))

        n_features = network.n_features(images.format.network_size)
        if memory is None:
            extractor = cls(images, distributed.compute_sharded(extract), n_features, Cache(None))
        else:
            # With a cache, the main process computes an entry while the others wait to read it.
            cache = Cache(memory, images.fingerprint, network.fingerprint())
            extractor = cls(images, extract, n_features, cache)
        n_bytes = len(images) * n_features * 4
        extractor.computes_once = is_deep(network) and n_bytes <= MAX_BYTES_IN_MEMORY
        return extractor

    def precomputed(self) -> FeatureExtractor:
        """Compute the features of all images now, and return an extractor that reads them."""
        return self._precomputed

    @cached_property
    def _precomputed(self) -> FeatureExtractor:
        return FeatureExtractor(self.features(), lambda rows: rows, self.n_features, self.cache)

    def features(self) -> FeatureStore:
        """Compute the features of all images, or read them from the cache."""

        def compute() -> dict[str, np.ndarray]:
            rows = compute_rows(self.source, self.extract, self.n_features)
            sample = evenly_spaced(len(rows), BATCH_SIZE)
            check_features(torch.from_numpy(rows[sample]), self.source.read(sample))
            return {"rows": rows}

        return FeatureStore(self.cache(compute, "features")["rows"])

    def projected(self, projection: PCAProjection) -> FeatureStore:
        """Compute the projection of the features of all images, or read it from the cache."""
        if self.computes_once:
            return self._precomputed.projected(projection)

        def project(batch: torch.Tensor) -> torch.Tensor:
            features = self.extract(batch)
            return projection.to(features.device)(features)

        n_values = len(projection.basis) + 1  # the squared residual comes last
        arrays = self.cache(
            lambda: {"rows": compute_rows(self.source, project, n_values)},
            "projected",
            *(fingerprint(tensor.cpu().numpy()) for tensor in (projection.mean, projection.basis)),
        )
        return FeatureStore(arrays["rows"])

    def sample_mean(self) -> torch.Tensor:
        """Return the mean features (n_features,) of a sample of the images."""
        arrays = self.cache(lambda: {"mean": self._sample_features().mean(axis=0)}, "mean")
        return torch.from_numpy(np.array(arrays["mean"]))

    def fit_projection(self, n_components: int | str) -> PCAProjection:
        """Find principal components of the features of a sample of the images."""
        arrays = self.cache(
            lambda: fit_pca(self._sample_features(), n_components), "projection", n_components
        )
        return PCAProjection(*(torch.from_numpy(np.array(arrays[name])) for name in ARRAYS))

    def _sample_features(self) -> np.ndarray:
        """Compute the features of some images, drawn with the same seed in every fit."""
        if self.computes_once:
            return self._precomputed._sample_features()
        n_sample = min(len(self.source), PROJECTION_SAMPLE)
        rows = np.random.default_rng(0).choice(len(self.source), n_sample, replace=False)
        with torch.inference_mode():
            sample = np.concatenate(
                [
                    self.extract(self.source.read(np.sort(rows[batch]))).cpu().numpy()
                    for batch in gen_batches(n_sample, BATCH_SIZE)
                ]
            )
        check_features(torch.from_numpy(sample), self.source.read(np.sort(rows[:BATCH_SIZE])))
        return sample
