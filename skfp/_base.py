"""The scikit-learn contract that the three encoders share, whichever loss they train with."""

from __future__ import annotations

import copy
import math
import os
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from sklearn.utils import check_random_state, gen_batches, metadata_routing
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from skfp._data.image_set import ImageFormat, ImageSet, as_array, check_images, check_images_like
from skfp._data.preprocess import Preprocess
from skfp._data.sources import Source
from skfp._export import ExportMixin
from skfp._features.cache import Cache
from skfp._features.extractor import (
    BATCH_SIZE,
    FeatureExtractor,
    PCAProjection,
    compute_rows,
    make_extractor,
)
from skfp._loss_network import FrozenNetwork, LossNetwork, describe, load_loss_network
from skfp._networks.encoders import (
    IMAGE_ENCODERS,
    Encoder,
    FeatureEncoder,
    fold_batch_norm,
    make_encoder,
)
from skfp._state import SavingMixin
from skfp._training.checkpoint import Checkpoint, open_checkpoint
from skfp._training.net import (
    Autoencoder,
    Settings,
    TrainingSet,
    select_best_epoch,
    train_batch_of_stream,
    train_networks,
)
from skfp._training.signature import check_architecture, fit_signature
from skfp._utils import distributed
from skfp._utils.devices import OnDevice, choose_device


class Objective(NamedTuple):
    """What a coder pair is trained for."""

    decoder: nn.Module
    loss: nn.Module


class BaseImageEncoder(
    SavingMixin,
    ExportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
    metaclass=ABCMeta,
):
    """Base of the estimators that learn to turn each image into z numbers.

    A subclass says what the decoder predicts (`_find_target`) and which loss compares it
    (`_make_objective`); everything else is here, or in the mixins.
    """

    _parameter_constraints: ClassVar[dict[str, list]] = {
        "z": [Interval(Integral, 1, None, closed="left")],
        "encoder": [StrOptions({"features", *IMAGE_ENCODERS}), callable],
        "loss_network": [str, os.PathLike, callable, LossNetwork, list, tuple],
        "normalize_features": ["boolean"],
        "image_shape": [tuple, list, None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "lr_schedule": [StrOptions({"one-cycle"}), None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "gamma": [Interval(Real, 0, None, closed="left")],
        "memory": [str, os.PathLike, HasMethods("cache"), None],
        "checkpoint_dir": [str, os.PathLike, None],
        "warm_start": ["boolean"],
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
        "normalize_features": False,
        "validation_fraction": 0.2,
        "patience": 10,
        "precision": "float32",
    }

    history_: list[dict[str, Any]]
    encoder_: Encoder
    decoder_: nn.Module
    loss_network_: FrozenNetwork | None
    _format: ImageFormat
    _loss: nn.Module
    _optimizer_state: dict[int, dict[str, torch.Tensor]]
    _architecture: dict[str, Any]  # as in `_describe_structure`, when the networks were made
    _target: nn.Module | None
    _variance_head: nn.Linear | None

    def __init__(
        self,
        z: int = 128,
        *,
        encoder: str | Callable = "image",
        loss_network: Any = "alexnet",
        normalize_features: bool = True,
        image_shape: Sequence[int] | None = None,
        max_epochs: int = 50,
        batch_size: int | str = "auto",
        lr: float = 1e-3,
        lr_schedule: str | None = None,
        validation_fraction: float = 0.2,
        patience: int = 10,
        gamma: float = 0.0,
        memory: Any = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        warm_start: bool = False,
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
        self.normalize_features = normalize_features
        self.image_shape = image_shape
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.gamma = gamma
        self.memory = memory
        self.checkpoint_dir = checkpoint_dir
        self.warm_start = warm_start
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
        prediction of all features instead of their principal components; nothing normalised in
        encoders of features; float32 on any device. The paper validates on the last fifth of the
        images: pass that as `X_val` to repeat it exactly.

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
    def _find_target(self, view: FeatureExtractor) -> nn.Module | None:
        """Find what turns features into targets; None where the images are the targets.

        Parameters
        ----------
        view : View
            What the loss network sees in the training images.
        """

    @abstractmethod
    def _make_objective(self, target: nn.Module | None, n_features: int, z: int) -> Objective:
        """Say what the decoder looks like that predicts the target, and how it is judged.

        Parameters
        ----------
        target : nn.Module or None
            From `_find_target`.
        n_features : int
            Number of features that the loss network sees in an image.
        z : int
            Size of the embedding.
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
            A :class:`numpy.memmap`, an HDF5 or zarr array, or any object with `shape`, `dtype`
            and `ndim` that reads slices of its rows is read batch by batch, never whole; so is a
            map-style :class:`torch.utils.data.Dataset` of images or (image, ...) tuples.
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
            is unknown or cannot look at images of that size; or, with `warm_start`, if parameters
            ask for other networks than training goes on with.
        """
        with self._as_before_on_failure():
            self._fit(X, X_val)
        return self

    def _fit(self, X: Any, X_val: Any) -> None:
        continues = self.warm_start and self.__sklearn_is_fitted__()
        architecture = self._describe_architecture()
        if continues:
            check_architecture(architecture, self._architecture)
        images = self._check_images(X, reset=not continues)
        valid_images = None if X_val is None else self._check_validation_images(X_val)
        self._check_n_samples(len(images), valid_images is not None)
        device = choose_device(self.device)
        self.batch_size_ = self._find_batch_size()
        drawn_seed = self._draw_seed()
        with open_checkpoint(self.checkpoint_dir) as checkpoint:
            self._seed = drawn_seed if checkpoint.seed is None else checkpoint.seed
            with self._seeded(self._seed):
                if not continues:
                    self._architecture = architecture
                    self.loss_network_ = self._load_loss_network()
                if self.checkpoint_dir is not None:
                    signature = fit_signature(self, images, valid_images, continues)
                    checkpoint.identify(signature, self._seed)
                view = self._view(images, device, self.memory)
                autoencoder, loss = self._make_autoencoder(view, continues, checkpoint)
                if valid_images is None:
                    train_rows, valid_rows = train_test_split(
                        np.arange(len(images)),
                        test_size=self.validation_fraction,
                        random_state=self._seed,
                    )
                    train = self._training_set(images, view, train_rows)
                    valid = TrainingSet(train.inputs, train.targets, valid_rows)
                else:
                    train = self._training_set(images, view)
                    valid_view = self._view(valid_images, device, self.memory)
                    valid = self._training_set(valid_images, valid_view)
                net = train_networks(
                    autoencoder,
                    loss,
                    train,
                    valid,
                    self._settings(device, self._seed),
                    max_epochs=self.max_epochs,
                    lr_schedule=self.lr_schedule,
                    patience=self.patience,
                    verbose=int(self.verbose),
                    callbacks=self.callbacks or (),
                    checkpoint=checkpoint,
                    target=self._target,
                )

        earlier = self.history_ if continues else []
        self.history_, best = select_best_epoch(net, self.max_epochs, earlier)
        self._keep(autoencoder, loss)
        self._optimizer_state = {}
        self.best_epoch_ = best["epoch"]
        self.validation_loss_ = best["valid_loss"]
        self.n_epochs_ = len(self.history_)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Train on one more batch of a stream of images, once.

        A stream has no end that a schedule could know: the learning rate is constant, a tenth of
        `lr` where `lr_schedule` makes that the highest, else `lr`.

        The first batch decides what `fit` learns from all images: their format and, for feature
        prediction, the principal components that are predicted. Make it as large and as varied
        as you can: thousands of images. After `fit`, training goes on where it ended.

        Parameters
        ----------
        X : array-like
            Images as in `fit`; in later calls of the size and channels of the first.
        y : Ignored
            Not used, present by convention.

        Returns
        -------
        self : object
            The estimator, fitted. `history_` grows by one row, without a validation loss.

        Raises
        ------
        ValueError
            If X holds no images, or other images than the first call has seen, or parameters ask
            for other networks than training goes on with; only `z` waits for the next `fit`.
        """
        with self._as_before_on_failure():
            self._partial_fit(X)
        return self

    def _partial_fit(self, X: Any) -> None:
        starts = not self.__sklearn_is_fitted__()
        architecture = self._describe_architecture()
        if not starts:
            check_architecture({**architecture, "z": self._architecture["z"]}, self._architecture)
        images = self._check_images(X, reset=starts)
        device = choose_device(self.device)
        if starts:
            self._seed = self._draw_seed()
            self._optimizer_state, self.history_, self.n_epochs_ = {}, [], 0
        seed = self._seed + self.n_epochs_
        self.batch_size_ = self._find_batch_size()
        # At its highest, it would undo in one step what a fit has ended with.
        lr = self.lr / 10 if self.lr_schedule == "one-cycle" else self.lr
        with self._seeded(seed):
            if starts:
                self._architecture = architecture
                self.loss_network_ = self._load_loss_network()
            view = self._view(images, device, None)
            autoencoder, loss = self._make_autoencoder(view, not starts)
            net = train_batch_of_stream(
                autoencoder,
                loss.to(device),
                self._training_set(images, view),
                self._settings(device, seed)._replace(lr=lr),
                self._optimizer_state,
                callbacks=self.callbacks or (),
            )
        self._keep(autoencoder, loss)
        self._optimizer_state = {
            parameter: {name: moment.cpu() for name, moment in moments.items()}
            for parameter, moments in net.optimizer_.state_dict()["state"].items()
        }
        row = net.history[-1]
        told = {
            "epoch": len(self.history_) + 1,
            "train_loss": row["train_loss"],
            "seconds": distributed.broadcast(row["dur"]),
        }
        self.history_ = [*self.history_, told]
        self.n_epochs_ = len(self.history_)
        # These belong to a fit that is no longer the last word.
        for name in ("best_epoch_", "validation_loss_"):
            if hasattr(self, name):
                delattr(self, name)

    # Where to write is said in the call, and never routed to it by a meta-estimator.
    __metadata_request__transform: ClassVar[dict[str, str]] = {"out": metadata_routing.UNUSED}

    def transform(self, X: Any, *, out: Any = None) -> Any:
        """Embed images.

        Parameters
        ----------
        X : array-like, Tensor, Dataset or dask.array.Array
            Images of the size and channels that fit has seen, in the same layout or flattened;
            read batch by batch as in `fit`.
        out : ndarray of shape (n, z), dtype float32, default=None
            Where to write the embedding, batch by batch: an array, a :class:`numpy.memmap`, or an
            HDF5 or zarr array. None makes an array in memory.

        Returns
        -------
        embedding : ndarray, Tensor or dask.array.Array of shape (n, z), dtype float32
            `out` if it is given, else a tensor, where X is, on its device. A dask array, where X
            is: nothing is computed before dask is asked to, and blocks of images become blocks of
            the embedding.

        Raises
        ------
        NotFittedError
            If fit was not called before.
        ValueError
            If the images are of another size, channel count or value range than in fit, or `out`
            is of another shape or type, or read-only.
        TypeError
            If `out` is no array.
        """
        check_is_fitted(self)
        embedder = self._make_embedder(fold_batch_norm(self.encoder_))
        images = self._check_images(X, reset=False)
        embed = OnDevice(embedder, choose_device(self.device))
        if out is None and isinstance(images.array, torch.Tensor):
            with torch.no_grad():
                batches = (images.read(rows) for rows in gen_batches(len(images), BATCH_SIZE))
                return torch.cat([embed(batch).to(images.array.device) for batch in batches])
        if out is None:
            out = np.empty((len(images), self._n_features_out), dtype=np.float32)
        return compute_rows(images, embed, self._n_features_out, out=out)

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
        total = 0.0
        for batch, features, decoded in self._decoded(images):
            target = batch if self._target is None else self._target(features)
            total += self._loss(decoded, target).item() * len(batch)
        return -total / len(images)

    def _decoded(self, images: ImageSet) -> Iterator[tuple]:
        """Batches of images, what the loss network sees in them, and what the decoder says."""
        for rows in gen_batches(len(images), BATCH_SIZE):
            batch = images.read(rows).cpu()
            with torch.inference_mode():
                pixels = self._preprocess(batch)
                features = None if self.loss_network_ is None else self.loss_network_(pixels)
                code = self.encoder_(features if self._takes_features else pixels)
                yield batch, features, self.decoder_(code)

    def _feature_error_maps(self, X: Any) -> np.ndarray:
        """Squared error of decoded features, averaged over channels: (n, rows, columns)."""
        check_is_fitted(self)
        images = self._check_images(X, reset=False)
        if self.loss_network_ is None:
            raise ValueError(
                f"This {type(self).__name__} has no loss network. Use a FeaturePredictionEncoder "
                "or a PerceptualAutoencoder."
            )
        shape = self.loss_network_.maps_shape(self._preprocess.output_size)
        if len(shape) != 3:
            raise ValueError(
                f"The loss network gives features of shape {shape}. Expected the feature maps of "
                "one network, (channels, rows, columns), which have a place in the image."
            )
        maps = [
            (self._decoded_features(decoded) - features).square().unflatten(1, shape).mean(dim=1)
            for _, features, decoded in self._decoded(images)
        ]
        return torch.cat(maps).numpy()

    @abstractmethod
    def _decoded_features(self, decoded: torch.Tensor) -> torch.Tensor:
        """Turn what the decoder gives into features (b, n_features)."""

    def _rgb(self, X: Any) -> np.ndarray:
        """Images to look at: (n, height, width, 3) in [0, 1]."""
        images = self._check_images(X, reset=False)
        pixels = self._preprocess.crop(self._preprocess(images.read(slice(None)).cpu()))
        return pixels.permute(0, 2, 3, 1).clamp(0, 1).numpy()

    @property
    def _n_features_out(self) -> int:
        return self.encoder_.head.out_features

    @property
    def _preprocess(self) -> Preprocess:
        return Preprocess(self._format.size)

    def _describe_architecture(self) -> dict[str, Any]:
        """Say what the networks are made of, apart from parameters that may be set anew later."""
        return {
            "z": self.z,
            "encoder": self.encoder,
            "normalize_features": self.encoder == "features" and self.normalize_features,
            "gamma > 0": self.gamma > 0,
            "loss_network": describe(self.loss_network),
        }

    def _load_loss_network(self) -> FrozenNetwork | None:
        described = self._architecture["loss_network"]
        return None if described is None else load_loss_network(described)

    @property
    def _takes_features(self) -> bool:
        return isinstance(self.encoder_, FeatureEncoder)

    @property
    def _prepare(self) -> nn.Module:
        """What comes before the encoder in training, where features are computed once."""
        return nn.Identity() if self.encoder == "features" else self._preprocess

    def _make_embedder(self, encoder: nn.Module) -> nn.Sequential:
        """Put what turns stored batches into the encoder's input before it."""
        see = [self.loss_network_] if self._takes_features and self.loss_network_ else []
        return nn.Sequential(self._preprocess, *copy.deepcopy(see), encoder)

    def _make_autoencoder(
        self, view: FeatureExtractor, continues: bool, checkpoint: Checkpoint | None = None
    ) -> tuple[Autoencoder, nn.Module]:
        """Make an untrained coder pair and its loss, or take those of the last fit."""
        if continues:
            coders = (self.encoder_, self.decoder_, self._variance_head)
            # Copied, so that what is there stays until something better is.
            return Autoencoder(self._prepare, *copy.deepcopy(coders)), self._loss
        self._n_loss_features = view.n_features
        mean = view.mean() if self._architecture["normalize_features"] else None
        size = self._preprocess.output_size
        encoder = make_encoder(self.encoder, view.n_features, size, self.z, mean)
        kept = {} if checkpoint is None else checkpoint.parts["target"]
        self._target = PCAProjection(**kept) if kept else self._find_target(view)
        decoder, loss = self._make_objective(self._target, view.n_features, self.z)
        head = encoder.head
        variance_head = nn.Linear(head.in_features, head.out_features) if self.gamma > 0 else None
        return Autoencoder(self._prepare, encoder, decoder, variance_head), loss

    def _find_batch_size(self) -> int:
        """Say how many images make a step of training."""
        return 128 if self.batch_size == "auto" else int(self.batch_size)

    def _settings(self, device: torch.device, seed: int) -> Settings:
        return Settings(
            batch_size=self.batch_size_,
            lr=self.lr,
            gamma=self.gamma,
            device=device,
            autocast=self.precision == "bfloat16"
            or (self.precision == "auto" and device.type == "cuda"),
            compile=self.compile,
            seed=seed,
        )

    def _keep(self, autoencoder: Autoencoder, loss: nn.Module) -> None:
        """Keep trained networks on the CPU."""
        self.encoder_ = autoencoder.encoder.eval()
        self.decoder_ = autoencoder.decoder.eval()
        self._variance_head = autoencoder.variance_head
        self._loss = loss
        self._move_to_cpu()
        self.n_parameters_ = sum(p.numel() for p in autoencoder.parameters() if p.requires_grad)

    def _move_to_cpu(self) -> None:
        for name in ("encoder_", "decoder_", "_variance_head", "_loss", "loss_network_", "_target"):
            module = getattr(self, name, None)
            if module is not None:
                module.cpu()

    @contextmanager
    def _as_before_on_failure(self) -> Iterator[None]:
        """Leave the estimator as an earlier fit has left it where this one fails."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__ = before
            self._move_to_cpu()  # coders are trained as copies, but what judges them is not
            raise

    def _draw_seed(self) -> int:
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        return distributed.broadcast(seed)

    @staticmethod
    @contextmanager
    def _seeded(seed: int) -> Iterator[None]:
        """Draw torch's random numbers from a seed, and leave the user's own sequence alone."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield

    def _view(self, images: ImageSet, device: torch.device, memory: Any) -> FeatureExtractor:
        """What the loss network sees in images, or what it saw where the encoder takes that."""
        if self.loss_network_ is None:
            return FeatureExtractor(images, self._preprocess, 0, Cache(None))
        view = make_extractor(images, self._preprocess, self.loss_network_, device, memory)
        if self.encoder == "features":
            return FeatureExtractor(view.features(), nn.Identity(), view.n_features, view.cache)
        return view

    def _training_set(
        self, images: ImageSet, view: FeatureExtractor, rows: np.ndarray | None = None
    ) -> TrainingSet:
        rows = np.arange(len(images)) if rows is None else rows
        if self._target is None:
            return TrainingSet(view.source, images, rows)
        if isinstance(self._target, PCAProjection):
            return TrainingSet(view.source, view.coefficients(self._target), rows)
        targets = view.source if self.encoder == "features" else view.features()
        return TrainingSet(view.source, targets, rows)

    def _check_images(self, X: Any, *, reset: bool) -> ImageSet:
        array = as_array(X)
        if not reset and array.ndim == 2 and array.shape == self._format.shape[:2]:
            raise ValueError(
                f"X has the shape {tuple(array.shape)} of one image that fit has seen. Pass a "
                "single image as X[None]."
            )
        if array.ndim == 2:
            rows = array if isinstance(array, Source) else X
            validate_data(self, rows, skip_check_array=True, reset=reset)
        if not reset:
            return check_images_like(array, self._format)
        if array.ndim > 2 and hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        images = check_images(array, self.image_shape)
        self._format = images.format
        self.image_shape_ = images.format.image_shape
        self.n_features_in_ = math.prod(images.format.shape)
        return images

    def _check_validation_images(self, X_val: Any) -> ImageSet:
        try:
            return self._check_images(X_val, reset=False)
        except (TypeError, ValueError) as error:
            # Not of a subclass, which may be made of something else than a message.
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"X_val does not fit to X. Of it: {error}") from error

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
