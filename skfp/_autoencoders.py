"""Autoencoders that decode images and compare their features or their pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array, gen_batches
from sklearn.utils.validation import check_is_fitted

from ._base import BaseImageEncoder
from ._data import encode
from ._docs import fill_docstring
from ._features import BATCH_SIZE
from ._networks import Architecture
from ._networks.encoders import takes_features
from ._utils.devices import choose_device, on_device


class ImageAutoencoder(BaseImageEncoder):
    """An encoder whose decoder gives images."""

    def inverse_transform(self, X: Any) -> Any:
        """Decode embeddings to images.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, z)
            Embeddings.

        Returns
        -------
        images : ndarray or Tensor of shape (n, ...)
            In the layout, size and range of the images in fit: uint8, or float32 between their
            least and greatest value. A tensor, on the device of X, if X is one.

        Raises
        ------
        NotFittedError
            If fit was not called before.
        ValueError
            If X does not have z columns.
        """
        check_is_fitted(self)
        is_tensor = isinstance(X, torch.Tensor)
        device = choose_device(self.device)
        if is_tensor and not X.isfinite().all():
            raise ValueError("Input X contains NaN or infinity. Pass what transform returned.")
        embedding = torch.as_tensor(
            X if is_tensor else check_array(X, dtype=np.float32, force_writeable=True)
        )
        if embedding.ndim != 2 or embedding.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has shape {tuple(embedding.shape)}, but embeddings have z="
                f"{self._n_features_out} columns. Pass what transform returned."
            )
        state, decoder = self._state, on_device(self.decoder_, device)
        images = []
        with torch.no_grad():
            for rows in gen_batches(len(embedding), BATCH_SIZE):
                decoded = decoder(embedding[rows].to(device, torch.float32))
                items = encode(decoded, state.format)
                images.append(items.to(embedding.device))
        return torch.cat(images) if is_tensor else torch.cat(images).numpy()


@fill_docstring(
    image="I-I-PS",
    auto_encoder='"image"',
    features="F-I-PS",
    role="The network that compares images.",
    batch_size="128",
    lr_type="float, default=1e-3",
    lr="the highest one if there is a schedule",
    lr_schedule="None",
    or_none="",
)
class PerceptualAutoencoder(ImageAutoencoder):
    """Image autoencoder trained with deep perceptual similarity (I-I-PS and F-I-PS).

    The decoder gives an image, and the loss compares its features, extracted by a frozen,
    pretrained loss network, with those of the original: equation 2 of the paper [1]_.

    Parameters
    ----------
    <z>
    <encoder>
    <loss_network>
    <max_epochs>
    <parameters>

    Attributes
    ----------
    <attributes>

    See Also
    --------
    FeaturePredictionEncoder : Predicts the features directly; several times faster.
    PixelAutoencoder : Compares pixels.

    References
    ----------
    <references>

    Examples
    --------
    >>> import numpy as np
    >>> from skfp import PerceptualAutoencoder
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    >>> autoencoder = PerceptualAutoencoder(z=8, max_epochs=1, random_state=0)
    >>> embedding = autoencoder.fit_transform(images)
    >>> autoencoder.inverse_transform(embedding).shape
    (20, 64, 64, 3)
    """

    _LOSS = "perceptual"


@fill_docstring(
    image="I-I-PW",
    auto_encoder='"image"',
    features="F-I-PW",
    role='The network that feeds the encoder; without effect unless ``encoder="features"``.',
    batch_size="128",
    lr_type="float, default=1e-3",
    lr="the highest one if there is a schedule",
    lr_schedule="None",
    or_none=" or None",
)
class PixelAutoencoder(ImageAutoencoder):
    """Image autoencoder trained pixel by pixel (I-I-PW and F-I-PW).

    The decoder gives an image, and the loss is its mean squared error: equation 1 of the
    paper [1]_.

    Parameters
    ----------
    <z>
    <encoder>
    <loss_network>
    <max_epochs>
    <parameters>

    Attributes
    ----------
    <attributes>

    See Also
    --------
    FeaturePredictionEncoder : Predicts features of a pretrained network instead of pixels.
    PerceptualAutoencoder : Compares features of a pretrained network.

    References
    ----------
    <references>

    Examples
    --------
    >>> import numpy as np
    >>> from skfp import PixelAutoencoder
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    >>> autoencoder = PixelAutoencoder(z=8, max_epochs=1, random_state=0)
    >>> embedding = autoencoder.fit_transform(images)
    >>> autoencoder.inverse_transform(embedding).dtype
    dtype('uint8')
    """

    _LOSS = "pixels"

    def _architecture(self) -> Architecture:
        architecture = super()._architecture()
        return (
            architecture
            if takes_features(self.encoder)
            else architecture.replace(loss_network=None)
        )
