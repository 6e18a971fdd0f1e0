"""Embeddings in a plane, with thumbnails of images."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from sklearn.metrics import pairwise_distances
from sklearn.utils import check_consistent_length, check_scalar, column_or_1d
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.multiclass import type_of_target

from ._common import COLORMAP, select_images, unwrap
from ._plane import choose_apart, project

# More different numbers than a legend can distinguish are drawn as values on a scale.
_MAX_CLASSES = 12


class EmbeddingDisplay:
    """Embeddings of images projected to a plane, with thumbnails of some of the images.

    Use :meth:`from_estimator` to make one.

    Parameters
    ----------
    positions : ndarray of shape (n, 2)
        Positions of the images in the plane.
    thumbnails : ndarray of shape (n_thumbnails, height, width, 3)
        Some of the images, RGB in [0, 1].
    thumbnail_indices : ndarray of shape (n_thumbnails,)
        Their rows in `positions`.
    y : array-like of shape (n,), default=None
        Classes or continuous values, drawn as colours of the dots and of the thumbnails' frames;
        more than 12 different numbers count as continuous. The name of a Series labels the
        colour scale.
    axis_labels : sequence of str, default=("Component 1", "Component 2")
        Labels of the two axes.

    Attributes
    ----------
    points_ : matplotlib.collections.PathCollection
        The dots, one per image.
    thumbnails_ : list of matplotlib.offsetbox.AnnotationBbox
        The drawn thumbnails.
    colorbar_ : matplotlib.colorbar.Colorbar or None
        The colours of the classes or values. None without y.
    ax_ : matplotlib.axes.Axes
        Axes with the dots and thumbnails.
    figure_ : matplotlib.figure.Figure
        Figure that contains the axes.

    See Also
    --------
    ReconstructionDisplay : Images decoded from their embeddings.

    Examples
    --------
    >>> import numpy as np
    >>> from skfp import FeaturePredictionEncoder
    >>> from skfp.displays import EmbeddingDisplay
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    >>> encoder = FeaturePredictionEncoder(z=8, max_epochs=1, random_state=0).fit(images)
    >>> brightness = images.mean(axis=(1, 2, 3))
    >>> display = EmbeddingDisplay.from_estimator(encoder, images, brightness, random_state=0)
    >>> display.positions.shape
    (20, 2)

    Any transformer of scikit-learn to two dimensions takes the place of the principal components:

    >>> from sklearn.manifold import TSNE
    >>> tsne = TSNE(perplexity=5, random_state=0)
    >>> EmbeddingDisplay.from_estimator(encoder, images, projection=tsne).ax_.get_xlabel()
    'TSNE 1'
    """

    points_: Any
    thumbnails_: list[Any]
    colorbar_: Any
    ax_: Any
    figure_: Any

    def __init__(
        self,
        *,
        positions: np.ndarray,
        thumbnails: np.ndarray,
        thumbnail_indices: np.ndarray,
        y: Any = None,
        axis_labels: Sequence[str] = ("Component 1", "Component 2"),
    ) -> None:
        self.positions = positions
        self.thumbnails = thumbnails
        self.thumbnail_indices = thumbnail_indices
        self.y = y
        self.axis_labels = axis_labels

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        projection: Any = None,
        n_thumbnails: int = 100,
        random_state: Any = None,
        ax: Any = None,
    ) -> Self:
        """Embed, project and draw images.

        Parameters
        ----------
        estimator : estimator instance
            A fitted encoder of this package, or a pipeline that ends in one.
        X : array-like
            Images of the size and channels of those in fit, in any container that fit accepts.
        y : array-like of shape (n,), default=None
            Classes or continuous values, drawn as colours; more than 12 different numbers count
            as continuous. The name of a Series labels the colour scale.
        projection : transformer, default=None
            A clone of it projects the embedding to two dimensions by `fit_transform`. If None,
            the first two principal components.
        n_thumbnails : int, default=100
            Most images to draw. They are chosen far from each other in the plane, and fewer where
            more would overlap.
        random_state : int, RandomState instance or None, default=None
            Determines the first thumbnail, from which the others follow, and the principal
            components where z is large.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into. If None, a new figure is made.

        Returns
        -------
        display : EmbeddingDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        check_scalar(n_thumbnails, "n_thumbnails", Integral, min_val=1)
        check_consistent_length(X, y)
        estimator, X = unwrap(estimator, X)
        embedding = estimator.transform(X)
        if isinstance(embedding, torch.Tensor):
            embedding = embedding.cpu()
        positions, axis_labels = project(np.asarray(embedding), projection, random_state)
        indices = choose_apart(positions, n_thumbnails, random_state)
        display = cls(
            positions=positions,
            thumbnails=estimator._rgb(select_images(X, indices)),
            thumbnail_indices=indices,
            y=y,
            axis_labels=axis_labels,
        )
        return display.plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw the dots and the thumbnails.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into. If None, a new figure is made.

        Returns
        -------
        display : EmbeddingDisplay
            The object itself, with the drawn artists as attributes.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt
        from matplotlib.offsetbox import AnnotationBbox, OffsetImage

        y, classes = (None, None) if self.y is None else _encode_classes(column_or_1d(self.y))

        if ax is None:
            _, ax = plt.subplots(figsize=(7.5, 6.5), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        coloring = {"color": "0.35"} if y is None else {"c": y, **_coloring(classes)}
        self.points_ = ax.scatter(*self.positions.T, s=8, linewidths=0, **coloring)
        # Room for the thumbnails at the border.
        ax.margins(0.1)
        ax.set_aspect("equal", adjustable="datalim")
        ax.set(xlabel=self.axis_labels[0], ylabel=self.axis_labels[1])

        self.colorbar_ = None
        if y is not None:
            name = getattr(self.y, "name", None) or "y"
            self.colorbar_ = self.figure_.colorbar(self.points_, ax=ax, label=name)
            if classes is not None:
                self.colorbar_.set_ticks(np.arange(len(classes)), labels=classes)
                self.colorbar_.minorticks_off()

        ax.apply_aspect()
        view = np.ptp(ax.get_xlim())
        gaps = pairwise_distances(self.positions[self.thumbnail_indices], metric="chebyshev")
        np.fill_diagonal(gaps, np.inf)
        # Smaller than the least gap, so that dots between neighbours stay visible.
        side = 0.85 * np.clip(gaps.min(), 0.02 * view, 0.2 * view)
        side_in_points = side / view * ax.get_window_extent().width * 72 / self.figure_.dpi
        zoom = side_in_points / max(self.thumbnails.shape[1:3])
        self.thumbnails_ = []
        for index, image in zip(self.thumbnail_indices, self.thumbnails, strict=True):
            thumbnail = AnnotationBbox(
                OffsetImage(image, zoom=zoom),
                self.positions[index],
                pad=0,
                bboxprops={
                    "edgecolor": "0.35" if y is None else self.points_.to_rgba(y[index]),
                    "linewidth": 0.8 if y is None else 2,
                },
            )
            self.thumbnails_.append(ax.add_artist(thumbnail))
        return self


def _encode_classes(y: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return y and None where it is continuous, else numbers of classes and their names."""
    classes = np.unique(y)
    is_scale = classes.dtype.kind in "iuf" and len(classes) > _MAX_CLASSES
    if type_of_target(y) == "continuous" or is_scale:
        return y, None
    return np.searchsorted(classes, y), classes


def _coloring(classes: np.ndarray | None) -> dict[str, Any]:
    """Map continuous values, or the numbers of classes, to the colours of a scatter plot."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import BoundaryNorm, ListedColormap

    n_colors = 256 if classes is None else len(classes)
    # Without the ends, which are black and white.
    colors = ListedColormap(plt.get_cmap(COLORMAP)(np.linspace(0.2, 0.85, n_colors)))
    if classes is None:
        return {"cmap": colors}
    return {"cmap": colors, "norm": BoundaryNorm(np.arange(n_colors + 1) - 0.5, n_colors)}
