"""scikit-learn's contract, which the three estimators share: fit, transform, score."""

from __future__ import annotations

import math
from abc import ABCMeta
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils import gen_batches, metadata_routing
from sklearn.utils.validation import check_is_fitted
from torch.nn import functional as F

from ._data import ImageSet, Reading, check_images, check_images_like, restore_size
from ._export import ExportMixin
from ._features import BATCH_SIZE, compute_rows
from ._fitting import fit_networks, fit_networks_to_batch
from ._images.arrays import as_array
from ._images.matching import check_columns, read_like
from ._images.value_range import kind_of
from ._loss_network import Inference, describe
from ._networks import Architecture, fold_batch_norm
from ._networks.encoders import takes_features
from ._parameters import EncoderParameters
from ._report import ReportMixin
from ._saving import SavingMixin
from ._state import FittedState
from ._training import CallbackSupportMixin, Clock, EpochTasks
from ._truncation import TruncationMixin
from ._utils.devices import choose_device, on_device

# Of images of 64 pixels, as many as a processor's cache holds in a deep encoder.
SMALL_BATCH = 32


def _fitted(name: str) -> property:
    """Make a public attribute of a value in the fitted state; it is missing while that is None."""

    def get(self: Any) -> Any:
        value = getattr(self._state, name)
        if value is None:
            raise AttributeError(f"This {type(self).__name__} has no {name}.")
        return value

    return property(get)


class BaseImageEncoder(
    SavingMixin,
    ExportMixin,
    TruncationMixin,
    ReportMixin,
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    EncoderParameters,
    metaclass=ABCMeta,
):
    """Base of the estimators; each names its loss and its defaults."""

    _LOSS: ClassVar[str]  # as in Architecture

    _state: FittedState
    # `transform` takes `out` in the call; meta-estimators never route it.
    __metadata_request__transform: ClassVar[dict[str, str]] = {"out": metadata_routing.UNUSED}

    history_ = _fitted("history")
    best_epoch_ = _fitted("best_epoch")
    validation_loss_ = _fitted("validation_loss")
    batch_size_ = _fitted("batch_size")
    feature_names_in_ = _fitted("feature_names")
    encoder_ = property(lambda self: self._state.networks.encoder)
    decoder_ = property(lambda self: self._state.networks.decoder)
    loss_network_ = property(lambda self: self._state.networks.loss_network)
    n_epochs_ = property(lambda self: len(self._state.history))
    n_parameters_ = property(lambda self: self._state.n_parameters)
    image_shape_ = property(lambda self: self._state.format.image_shape)
    n_features_in_ = property(lambda self: math.prod(self._state.format.shape))

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, *, X_val: Any = None) -> Self:
        """Pretrain the encoder on images.

        Parameters
        ----------
        X : array-like of shape (n, height, width, channels), (n, channels, height, width), \
                (n, height, width) or (n, n_pixels)
            Images of any number of channels, at least 2 by 2 pixels; see `value_range`, `channels`
            and `resize` for how they are read. Lists, columns of tables and generators of arrays,
            tensors or PIL images work too. A :class:`numpy.memmap`, an HDF5 or zarr array, or any
            object with `shape`, `dtype` and `ndim` that reads slices of its rows is read batch by
            batch, never whole; so is a map-style :class:`torch.utils.data.Dataset` of images or
            (image, ...) tuples.
        y : Ignored
            Not used, except by callbacks of scikit-learn; see `set_callbacks`.
        X_val : array-like, default=None
            Images for validation. By default, a random `validation_fraction` of X is held out.

        Returns
        -------
        self : object
            The fitted estimator. A fit that fails leaves the state of an earlier one as it is.

        Raises
        ------
        ValueError
            If X holds no images, or images that are not finite or too small, or the loss network
            is unknown or cannot take images of that size, or neither `max_epochs` nor
            `max_seconds` limits training; or, with `warm_start`, if parameters ask
            for other networks than those of the earlier fit.
        """
        clock = Clock(self.max_seconds)
        start = self._state if self.warm_start and self.__sklearn_is_fitted__() else None
        self._check_limits()
        architecture = self._architecture()
        if start is not None:
            start.check_parameters(architecture, self._reading())
        images, names = self._check_images(X, reset=start is None)
        valid_images = None if X_val is None else _check_validation_images(X_val, images)
        self._check_n_samples(len(images), valid_images is not None)
        tasks = EpochTasks.begin(self, X, y)
        self._state = fit_networks(
            self, architecture, images, names, valid_images, start, clock, tasks
        )
        if tasks is not None:
            tasks.end(self._state)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Train on one more batch of a stream of images, once.

        No schedule fits a stream without an end: the learning rate is constant, a tenth of `lr` if
        `lr_schedule` makes that the highest, else `lr`.

        The first batch determines what `fit` determines from all images: their format and, for
        feature prediction, the principal components that are predicted. Make it as large and as
        varied as you can: thousands of images. After `fit`, training continues where it ended.

        Parameters
        ----------
        X : array-like
            Images as in `fit`; in later calls of the size and channels of the first.
        y : Ignored
            Not used, present by convention.

        Returns
        -------
        self : object
            The fitted estimator. `history_` grows by one row, without a validation loss.

        Raises
        ------
        ValueError
            If X holds no images, or other images than in the first call, or parameters ask for
            other networks than those there are; only `z` waits for the next `fit`.
        """
        start = self._state if self.__sklearn_is_fitted__() else None
        architecture = self._architecture()
        if start is not None:
            architecture = start.check_parameters(architecture, self._reading(), ignore_z=True)
        images, names = self._check_images(X, reset=start is None)
        self._state = fit_networks_to_batch(self, architecture, images, names, start)
        return self

    def transform(self, X: Any, *, out: Any = None) -> Any:
        """Embed images.

        Parameters
        ----------
        X : array-like, Tensor or Dataset
            Images of the size and channels of those in fit, in the same layout or flattened; read
            batch by batch as in `fit`.
        out : ndarray of shape (n, z), dtype float32, default=None
            Where to write the embedding, batch by batch: an array, a :class:`numpy.memmap`, or an
            HDF5 or zarr array. None makes an array in memory.

        Returns
        -------
        embedding : ndarray or Tensor of shape (n, z), dtype float32
            `out` if it is given, else a tensor, on the device of X, if X is one.

        Raises
        ------
        NotFittedError
            If fit was not called before.
        ValueError
            If the images are of another size, channel count or value range than in fit, or `out`
            is of another shape or type, or read-only.
        TypeError
            If `out` is not an array.
        """
        check_is_fitted(self)
        images, _ = self._check_images(X)
        device = choose_device(self.device)
        embed = self._embedder(device)
        if out is None and isinstance(images.array, torch.Tensor):
            with torch.no_grad():
                batches = (images.read(rows) for rows in gen_batches(len(images), BATCH_SIZE))
                return torch.cat([embed(batch).to(images.array.device) for batch in batches])
        if out is None:
            out = np.empty((len(images), self._n_features_out), dtype=np.float32)
        return compute_rows(images, embed, self._n_features_out, out=out)

    def _embedder(self, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
        """Make the function from stored batches to embeddings on a device, as fast as it goes."""
        preprocess, *layers = self._state.embedder(fold_batch_norm(self.encoder_))
        network: Any = on_device(torch.nn.Sequential(*layers), device)
        if device.type == "cpu":
            network = Inference(network, batch_size=SMALL_BATCH)
        return lambda batch: network(preprocess(batch.to(device, non_blocking=True)))

    def score(self, X: Any, y: Any = None) -> float:
        """Negative loss on images, so that larger is better.

        Parameters
        ----------
        X : array-like
            Images of the size and channels of those in fit.
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
        images, _ = self._check_images(X)
        device = choose_device(self.device)
        criterion, projection = self._state.criterion, self._state.networks.projection
        criterion = on_device(criterion, device)
        projection = None if projection is None else on_device(projection, device)
        total = 0.0
        for batch, features, decoded in self._decode(images, device):
            target = batch if self._LOSS == "pixels" else features
            target = target if projection is None else projection(target)
            total += criterion(decoded, target).item() * len(batch)
        return -total / len(images)

    def _decode(self, images: ImageSet, device: torch.device) -> Iterator[tuple]:
        """Yield batches of stored images, their features and the output of the decoder."""
        networks: list[Any] = [net and on_device(net, device) for net in self._state.networks]
        encoder, decoder, _, loss_network, _ = networks
        state = self._state
        for rows in gen_batches(len(images), BATCH_SIZE):
            batch = images.read(rows).to(device)
            with torch.inference_mode():
                inputs = state.preprocess(batch)
                features = None
                if loss_network is not None:
                    features = loss_network(state.inputs_of_features(images, rows, inputs))
                inputs = features if state.architecture.takes_features else inputs
                yield batch, features, decoder(encoder(inputs))

    def _feature_error_maps(self, X: Any) -> np.ndarray:
        """Squared error of decoded features, averaged over channels: (n, rows, columns)."""
        check_is_fitted(self)
        images, _ = self._check_images(X)
        network = self.loss_network_
        if network is None:
            raise ValueError(
                f"This {type(self).__name__} has no loss network. Use a FeaturePredictionEncoder "
                "or a PerceptualAutoencoder."
            )
        shape = network.maps_shape(self._state.format.network_size)
        if len(shape) != 3:
            raise ValueError(
                f"The loss network gives features of shape {shape}. Expected the feature maps of "
                "one network, (channels, rows, columns), which have a place in the image."
            )
        maps = [
            (self._decoded_features(decoded) - features).square().unflatten(1, shape).mean(dim=1)
            for _, features, decoded in self._decode(images, torch.device("cpu"))
        ]
        errors = torch.cat(maps)
        if images.format.resize == "tile" and images.format.size != images.format.network_size:
            errors = F.interpolate(errors[:, None], images.format.network_size)
            errors = restore_size(errors, images.format)[:, 0]
        return errors.numpy()

    def _decoded_features(self, decoded: torch.Tensor) -> torch.Tensor:
        """Turn the output of the decoder into features (b, n_features)."""
        if self._LOSS != "features":
            return self.loss_network_(decoded)
        projection = self._state.networks.projection
        return decoded if projection is None else projection.inverse(decoded)

    def _rgb(self, X: Any) -> np.ndarray:
        """Images to draw: (n, height, width, 3) in [0, 1]."""
        images, _ = self._check_images(X)
        pixels = self._state.preprocess(images.read(slice(None)).cpu())
        if pixels.shape[1] != 3:
            pixels = (
                pixels[:, :3] if pixels.shape[1] > 3 else pixels.mean(1, True).expand(-1, 3, -1, -1)
            )
        return restore_size(pixels, images.format).permute(0, 2, 3, 1).clamp(0, 1).numpy()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Name the numbers of the embedding.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the pixels, or of the one column that holds images; only their number counts.

        Returns
        -------
        names : ndarray of str of shape (z,)
            The class name in lowercase, and a number.
        """
        check_is_fitted(self)
        is_column = input_features is not None and len(input_features) == 1
        return super().get_feature_names_out(None if is_column else input_features)

    @property
    def _n_features_out(self) -> int:
        return self.encoder_.head.out_features

    def _architecture(self) -> Architecture:
        if self.augment and takes_features(self.encoder):
            raise ValueError(
                f"augment=True flips and shifts images, but encoder={self.encoder!r} takes "
                "features. Use an encoder of images, or augment=False."
            )
        return Architecture(
            loss=self._LOSS,
            z=self.z,
            encoder=self._encoder(),
            variational=self.gamma > 0,
            loss_network=describe(self.loss_network),
        )

    def _check_images(self, X: Any, *, reset: bool = False) -> tuple[ImageSet, np.ndarray | None]:
        """Check images against those in fit, or find their format; return them and column names."""
        if not reset:
            images = ImageSet(*read_like(X, self._state.format, self))
            return images, getattr(self, "feature_names_in_", None)
        resize = self._resize()
        array = as_array(X, resize)
        # A stand-in of the same name: what fit has found so far must not reach the estimator.
        columns: Any = type(type(self).__name__, (BaseEstimator,), {})()
        check_columns(columns, X, array, reset=True)
        reading = Reading(self.image_shape, self.value_range, self.channels, resize)
        images = check_images(array, kind_of(X, array), reading)
        return images, getattr(columns, "feature_names_in_", None)

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
        return hasattr(self, "_state")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _check_validation_images(X_val: Any, images: ImageSet) -> ImageSet:
    try:
        array = as_array(X_val, images.format.resize)
        return check_images_like(array, kind_of(X_val, array), images.format)
    except (TypeError, ValueError) as error:
        # Not of a subclass, which may need other arguments than a message.
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"X_val does not fit to X: {error}") from error
