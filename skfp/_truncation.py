"""Fewer numbers after fit: the embedding in the directions that the decoder makes most of."""

from __future__ import annotations

import copy
import dataclasses
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_scalar, gen_batches
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ._features import BATCH_SIZE
from ._utils.sampling import evenly_spaced

# Their covariance is all that is needed.
N_IMAGES = 4096


class TruncationMixin:
    """Embeddings of any size up to z from one fit."""

    def truncate(self: Any, z: int, X: Any) -> Any:
        """Make an encoder of fewer numbers, by falling importance, without training.

        The new numbers are the principal components of what the embedding adds to the decoder's
        first layer. As that layer and the encoder's last one are linear, both are rotated and cut:
        with all z numbers the decoder gives what it gave before, and each smaller embedding is the
        beginning of a larger one. So `transform` of an encoder that was truncated to its own z can
        be cut to its first numbers for any smaller one.

        Parameters
        ----------
        z : int
            How many numbers to keep, at most as many as the embedding has.
        X : array-like
            Images like those in fit, such as some of them; a few times as many as `z` at least.
            Of more than 4,096, so many all over X are used.

        Returns
        -------
        encoder : object
            A fitted copy with another `z`. It has no `validation_loss_`; `warm_start` can train it
            further.

        Raises
        ------
        NotFittedError
            If fit was not called before.
        ValueError
            If `z` is larger than the embedding or the decoder's first layer, or not smaller than
            the number of images; or the encoder is variational (``gamma > 0``), whose variances
            cannot be rotated.

        Examples
        --------
        >>> import numpy as np
        >>> from skfp import FeaturePredictionEncoder
        >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
        >>> encoder = FeaturePredictionEncoder(z=8, max_epochs=1, random_state=0).fit(images)
        >>> encoder.truncate(3, images).transform(images).shape
        (20, 3)
        """
        check_is_fitted(self)
        state, networks = self._state, self._state.networks
        encoder, decoder = copy.deepcopy((networks.encoder, networks.decoder))
        first_layer = next(layer for layer in decoder.modules() if isinstance(layer, nn.Linear))
        most = min(self._n_features_out, first_layer.out_features)
        check_scalar(z, "z", Integral, min_val=1, max_val=most)
        if networks.variance_head is not None:
            raise ValueError(
                "This encoder is variational, and its variances cannot be rotated. Fit one with "
                f"z={z}, or with gamma=0."
            )
        images, _ = self._check_images(X)
        if len(images) <= z:
            raise ValueError(
                f"X holds {len(images)} images, too few to tell z={z} numbers by importance. Pass "
                "several times as many images as z."
            )
        rows = evenly_spaced(len(images), N_IMAGES)
        embedder = state.embedder(networks.encoder)
        with torch.inference_mode():
            embedding = torch.cat(
                [embedder(images.read(rows[b]).cpu()) for b in gen_batches(len(rows), BATCH_SIZE)]
            )
        _rotate(encoder.head, first_layer, embedding.numpy().astype(float), int(z))
        truncated = type(self)(**{**self.get_params(deep=False), "z": z})
        truncated._state = dataclasses.replace(
            state,
            architecture=state.architecture.replace(z=z),
            networks=networks._replace(encoder=encoder, decoder=decoder),
            validation_loss=None,
            report=None,
            optimizer_state={},
        )
        return truncated


def _rotate(head: nn.Linear, layer: nn.Linear, embedding: np.ndarray, z: int) -> None:
    """Rotate the output of one layer and the input of another, in place, and keep z numbers."""
    mean = embedding.mean(axis=0)
    weight, bias = (p.detach().numpy().astype(float) for p in (layer.weight, layer.bias))
    # triangle.T @ triangle is, but for a factor, the covariance of the embedding.
    triangle: np.ndarray = np.linalg.qr(embedding - mean, mode="r")  # type: ignore[assignment]
    directions = np.linalg.svd(weight @ triangle.T, full_matrices=False)[0][:, :z]
    rotation = directions.T @ weight
    head_weight, head_bias = (p.detach().numpy().astype(float) for p in (head.weight, head.bias))
    _set(head, rotation @ head_weight, rotation @ (head_bias - mean))
    _set(layer, directions, bias + weight @ mean)


def _set(layer: nn.Linear, weight: np.ndarray, bias: np.ndarray) -> None:
    layer.weight = nn.Parameter(torch.from_numpy(weight.astype(np.float32)))
    layer.bias = nn.Parameter(torch.from_numpy(bias.astype(np.float32)))
    layer.out_features, layer.in_features = weight.shape
