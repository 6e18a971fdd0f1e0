"""The scikit-learn contract that the three encoders share, whichever loss they train with."""

from __future__ import annotations

import math
import os
import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

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
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from skfp.cache import Cache
from skfp.coders import Encoder, FeatureEncoder, ImageEncoder, fold_batch_norm
from skfp.images import ImageFormat, Images, as_array, check_images, check_images_like
from skfp.loss_network import LossNetwork, load_loss_network
from skfp.preprocessing import Canvas, OnDevice
from skfp.targets import Components, View, compute
from skfp.training import Autoencoder, TrainingSet, fit_coders


class Objective(NamedTuple):
    """What a coder pair is trained for."""

    decoder: nn.Module
    loss: nn.Module
    # From features to targets; None where the images themselves are the targets.
    target: nn.Module | None


class BaseImageEncoder(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, metaclass=ABCMeta
):
    """Base of the estimators that learn to turn each image into z numbers.

    A subclass says what the decoder predicts and which loss compares it (`_make_objective`);
    everything else is here.
    """

    _parameter_constraints: ClassVar[dict[str, list]] = {
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
        "memory": [str, os.PathLike, HasMethods("cache"), None],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "compile": ["boolean"],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "callbacks": [list, tuple, None],
    }

    _PAPER_SETTINGS: ClassVar[dict[str, Any]] = {
        "max_epochs": 50,
        "batch_size": 512,
        "lr": 1e-3,
        "lr_schedule": None,
        "validation_fraction": 0.2,
        "patience": 10,
    }

    encoder_: Encoder
    decoder_: nn.Module
    loss_network_: LossNetwork | None
    _format: ImageFormat
    _target: nn.Module | None

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
        compile: bool = False,
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
        self.memory = memory
        self.precision = precision
        self.compile = compile
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.callbacks = callbacks

    @classmethod
    def with_paper_settings(cls, z: int = 128, **parameters: Any) -> Self:
        """Make an estimator that trains as the paper did, instead of with this package's defaults.

        Batches of 512, 50 epochs, and Adam at a constant learning rate of 1e-3; feature
        prediction of all features instead of their principal components. The paper validates on
        the last fifth of the images: pass that as `X_val` to repeat it exactly.

        Parameters
        ----------
        z : int, default=128
            Size of the embedding.
        **parameters
            Any other parameters of the estimator.

        Returns
        -------
        estimator : object
            Not fitted yet.
        """
        return cls(z, **{**cls._PAPER_SETTINGS, **parameters})

    @abstractmethod
    def _make_objective(self, view: View) -> Objective:
        """Say what the decoder predicts of the images, and how it is judged.

        Parameters
        ----------
        view : View
            What the loss network sees in the training images.
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
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.loss_network_ = self._load_loss_network()
            view = self._view(images, device)
            encoder = self._make_encoder(view.n_features)
            objective = self._make_objective(view)
            self._target = objective.target
            prepare = nn.Identity() if self.encoder == "features" else self._canvas
            autoencoder = Autoencoder(prepare, encoder, objective.decoder, self.gamma > 0)
            if valid_images is None:
                train_rows, valid_rows = train_test_split(
                    np.arange(len(images)), test_size=self.validation_fraction, random_state=seed
                )
                train = self._training_set(images, view, train_rows)
                valid = TrainingSet(train.inputs, train.targets, valid_rows)
            else:
                train = self._training_set(images, view)
                valid = self._training_set(valid_images, self._view(valid_images, device))
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
                compile=self.compile,
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
        finished = [row for row in net.history if "valid_loss" in row]
        if not finished:
            raise KeyboardInterrupt("Interrupted before the first epoch was over.")
        if len(finished) < len(net.history):
            warnings.warn(
                f"Training was interrupted in epoch {len(net.history)} of {self.max_epochs}. The "
                "encoder is that of the best epoch before.",
                UserWarning,
                stacklevel=2,
            )
        self.history_ = [
            {
                "epoch": row["epoch"],
                "train_loss": row["train_loss"],
                "valid_loss": row["valid_loss"],
                "seconds": row["dur"],
            }
            for row in finished
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
        prepare: nn.Module = self._canvas
        if self.encoder == "features" and self.loss_network_ is not None:
            prepare = nn.Sequential(prepare, self.loss_network_)
        embed = nn.Sequential(prepare, fold_batch_norm(self.encoder_))
        return compute(images, OnDevice(embed, device), self._n_features_out, in_memory=True)

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
        canvas = self._canvas
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

    @property
    def _canvas(self) -> Canvas:
        return Canvas(self._format.size)

    def _load_loss_network(self) -> LossNetwork | None:
        return load_loss_network(self.loss_network)

    def _view(self, images: Images, device: torch.device) -> View:
        """What the loss network sees in images, or what it saw where the encoder takes that."""
        if self.loss_network_ is None:
            return View(images, self._canvas, 0, Cache(None))
        key = (
            () if self.memory is None else (images.fingerprint(), self.loss_network_.fingerprint())
        )
        view = View(
            images,
            OnDevice(nn.Sequential(self._canvas, self.loss_network_), device),
            self.loss_network_.n_features(self._canvas.canvas_size),
            Cache(self.memory, *key),
        )
        if self.encoder == "features":
            return View(view.features(), nn.Identity(), view.n_features, view.cache)
        return view

    def _make_encoder(self, n_features: int) -> Encoder:
        if self.encoder == "features":
            return FeatureEncoder(n_features, self.z)
        return ImageEncoder(self._canvas.canvas_size, self.z)

    def _training_set(
        self, images: Images, view: View, rows: np.ndarray | None = None
    ) -> TrainingSet:
        rows = np.arange(len(images)) if rows is None else rows
        if self._target is None:
            return TrainingSet(view.source, images, rows)
        if isinstance(self._target, Components):
            return TrainingSet(view.source, view.coefficients(self._target), rows)
        targets = view.source if self.encoder == "features" else view.features()
        return TrainingSet(view.source, targets, rows)

    def _check_images(self, X: Any, *, reset: bool) -> Images:
        array = as_array(X)
        if array.ndim == 2:
            validate_data(self, X, skip_check_array=True, reset=reset)
        if not reset:
            return check_images_like(array, self._format)
        if array.ndim > 2 and hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        images = check_images(array, self.image_shape)
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

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_epochs_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _choose_device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f'device is {device!r}. Expected "auto" or a torch device such as "cpu" or "cuda".'
        ) from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f'device is {device!r}, but torch finds no CUDA device here. Use "auto" or "cpu", or '
            "install a build of torch with CUDA and a driver for the GPU."
        )
    return chosen
