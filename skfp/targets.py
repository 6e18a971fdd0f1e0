"""What the loss network sees in the images: computed once, compressed, kept.

A fit asks for the features themselves, or for their coefficients on leading principal components:
as good a target for a fraction of the memory and arithmetic.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.utils import gen_batches
from torch import nn

from skfp.images import Images

BATCH_SIZE = 256
MAX_BYTES_IN_MEMORY = 2**30
COMPONENT_SAMPLE = 4096
AUTO_COMPONENTS = 512


@dataclasses.dataclass
class Features:
    """One row of numbers per image, read batch by batch.

    Parameters
    ----------
    array : ndarray or Tensor of shape (n_images, n_values)
        May be memory-mapped.
    """

    array: Any

    def __len__(self) -> int:
        return len(self.array)

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take."""
        return int(self.array.nbytes)

    def read(self, indices: Any) -> torch.Tensor:
        """Read some rows as a tensor."""
        return torch.as_tensor(self.array[indices])

    def to(self, device: torch.device) -> Features:
        """Hold all rows on a device."""
        return Features(torch.as_tensor(np.asarray(self.array)).to(device))


class Components(nn.Module):
    """Leading principal components of the features.

    Parameters
    ----------
    mean : Tensor of shape (n_features,)
        Mean features.
    basis : Tensor of shape (k, n_features)
        Orthonormal rows, by falling variance.
    explained_variance_ratio : float
        Share of the features' variance along the basis.
    """

    mean: torch.Tensor
    basis: torch.Tensor

    def __init__(
        self, mean: torch.Tensor, basis: torch.Tensor, explained_variance_ratio: float
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        self.explained_variance_ratio = explained_variance_ratio

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Coefficients of features (b, n_features), the squared residual in an added column."""
        centred = features - self.mean
        coefficients = centred @ self.basis.T
        residual = centred.square().sum(dim=1) - coefficients.square().sum(dim=1)
        return torch.cat([coefficients, residual.clamp_min(0)[:, None]], dim=1)

    def features(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Features (b, n_features) that coefficients (b, k) stand for."""
        return coefficients @ self.basis + self.mean


def compute(
    source: Images | Features, see: Callable, n_values: int, *, in_memory: bool = False
) -> Features:
    """Compute one row of values per image, in batches.

    Parameters
    ----------
    source : Images or Features
        What to read.
    see : callable
        Maps a batch of `source` to rows (b, n_values), on whatever device.
    n_values : int
        Number of values per image.
    in_memory : bool, default=False
        Whether to keep the rows in memory whatever their size.

    Returns
    -------
    rows : Features
        In memory up to 1 GiB, else in a temporary file that goes away with the object.
    """
    shape = (len(source), n_values)
    array: np.ndarray
    if in_memory or math.prod(shape) * 4 <= MAX_BYTES_IN_MEMORY:
        array = np.empty(shape, dtype=np.float32)
    else:
        # The file has no name: it is gone when the last mapping of it is.
        with tempfile.TemporaryFile() as file:
            array = np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
    with torch.inference_mode():
        for rows in gen_batches(len(source), BATCH_SIZE):
            array[rows] = see(source.read(rows)).cpu().numpy()
    return Features(array)


def fit_components(
    source: Images | Features, see: Callable, n_components: int | str, seed: int
) -> Components:
    """Find the leading principal components of the features on a sample of the images.

    Parameters
    ----------
    source : Images or Features
        What to read; a random sample of at most 4096 images is looked at.
    see : callable
        Maps a batch of `source` to features (b, n_features).
    n_components : int or "auto"
        How many; "auto" is 512. There are never more than the sample determines.
    seed : int
        Seed of the sample and of the randomized decomposition.

    Returns
    -------
    components : Components
    """
    n_sample = min(len(source), COMPONENT_SAMPLE)
    rows = np.random.default_rng(seed).choice(len(source), n_sample, replace=False)
    with torch.inference_mode():
        sample = np.concatenate(
            [
                see(source.read(np.sort(rows[batch]))).cpu().numpy()
                for batch in gen_batches(n_sample, BATCH_SIZE)
            ]
        )
    wanted = AUTO_COMPONENTS if n_components == "auto" else int(n_components)
    with np.errstate(invalid="ignore"):
        pca = PCA(
            min(wanted, *sample.shape), svd_solver="randomized", iterated_power=3, random_state=seed
        ).fit(sample)
        # Images that are all equal have no variance to explain a share of.
        share = np.nan_to_num(pca.explained_variance_ratio_.sum(), nan=1.0)
    return Components(
        torch.from_numpy(pca.mean_.astype(np.float32)),
        torch.from_numpy(np.ascontiguousarray(pca.components_, dtype=np.float32)),
        float(share),
    )
