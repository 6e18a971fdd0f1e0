"""Principal components of the features: as good a target for a fraction of memory and time."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import nn

MAX_COMPONENTS = 512
EXPLAINED_VARIANCE = 0.98
ARRAYS = ("mean", "basis", "explained_variance_ratio")


class PCAProjection(nn.Module):
    """Projection of features onto their leading principal components.

    `basis` (k, n_features) has orthonormal rows by falling variance; `explained_variance_ratio` is
    their share of the variance.
    """

    mean: torch.Tensor
    basis: torch.Tensor
    explained_variance_ratio: torch.Tensor

    def __init__(
        self, mean: torch.Tensor, basis: torch.Tensor, explained_variance_ratio: torch.Tensor
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        self.register_buffer("explained_variance_ratio", explained_variance_ratio)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Coefficients of features (b, n_features), the squared residual in an added column."""
        centred = features - self.mean
        coefficients = centred @ self.basis.T
        residual = centred.square().sum(dim=1) - coefficients.square().sum(dim=1)
        return torch.cat([coefficients, residual.clamp_min(0)[:, None]], dim=1)

    def inverse(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Features (b, n_features) of coefficients (b, k)."""
        return coefficients @ self.basis + self.mean


def fit_pca(sample: np.ndarray, n_components: int | str) -> dict[str, np.ndarray]:
    """Find the arrays of a `PCAProjection` from the features of a sample of images.

    "auto" takes as many components as explain 98 % of the variance, at most 512.
    """
    wanted = MAX_COMPONENTS if n_components == "auto" else int(n_components)
    with np.errstate(invalid="ignore"):
        pca = PCA(
            min(wanted, *sample.shape), svd_solver="randomized", iterated_power=1, random_state=0
        ).fit(sample)
        # Without any variance, there is no share of it.
        explained = np.nan_to_num(pca.explained_variance_ratio_.cumsum(), nan=1.0)
    k = len(explained)
    if n_components == "auto":
        k = min(k, 1 + int(np.searchsorted(explained, EXPLAINED_VARIANCE)))
    return {
        "mean": pca.mean_.astype(np.float32),
        "basis": np.ascontiguousarray(pca.components_[:k], dtype=np.float32),
        "explained_variance_ratio": np.asarray(explained[k - 1], dtype=np.float32),
    }
