"""Pictures of fitted encoders, as scikit-learn's Display objects: data first, drawing in `plot`.

matplotlib is loaded when something is drawn, and nothing is shown before you call its `show`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import pairwise_distances
from sklearn.pipeline import Pipeline
from sklearn.utils import (
    _safe_indexing,
    check_consistent_length,
    check_random_state,
    check_scalar,
    column_or_1d,
)
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from skfp._base import BaseImageEncoder
from skfp._data.preprocess import Preprocess

# Its hues differ and its lightness only rises, so what it tells apart stays apart in grey.
_COLORMAP = "CMRmap"
# Of the lines of one, two, ... estimators, and the mark of their best epochs.
_LINES = ((0.12, "o"), (0.5, "s"), (0.75, "^"), (0.3, "D"), (0.62, "v"))
_TRAINING_LINE = "skfp-training"
_X_LABELS = {"epoch": "Epoch", "seconds": "Training time (s)"}
# More different numbers than a legend can tell apart are drawn as values on a scale.
_MAX_CLASSES = 12


class ConvergenceDisplay:
    """Training and validation loss by epoch or by training time.

    Use :meth:`from_estimator` to make one.

    Parameters
    ----------
    history : list of dict
        One row per epoch with the keys "epoch", "train_loss", "seconds" (that this epoch took)
        and, where the epoch was validated, "valid_loss": the `history_` of an estimator.
    name : str, default=None
        What the legend calls the curves. If None, it names the losses only.

    Attributes
    ----------
    train_line_ : matplotlib.lines.Line2D
        The training loss, dashed.
    valid_line_ : matplotlib.lines.Line2D or None
        The validation loss, with a mark at its best epoch. None where no epoch was validated.
    ax_ : matplotlib.axes.Axes
        Axes with the curves.
    figure_ : matplotlib.figure.Figure
        Figure that contains the axes.

    See Also
    --------
    FeatureErrorDisplay : Where in the images the loss remains.

    Examples
    --------
    >>> import numpy as np
    >>> from skfp import FeaturePredictionEncoder
    >>> from skfp.displays import ConvergenceDisplay
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    >>> encoder = FeaturePredictionEncoder(z=8, max_epochs=1, random_state=0).fit(images)
    >>> display = ConvergenceDisplay.from_estimator(encoder, name="I-F-FP")
    >>> display.ax_.get_xlabel()
    'Epoch'

    A second estimator is compared in the same axes:

    >>> paper = FeaturePredictionEncoder.with_paper_settings(z=8, max_epochs=1, random_state=0)
    >>> ConvergenceDisplay.from_estimator(paper.fit(images), name="paper", ax=display.ax_)
    <skfp.displays.ConvergenceDisplay object at ...>
    """

    train_line_: Any
    valid_line_: Any
    ax_: Any
    figure_: Any

    def __init__(self, *, history: list[dict[str, Any]], name: str | None = None) -> None:
        self.history = history
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        x: str = "epoch",
        relative: bool = False,
        name: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw the losses of a fitted estimator.

        Parameters
        ----------
        estimator : estimator instance
            A fitted encoder of this package, or a pipeline that ends in one.
        x : {"epoch", "seconds"}, default="epoch"
            Whether the losses are drawn over epochs or over training time in seconds.
        relative : bool, default=False
            Whether each curve is divided by its first value, which is that after epoch 1. Curves
            of different losses can be compared only that way.
        name : str, default=None
            What the legend calls the curves. If None, the name of the estimator's class.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into. If None, a new figure is made.

        Returns
        -------
        display : ConvergenceDisplay

        Raises
        ------
        TypeError
            If the estimator is not one of this package.
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If `x` is unknown.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        estimator, _ = _unwrap(estimator)
        name = type(estimator).__name__ if name is None else name
        return cls(history=estimator.history_, name=name).plot(x=x, relative=relative, ax=ax)

    def plot(
        self,
        *,
        x: str = "epoch",
        relative: bool = False,
        name: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw the losses.

        Parameters
        ----------
        x : {"epoch", "seconds"}, default="epoch"
            Whether the losses are drawn over epochs or over training time in seconds.
        relative : bool, default=False
            Whether each curve is divided by its first value, which is that after epoch 1.
        name : str, default=None
            What the legend calls the curves. If None, the name given to the constructor.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into. If None, a new figure is made.

        Returns
        -------
        display : ConvergenceDisplay
            The object itself, with the drawn artists as attributes.

        Raises
        ------
        ValueError
            If `x` is unknown.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt
        from matplotlib.ticker import MaxNLocator

        if x not in _X_LABELS:
            raise ValueError(f"x is {x!r}. Expected one of {sorted(_X_LABELS)}.")
        epochs = np.array([row["epoch"] for row in self.history])
        seconds = np.cumsum([row["seconds"] for row in self.history])
        positions = epochs if x == "epoch" else seconds
        train_loss = np.array([row["train_loss"] for row in self.history])
        validated = np.array(["valid_loss" in row for row in self.history])
        valid_loss = np.array([row["valid_loss"] for row in self.history if "valid_loss" in row])

        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        n_before = sum(line.get_gid() == _TRAINING_LINE for line in ax.lines)
        shade, mark = _LINES[n_before % len(_LINES)]
        color = plt.get_cmap(_COLORMAP)(shade)
        name = self.name if name is None else name
        prefix = "" if name is None else f"{name}, "

        (self.train_line_,) = ax.plot(
            positions,
            train_loss / train_loss[0] if relative else train_loss,
            color=color,
            linestyle="--",
            linewidth=1,
            marker=".",
            markersize=3,
            label=f"{prefix}training",
            gid=_TRAINING_LINE,
        )
        self.valid_line_ = None
        if validated.any():
            best = int(valid_loss.argmin())
            (self.valid_line_,) = ax.plot(
                positions[validated],
                valid_loss / valid_loss[0] if relative else valid_loss,
                color=color,
                marker=mark,
                markevery=[best],
                markersize=8,
                label=f"{prefix}validation (best: epoch {epochs[validated][best]})",
            )
        ax.set(
            xlabel=_X_LABELS[x],
            ylabel="Loss relative to that after epoch 1" if relative else "Loss",
        )
        if x == "epoch":
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend()
        return self


class ReconstructionDisplay:
    """Images above, and what an autoencoder decodes from their embeddings below.

    Use :meth:`from_estimator` to make one.

    Parameters
    ----------
    images : ndarray of shape (n, height, width, 3)
        The originals, RGB in [0, 1].
    reconstructions : ndarray of shape (n, height, width, 3)
        The decoded images, RGB in [0, 1].

    Attributes
    ----------
    axes_ : ndarray of shape (2, n)
        Axes of the originals, in the first row, and of the reconstructions.
    figure_ : matplotlib.figure.Figure
        Figure that contains the axes.

    See Also
    --------
    FeatureErrorDisplay : The same question to an encoder that decodes no images.

    Examples
    --------
    >>> import numpy as np
    >>> from skfp import PixelAutoencoder
    >>> from skfp.displays import ReconstructionDisplay
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    >>> autoencoder = PixelAutoencoder(z=8, max_epochs=1, random_state=0).fit(images)
    >>> display = ReconstructionDisplay.from_estimator(autoencoder, images, n_images=5)
    >>> display.axes_.shape
    (2, 5)
    """

    axes_: np.ndarray
    figure_: Any

    def __init__(self, *, images: np.ndarray, reconstructions: np.ndarray) -> None:
        self.images = images
        self.reconstructions = reconstructions

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, *, n_images: int = 8, ax: Any = None) -> Self:
        """Embed, decode and draw images.

        Parameters
        ----------
        estimator : PerceptualAutoencoder or PixelAutoencoder
            A fitted estimator that decodes images.
        X : array-like
            Images of the size and channels that fit has seen.
        n_images : int, default=8
            How many images to draw; the first ones of X.
        ax : matplotlib.axes.Axes, default=None
            Axes of a subplot grid whose place the panels take. If None, a new figure is made.

        Returns
        -------
        display : ReconstructionDisplay

        Raises
        ------
        TypeError
            If the estimator is not one of this package, or decodes no images.
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If X is not what the estimator can embed.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        estimator, X = _unwrap(estimator, _first(X, n_images))
        if not hasattr(estimator, "inverse_transform"):
            raise TypeError(
                f"{type(estimator).__name__} decodes no images (it has no inverse_transform). Use "
                "PerceptualAutoencoder or PixelAutoencoder, or look at a FeatureErrorDisplay."
            )
        decoded = estimator.inverse_transform(estimator.transform(X))
        display = cls(images=estimator._rgb(X), reconstructions=estimator._rgb(decoded))
        return display.plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw the images.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes of a subplot grid whose place the panels take. If None, a new figure is made.

        Returns
        -------
        display : ReconstructionDisplay
            The object itself, with the axes as attributes.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        n_images = len(self.images)
        self.axes_ = _panels(ax, 2, n_images, (1.2 * n_images + 0.3, 2.5))
        self.figure_ = self.axes_[0, 0].figure
        rows = (("Original", self.images), ("Reconstruction", self.reconstructions))
        for axes, (label, images) in zip(self.axes_, rows, strict=True):
            axes[0].set_ylabel(label)
            for panel, image in zip(axes, images, strict=True):
                panel.imshow(image)
        return self


class FeatureErrorDisplay:
    """Where in images an encoder predicts badly what its loss network sees.

    Heat maps over the greyed images, all on one colour scale. Use :meth:`from_estimator` to make
    one.

    Parameters
    ----------
    images : ndarray of shape (n, height, width, 3)
        RGB in [0, 1].
    errors : ndarray of shape (n, rows, columns)
        Squared error of the predicted features at each location of the loss network's output,
        mean over its channels.

    Attributes
    ----------
    axes_ : ndarray of shape (n,)
        Axes of the images.
    colorbar_ : matplotlib.colorbar.Colorbar
        The colour scale of all of them.
    figure_ : matplotlib.figure.Figure
        Figure that contains the axes.

    See Also
    --------
    ReconstructionDisplay : What an autoencoder makes of images.

    Notes
    -----
    A map is stretched over the canvas that the loss network sees, which is the image, or the tiled
    image where that has less than 64 pixels. A feature sees more of the image than the
    field that is drawn for it.

    Examples
    --------
    >>> import numpy as np
    >>> from skfp import FeaturePredictionEncoder
    >>> from skfp.displays import FeatureErrorDisplay
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    >>> encoder = FeaturePredictionEncoder(z=8, max_epochs=1, random_state=0).fit(images)
    >>> display = FeatureErrorDisplay.from_estimator(encoder, images, n_images=5)
    >>> display.errors.shape
    (5, 7, 7)
    """

    axes_: np.ndarray
    colorbar_: Any
    figure_: Any

    def __init__(self, *, images: np.ndarray, errors: np.ndarray) -> None:
        self.images = images
        self.errors = errors

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, *, n_images: int = 8, ax: Any = None) -> Self:
        """Predict the features of images, and draw the errors.

        Parameters
        ----------
        estimator : estimator instance
            A fitted encoder of this package that has a loss network.
        X : array-like
            Images of the size and channels that fit has seen.
        n_images : int, default=8
            How many images to draw; the first ones of X.
        ax : matplotlib.axes.Axes, default=None
            Axes of a subplot grid whose place the panels take. If None, a new figure is made.

        Returns
        -------
        display : FeatureErrorDisplay

        Raises
        ------
        TypeError
            If the estimator is not one of this package.
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the estimator has no loss network, or X is not what it can embed.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        estimator, X = _unwrap(estimator, _first(X, n_images))
        errors = estimator._feature_error_maps(X)
        return cls(images=estimator._rgb(X), errors=errors).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw the errors over the images.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes of a subplot grid whose place the panels take. If None, a new figure is made.

        Returns
        -------
        display : FeatureErrorDisplay
            The object itself, with the drawn artists as attributes.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        n_images, height, width = self.images.shape[:3]
        n_columns = min(n_images, 4)
        n_rows = math.ceil(n_images / n_columns)
        panels = _panels(ax, n_rows, n_columns, (1.8 * n_columns + 1, max(1.8 * n_rows, 3))).ravel()
        for panel in panels[n_images:]:
            panel.remove()
        self.axes_ = panels[:n_images]
        self.figure_ = self.axes_[0].figure
        canvas_height, canvas_width = Preprocess((height, width)).output_size
        for panel, image, errors in zip(self.axes_, self.images, self.errors, strict=True):
            # Of low contrast, so that it shows through the colours without being read as one.
            panel.imshow(image.mean(axis=-1), cmap="gray", vmin=-0.4, vmax=1.4)
            heat = panel.imshow(
                errors,
                cmap="inferno",
                vmin=0,
                vmax=self.errors.max(),
                alpha=0.65,
                extent=(-0.5, canvas_width - 0.5, canvas_height - 0.5, -0.5),
            )
            panel.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        self.colorbar_ = self.figure_.colorbar(
            heat, ax=list(self.axes_), label="Squared error of the features\n(mean over channels)"
        )
        # The heat maps are seen on grey, and so is their scale.
        self.colorbar_.ax.set_facecolor("0.5")
        return self


class EmbeddingDisplay:
    """Embeddings of images projected to a plane, with thumbnails of some of the images.

    Use :meth:`from_estimator` to make one.

    Parameters
    ----------
    positions : ndarray of shape (n, 2)
        Where the images lie in the plane.
    thumbnails : ndarray of shape (n_thumbnails, height, width, 3)
        Some of the images, RGB in [0, 1].
    thumbnail_indices : ndarray of shape (n_thumbnails,)
        Which rows of `positions` belong to them.
    y : array-like of shape (n,), default=None
        Classes or continuous values that colour the dots and the frames of the thumbnails; more
        than 12 different numbers count as continuous. The name of a Series is written beside the
        colours.
    axis_labels : sequence of str, default=("Component 1", "Component 2")
        What the two axes are.

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
    ReconstructionDisplay : What the embeddings of an autoencoder hold.

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
            Images of the size and channels that fit has seen.
        y : array-like of shape (n,), default=None
            Classes or continuous values that colour the dots and the frames of the thumbnails;
            more than 12 different numbers count as continuous. The name of a Series is written
            beside the colours.
        projection : transformer, default=None
            A clone of it projects the embedding to two dimensions by its `fit_transform`. If
            None, the two leading principal components.
        n_thumbnails : int, default=100
            How many images to draw at most. They are chosen far from each other in the plane, and
            fewer where more would cover each other.
        random_state : int, RandomState instance or None, default=None
            Determines the first thumbnail, from which the others follow, and the principal
            components where z is large.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into. If None, a new figure is made.

        Returns
        -------
        display : EmbeddingDisplay

        Raises
        ------
        TypeError
            If the estimator is not one of this package.
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If X is not what the estimator can embed, y is not a value per image, or the
            projection is not to two dimensions.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        check_scalar(n_thumbnails, "n_thumbnails", Integral, min_val=1)
        check_consistent_length(X, y)
        estimator, X = _unwrap(estimator, X)
        embedding = estimator.transform(X)
        if isinstance(embedding, torch.Tensor):
            embedding = embedding.cpu()
        projection = PCA(2, random_state=random_state) if projection is None else clone(projection)
        positions = np.asarray(projection.fit_transform(np.asarray(embedding)))
        if positions.shape != (len(embedding), 2):
            raise ValueError(
                f"{type(projection).__name__} projects the embedding to shape {positions.shape}. "
                f"Expected {(len(embedding), 2)}: set it to two components."
            )
        indices = _spread(positions, n_thumbnails, random_state)
        if isinstance(projection, PCA):
            axis_labels = [
                f"Principal component {i} ({share:.0%} of the variance)"
                for i, share in enumerate(projection.explained_variance_ratio_, start=1)
            ]
        else:
            axis_labels = [f"{type(projection).__name__} {i}" for i in (1, 2)]
        display = cls(
            positions=positions,
            thumbnails=estimator._rgb(_safe_indexing(X, indices)),
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

        Raises
        ------
        ValueError
            If y is not a value per image.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt
        from matplotlib.offsetbox import AnnotationBbox, OffsetImage

        y, classes = None, None
        if self.y is not None:
            y = column_or_1d(self.y)
            names = np.unique(y)
            is_scale = names.dtype.kind in "iuf" and len(names) > _MAX_CLASSES
            if type_of_target(y) != "continuous" and not is_scale:
                y, classes = np.searchsorted(names, y), names

        if ax is None:
            _, ax = plt.subplots(figsize=(7.5, 6.5), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        coloring = {"color": "0.35"} if y is None else {"c": y, **_coloring(classes)}
        self.points_ = ax.scatter(*self.positions.T, s=8, linewidths=0, **coloring)
        # Else the thumbnails at the border would reach over it.
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
        # Neighbours leave the dots between them to be seen, unless the images became too small.
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


def _unwrap(estimator: Any, X: Any = None) -> tuple[BaseImageEncoder, Any]:
    """Find the encoder at the end of a pipeline, and what the steps before it make of X."""
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


def _first(X: Any, n_images: int) -> Any:
    check_scalar(n_images, "n_images", Integral, min_val=1)
    return _safe_indexing(X, slice(n_images))


def _panels(ax: Any, n_rows: int, n_columns: int, figsize: tuple[float, float]) -> np.ndarray:
    """Axes for images, in a new figure or in the place of one axes."""
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


def _coloring(classes: np.ndarray | None) -> dict[str, Any]:
    """How a scatter plot colours continuous values, or the numbers of classes."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import BoundaryNorm, ListedColormap

    n_colors = 256 if classes is None else len(classes)
    # Without the ends, which are black and white.
    colors = ListedColormap(plt.get_cmap(_COLORMAP)(np.linspace(0.2, 0.85, n_colors)))
    if classes is None:
        return {"cmap": colors}
    return {"cmap": colors, "norm": BoundaryNorm(np.arange(n_colors + 1) - 0.5, n_colors)}


def _spread(positions: np.ndarray, n: int, random_state: Any) -> np.ndarray:
    """Choose points far from each other: each next one is the farthest from those before.

    Parameters
    ----------
    positions : ndarray of shape (n_points, 2)
    n : int
        How many to choose at most. Fewer are chosen where the next would be nearer than the
        squares of a grid of n over the span of all points.
    random_state : int, RandomState instance or None
        Determines the first point.

    Returns
    -------
    indices : ndarray of shape (n_chosen,)
    """
    gap = np.ptp(positions, axis=0).max() / math.sqrt(n)
    farthest = int(check_random_state(random_state).randint(len(positions)))
    chosen = [farthest]
    distance = np.full(len(positions), np.inf)
    while len(chosen) < n:
        # Chebyshev, as the images are upright squares.
        new = np.abs(positions - positions[farthest]).max(axis=1)
        distance = np.minimum(distance, new)
        farthest = int(distance.argmax())
        if distance[farthest] <= gap:
            break
        chosen.append(farthest)
    return np.array(chosen)
