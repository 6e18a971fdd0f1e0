"""The scikit-learn contract that the three encoders share, whichever loss they train with."""

from __future__ import annotations

import math
import os
from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from skfp.coders import FeatureEncoder, ImageEncoder, fold_batch_norm
from skfp.images import Images, check_images, check_images_like
from skfp.loss_network import LossNetwork, load_loss_network
from skfp.preprocessing import Canvas
from skfp.targets import Features, compute
from skfp.training import Autoencoder, TrainingSet, fit_coders


class Objective(NamedTuple):
    """What an encoder is trained for."""

    decoder: nn.Module
    loss: nn.Module
    # From features to targets; None where the images themselves are the targets.
    target: nn.Module | None
    n_targets: int


class BaseImageEncoder(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, metaclass=ABCMeta
):
    """Base of the estimators that learn to turn each image into z numbers.

    A subclass says what the decoder predicts and which loss compares it (`_make_objective`);
    everything else is here.
    """

    _parameter_constraints: dict = {
        "z": [Interval(Integral, 1, None, closed="left")],
        "encoder": [StrOptions({"image", "features"})],
        "loss_network": [str, os.PathLike, nn.Module],
        "image_shape": [tuple, list, None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "lr_schedule": [StrOptions({"one-cycle"}), None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "gamma": [Interval(Real, 0, None, closed="left")],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "callbacks": [list, tuple, None],
    }

    @abstractmethod
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
        precision: str = "auto",
        device: str | torch.device = "auto",
        random_state: Any = None,
        verbose: int = 0,
        callbacks: Sequence[Any] | None = None,
    ) -> None:
        self.z = z
        self.encoder = encoder
        self.loss_network = loss_network
        self.image_shape = image_shape
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.gamma = gamma
        self.precision = precision
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.callbacks = callbacks

    @abstractmethod
    def _make_objective(
        self, source: Images | Features, see: nn.Module, n_features: int, seed: int
    ) -> Objective:
        """Say what the decoder predicts of the images and how it is judged.

        Parameters
        ----------
        source : Images or Features
            What the training images are read from.
        see : nn.Module
            Maps a batch of `source` to features.
        n_features : int
            Number of features of one image; 0 where no loss network is needed.
        seed : int
            Seed of random choices.
        """

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, *, X_val: Any = None) -> Self:
        """Pretrain the encoder on images.

        Parameters
        ----------
        X : array-like of shape (n, height, width, channels), (n, channels, height, width), \
                (n, height, width) or (n, n_pixels)
            Images, at least 16 by 16 pixels, with 1 (grey), 3 (RGB) or 4 (RGBA, alpha ignored)
            channels. uint8 is read as 0 to 255, floats in [0, 1] as they are, any other range is
            scaled by the range seen here. Images of less than 64 pixels are tiled.
        y : Ignored
            Not used, present by convention.
        X_val : array-like, default=None
            Images to judge epochs by. By default, a random `validation_fraction` of X is held out.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If X holds no images, or images that are not finite or too small, or the loss network
            is unknown or cannot look at images of that size.
        """
        images = self._check_images(X, reset=True)
        valid_images = None if X_val is None else self._check_images(X_val, reset=False)
        self._check_n_samples(len(images), valid_images is not None)
        device = _choose_device(self.device)
        random = check_random_state(self.random_state)
        seed = int(random.randint(np.iinfo(np.int32).max))

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            canvas = Canvas(self._format.size)
            self.loss_network_ = self._load_loss_network()
            n_features = 0
            see: nn.Module = canvas
            if self.loss_network_ is not None:
                see = nn.Sequential(canvas, self.loss_network_).to(device)
                n_features = self.loss_network_.n_features(canvas.canvas_size)

            encoder: nn.Module
            if self.encoder == "features":
                encoder = FeatureEncoder(n_features, self.z)
                inputs, valid_inputs = (
                    None if part is None else compute(part, _OnDevice(see, device), n_features)
                    for part in (images, valid_images)
                )
                prepare: nn.Module = nn.Identity()
                see = nn.Identity()
            else:
                encoder = ImageEncoder(canvas.canvas_size, self.z)
                inputs, valid_inputs, prepare = images, valid_images, canvas

            see = _OnDevice(see, device)
            objective = self._make_objective(inputs, see, n_features, seed)
            self._target = objective.target
            autoencoder = Autoencoder(prepare, encoder, objective.decoder, self.gamma > 0)

            def training_set(images, inputs, rows):
                if objective.target is None:
                    return TrainingSet(inputs, images, rows)
                if isinstance(inputs, Features) and isinstance(objective.target, nn.Identity):
                    return TrainingSet(inputs, inputs, rows)
                project = nn.Sequential(see, objective.target.to(device))
                return TrainingSet(inputs, compute(inputs, project, objective.n_targets), rows)

            rows = np.arange(len(images))
            if valid_images is None:
                train_rows, valid_rows = train_test_split(
                    rows, test_size=self.validation_fraction, random_state=seed
                )
                train = training_set(images, inputs, train_rows)
                valid = TrainingSet(train.inputs, train.targets, valid_rows)
            else:
                train = training_set(images, inputs, rows)
                valid = training_set(valid_images, valid_inputs, np.arange(len(valid_images)))

            net = fit_coders(
                autoencoder,
                objective.loss,
                train,
                valid,
                max_epochs=self.max_epochs,
                batch_size=self.batch_size,
                lr=self.lr,
                lr_schedule=self.lr_schedule,
                patience=self.patience,
                gamma=self.gamma,
                device=device,
                autocast=self.precision == "bfloat16"
                or (self.precision == "auto" and device.type == "cuda"),
                seed=seed,
                verbose=int(self.verbose),
                callbacks=self.callbacks or (),
            )

        self.encoder_ = autoencoder.encoder.cpu().eval()
        self.decoder_ = autoencoder.decoder.cpu().eval()
        self._loss = objective.loss.cpu()
        for module in (self.loss_network_, self._target):
            if module is not None:
                module.cpu()
        self.n_parameters_ = sum(p.numel() for p in autoencoder.parameters() if p.requires_grad)
        self.history_ = [
            {
                "epoch": row["epoch"],
                "train_loss": row["train_loss"],
                "valid_loss": row["valid_loss"],
                "seconds": row["dur"],
            }
            for row in net.history
        ]
        best = min(self.history_, key=lambda row: row["valid_loss"])
        self.best_epoch_ = best["epoch"]
        self.validation_loss_ = best["valid_loss"]
        self.n_epochs_ = len(self.history_)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Embed images.

        Parameters
        ----------
        X : array-like
            Images of the size and channels that fit has seen, in the same layout or flattened.

        Returns
        -------
        embedding : ndarray of shape (n, z), dtype float32

        Raises
        ------
        NotFittedError
            If fit was not called before.
        ValueError
            If the images are of another size, channel count or value range than in fit.
        """
        check_is_fitted(self)
        images = self._check_images(X, reset=False)
        device = _choose_device(self.device)
        embed = nn.Sequential(self._to_inputs(), fold_batch_norm(self.encoder_))
        embed = embed.to(device, memory_format=torch.channels_last)
        return compute(images, _OnDevice(embed, device), self.z, in_memory=True).array

    def score(self, X: Any, y: Any = None) -> float:
        """Negative loss on images, so that larger is better.

        Parameters
        ----------
        X : array-like
            Images of the size and channels that fit has seen.
        y : Ignored
            Not used, present by convention.

        Returns
        -------
        score : float
            The negative mean of the loss (equation 1, 2 or 3 of the paper) over the images. It
            can be compared between settings of one estimator, not between the losses.

        Raises
        ------
        NotFittedError
            If fit was not called before.
        """
        check_is_fitted(self)
        images = self._check_images(X, reset=False)
        canvas = Canvas(self._format.size)
        total = 0.0
        with torch.inference_mode():
            for rows in gen_batches(len(images), self.batch_size):
                batch = images.read(rows)
                pixels = canvas(batch)
                features = None if self.loss_network_ is None else self.loss_network_(pixels)
                decoded = self.decoder_(
                    self.encoder_(features if self.encoder == "features" else pixels)
                )
                target = batch if self._target is None else self._target(features)
                total += self._loss(decoded, target).item() * len(batch)
        return -total / len(images)

    @property
    def _n_features_out(self) -> int:
        return self.encoder_.head.out_features

    def _load_loss_network(self) -> LossNetwork | None:
        return load_loss_network(self.loss_network)

    def _to_inputs(self) -> nn.Module:
        """The fitted map from stored images to what the encoder takes."""
        canvas = Canvas(self._format.size)
        if self.encoder == "features":
            return nn.Sequential(canvas, self.loss_network_)
        return canvas

    def _check_images(self, X: Any, *, reset: bool) -> Images:
        if not reset:
            images = check_images_like(X, self._format)
        else:
            images = check_images(X, self.image_shape)
        if np.ndim(X) == 2:
            validate_data(self, X, skip_check_array=True, reset=reset)
        if reset:
            self._format = images.format
            self.image_shape_ = images.format.image_shape
            self.n_features_in_ = math.prod(images.format.shape)
        return images

    def _check_n_samples(self, n_images: int, has_validation_images: bool) -> None:
        if n_images < 2 and not has_validation_images:
            raise ValueError(
                "X holds one image (n_samples=1), which leaves nothing to validate on. Expected "
                "at least 2 images, or validation images of your own as X_val."
            )
        if not has_validation_images and math.ceil(n_images * self.validation_fraction) >= n_images:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} of {n_images} images leaves none "
                "to train on. Lower it, or pass more images."
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags


class _OnDevice(nn.Module):
    """Moves a batch to a device before a module sees it."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.module = module.to(device)
        self.device = device

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.module(batch.to(self.device, non_blocking=True))


def _choose_device(device: str | torch.device) -> torch.device:
    if device != "auto":
        try:
            return torch.device(device)
        except RuntimeError as error:
            raise ValueError(
                f'device is {device!r}. Expected "auto" or a torch device such as "cpu" or "cuda".'
            ) from error
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
