"""Errors of predicted features, as heat maps over the images."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from sklearn.utils._optional_dependencies import check_matplotlib_support

from ._common import first_images, make_panels, unwrap


class FeatureErrorDisplay:
    """Where in the images an encoder predicts the features of its loss network badly.

    Heat maps over the images in grey, on one colour scale. Use :meth:`from_estimator` to make one.

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
    ReconstructionDisplay : Images that an autoencoder decodes.

    Notes
    -----
    A map is stretched over the input of the loss network: the image, or the tiled image where that
    has less than 64 pixels. The receptive field of a feature is larger than the field that is
    drawn for it.

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
            Images of the size and channels of those in fit, in any container that fit accepts.
        n_images : int, default=8
            Number of images to draw, from the first of X on.
        ax : matplotlib.axes.Axes, default=None
            Axes in a grid of subplots, to be replaced by the panels. If None, a new figure is made.

        Returns
        -------
        display : FeatureErrorDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        estimator, X = unwrap(estimator, first_images(X, n_images))
        errors = estimator._feature_error_maps(X)
        return cls(images=estimator._rgb(X), errors=errors).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw the errors over the images.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes in a grid of subplots, to be replaced by the panels. If None, a new figure is made.

        Returns
        -------
        display : FeatureErrorDisplay
            The object itself, with the drawn artists as attributes.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        n_images, height, width = self.images.shape[:3]
        n_columns = min(n_images, 4)
        n_rows = math.ceil(n_images / n_columns)
        panels = make_panels(
            ax, n_rows, n_columns, (1.8 * n_columns + 1, max(1.8 * n_rows, 3))
        ).ravel()
        for panel in panels[n_images:]:
            panel.remove()
        self.axes_ = panels[:n_images]
        self.figure_ = self.axes_[0].figure
        for panel, image, errors in zip(self.axes_, self.images, self.errors, strict=True):
            # Low contrast, so that no grey is read as a colour of the heat map.
            panel.imshow(image.mean(axis=-1), cmap="gray", vmin=-0.4, vmax=1.4)
            heat = panel.imshow(
                errors,
                cmap="inferno",
                vmin=0,
                vmax=self.errors.max(),
                alpha=0.65,
                extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            )
            panel.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        self.colorbar_ = self.figure_.colorbar(
            heat, ax=list(self.axes_), label="Squared error of the features\n(mean over channels)"
        )
        # The heat maps lie on grey, and so does their scale.
        self.colorbar_.ax.set_facecolor("0.5")
        return self
