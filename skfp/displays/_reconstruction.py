"""Images beside their reconstructions."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.utils._optional_dependencies import check_matplotlib_support

from ._common import first_images, make_panels, unwrap


class ReconstructionDisplay:
    """Images in the upper row, their reconstructions by an autoencoder in the lower row.

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
    FeatureErrorDisplay : Errors of an encoder that decodes no images.

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
            Images of the size and channels of those in fit, in any container that fit accepts.
        n_images : int, default=8
            Number of images to draw, from the first of X on.
        ax : matplotlib.axes.Axes, default=None
            Axes in a grid of subplots, to be replaced by the panels. If None, a new figure is made.

        Returns
        -------
        display : ReconstructionDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        estimator, X = unwrap(estimator, first_images(X, n_images))
        if not hasattr(estimator, "inverse_transform"):
            raise TypeError(
                f"{type(estimator).__name__} decodes no images (it has no inverse_transform). Use "
                "PerceptualAutoencoder or PixelAutoencoder, or a FeatureErrorDisplay."
            )
        decoded = estimator.inverse_transform(estimator.transform(X))
        display = cls(images=estimator._rgb(X), reconstructions=estimator._rgb(decoded))
        return display.plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw the images.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes in a grid of subplots, to be replaced by the panels. If None, a new figure is made.

        Returns
        -------
        display : ReconstructionDisplay
            The object itself, with the axes as attributes.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        n_images = len(self.images)
        self.axes_ = make_panels(ax, 2, n_images, (1.2 * n_images + 0.3, 2.5))
        self.figure_ = self.axes_[0, 0].figure
        rows = (("Original", self.images), ("Reconstruction", self.reconstructions))
        for axes, (label, images) in zip(self.axes_, rows, strict=True):
            axes[0].set_ylabel(label)
            for panel, image in zip(axes, images, strict=True):
                panel.imshow(image)
        return self
