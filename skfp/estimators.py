"""The three public encoders: each names its decoder, its target and its loss."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils import check_array, gen_batches
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skfp.base import BaseImageEncoder, Objective
from skfp.coders import FeatureDecoder, ImageDecoder
from skfp.loss_network import LossNetwork
from skfp.losses import (
    ComponentPredictionLoss,
    FeaturePredictionLoss,
    PerceptualLoss,
    PixelLoss,
)
from skfp.targets import View


class FeaturePredictionEncoder(BaseImageEncoder):
    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseImageEncoder._parameter_constraints,
        "target_components": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
            None,
        ],
    }

    def __init__(
        self,
        z: int = 128,
        *,
        encoder: str = "image",
        loss_network: Any = "alexnet",
        target_components: int | str | None = "auto",
        image_shape: Sequence[int] | None = None,
        max_epochs: int = 50,
        batch_size: int = 128,
        lr: float = 1e-3,
        lr_schedule: str | None = None,
        validation_fraction: float = 0.2,
        patience: int = 10,
        gamma: float = 0.0,
        memory: Any = None,
        precision: str = "auto",
        device: str | torch.device = "auto",
        random_state: Any = None,
        verbose: int = 0,
        callbacks: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(
            z,
            encoder=encoder,
            loss_network=loss_network,
            image_shape=image_shape,
            max_epochs=max_epochs,
            batch_size=batch_size,
            lr=lr,
            lr_schedule=lr_schedule,
            validation_fraction=validation_fraction,
            patience=patience,
            gamma=gamma,
            memory=memory,
            precision=precision,
            device=device,
            random_state=random_state,
            verbose=verbose,
            callbacks=callbacks,
        )
        self.target_components = target_components

    def _make_objective(self, view: View) -> Objective:
        if self.target_components is None:
            decoder = FeatureDecoder(self.z, view.n_features)
            return Objective(decoder, FeaturePredictionLoss(), nn.Identity())
        components = view.components(self.target_components)
        decoder = FeatureDecoder(self.z, view.n_features, len(components.basis))
        return Objective(decoder, ComponentPredictionLoss(view.n_features), components)


class _ImageAutoencoder(BaseImageEncoder):
    """An encoder whose decoder gives images."""

    def __init__(
        self,
        z: int = 128,
        *,
        encoder: str = "image",
        loss_network: Any = "alexnet",
        image_shape: Sequence[int] | None = None,
        max_epochs: int = 50,
        batch_size: int = 128,
        lr: float = 1e-3,
        lr_schedule: str | None = None,
        validation_fraction: float = 0.2,
        patience: int = 10,
        gamma: float = 0.0,
        memory: Any = None,
        precision: str = "auto",
        device: str | torch.device = "auto",
        random_state: Any = None,
        verbose: int = 0,
        callbacks: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(
            z,
            encoder=encoder,
            loss_network=loss_network,
            image_shape=image_shape,
            max_epochs=max_epochs,
            batch_size=batch_size,
            lr=lr,
            lr_schedule=lr_schedule,
            validation_fraction=validation_fraction,
            patience=patience,
            gamma=gamma,
            memory=memory,
            precision=precision,
            device=device,
            random_state=random_state,
            verbose=verbose,
            callbacks=callbacks,
        )

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Decode embeddings to images.

        Parameters
        ----------
        X : array-like of shape (n, z)
            Embeddings.

        Returns
        -------
        images : ndarray of shape (n, *image shape in fit)
            In the layout and range of the images in fit: uint8, or float32 between the least and
            the greatest value seen there.

        Raises
        ------
        NotFittedError
            If fit was not called before.
        ValueError
            If X does not have z columns.
        """
        check_is_fitted(self)
        embedding = check_array(X, dtype=np.float32)
        if embedding.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {embedding.shape[1]} columns, but embeddings have z="
                f"{self._n_features_out}. Pass what transform returned."
            )
        images = []
        with torch.inference_mode():
            for rows in gen_batches(len(embedding), self.batch_size):
                decoded = self._canvas.crop(self.decoder_(torch.from_numpy(embedding[rows])))
                images.append(self._format.from_batch(decoded))
        return np.concatenate(images)


class PerceptualAutoencoder(_ImageAutoencoder):
    def _make_objective(self, view: View) -> Objective:
        decoder = ImageDecoder(self.z, self._canvas.canvas_size)
        return Objective(decoder, PerceptualLoss(self.loss_network_), nn.Identity())


class PixelAutoencoder(_ImageAutoencoder):
    def _load_loss_network(self) -> LossNetwork | None:
        return super()._load_loss_network() if self.encoder == "features" else None

    def _make_objective(self, view: View) -> Objective:
        decoder = ImageDecoder(self.z, self._canvas.canvas_size)
        return Objective(decoder, PixelLoss(self._canvas), None)
