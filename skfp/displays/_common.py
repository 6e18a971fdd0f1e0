"""What the displays share: which estimators and images they accept, axes and colours."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, check_scalar
from sklearn.utils.validation import _num_samples, check_is_fitted
from torch.utils.data import Dataset, Subset

from .._base import BaseImageEncoder
from .._images.sources import Source, as_source

# Its hues differ and its lightness only rises, so colours remain distinct in grey.
COLORMAP = "CMRmap"


def unwrap(estimator: Any, X: Any = None) -> tuple[BaseImageEncoder, Any]:
    """Return the encoder at the end of a pipeline, and X as the earlier steps transform it."""
    if isinstance(estimator, Pipeline):
        if len(estimator) > 1 and X is not None:
            X = estimator[:-1].transform(X)
        estimator = estimator[-1]
    if isinstance(estimator, FrozenEstimator):
        estimator = estimator.estimator
    if not isinstance(estimator, BaseImageEncoder):
        raise TypeError(
            f"estimator is a {type(estimator).__name__}. Expected a FeaturePredictionEncoder, a "
            "PerceptualAutoencoder or a PixelAutoencoder, or a pipeline that ends in one."
        )
    check_is_fitted(estimator)
    return estimator, X


def first_images(X: Any, n_images: int) -> Any:
    """Select the first images of X, or all where X has fewer."""
    check_scalar(n_images, "n_images", Integral, min_val=1)
    return select_images(X, np.arange(min(n_images, _num_samples(X))))


def select_images(X: Any, indices: np.ndarray) -> Any:
    """Select images from any container that `fit` accepts."""
    if isinstance(X, Dataset):
        return Subset(X, indices.tolist())
    source = as_source(X)
    return source[indices] if isinstance(source, Source) else _safe_indexing(X, indices)


def make_panels(ax: Any, n_rows: int, n_columns: int, figsize: tuple[float, float]) -> np.ndarray:
    """Make axes for images, in a new figure or in the place of one axes."""
    import matplotlib.pyplot as plt

    if ax is None:
        grid = plt.figure(figsize=figsize, layout="constrained").add_gridspec(n_rows, n_columns)
    elif ax.get_subplotspec() is None:
        raise ValueError(
            "ax lies in no grid that panels could be put into. Expected axes made by "
            "plt.subplots or Figure.add_subplot."
        )
    else:
        ax.set_axis_off()
        grid = ax.get_subplotspec().subgridspec(n_rows, n_columns)
    panels = grid.subplots(squeeze=False)
    for panel in panels.flat:
        panel.set(xticks=[], yticks=[])
    return panels
