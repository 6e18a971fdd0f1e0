"""Autoencoders that decode images: compared by features or by pixels."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array, gen_batches
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skfp._base import BaseImageEncoder, Objective
from skfp._features.extractor import BATCH_SIZE, FeatureExtractor
from skfp._networks.encoders import ImageDecoder
from skfp._networks.losses import (
    PerceptualLoss,
    PixelLoss,
)
from skfp._utils.devices import OnDevice, choose_device


class _ImageAutoencoder(BaseImageEncoder):
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
            In the layout, size and range of the images in fit: uint8, or float32 between the least
            and the greatest value seen there. A tensor, where X is, on its device.

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
        decode = OnDevice(copy.deepcopy(self.decoder_), device)
        images = []
        with torch.no_grad():
            for rows in gen_batches(len(embedding), BATCH_SIZE):
                decoded = self._preprocess.crop(decode(embedding[rows].to(torch.float32)))
                images.append(self._format.from_batch(decoded).to(embedding.device))
        return torch.cat(images) if is_tensor else torch.cat(images).numpy()

    def _decoded_features(self, decoded: torch.Tensor) -> torch.Tensor:
        assert self.loss_network_ is not None  # nosec B101 # known to be there, but not to mypy
        return self.loss_network_(decoded)


class PerceptualAutoencoder(_ImageAutoencoder):
    """Image autoencoder trained with deep perceptual similarity (I-I-PS and F-I-PS).

    The decoder gives an image, and the loss compares what a frozen, pretrained loss network sees in
    it with what it sees in the original: equation 2 of the paper [1]_.

    Parameters
    ----------
    z : int, default=128
        Size of the embedding: how many numbers an image is turned into.
    encoder : {"image", "features", "small", "large"} or callable, default="image"
        "image" takes the image itself (the paper's I-I-PS), "features" what the loss network sees
        in it (F-I-PS). "small" and "large" are "image" with half and twice the channels: of 64 by
        64 pixels they take 8, 30 ("image") and 112 MFLOP each, and embed 20,000, 4,100 and 1,100
        per second on one core (`python -m benchmarks encoders`). A function takes the size (height,
        width) that images have here, at least 64 each, and returns a new module from float images
        (b, 3, height, width) in [0, 1] to a tensor (b, ...), which is flattened and mapped
        linearly to the embedding; `save` cannot keep such a module.
    loss_network : str, LossNetwork, path-like, torch.nn.Module, callable or list, default="alexnet"
        The network that compares images.
        "alexnet" is the paper's: AlexNet pretrained on ImageNet, cut after its second ReLU,
        followed by a sigmoid; its weights come with the package. A path to a file of weights gives
        the same layers other weights. Another name is a model of torchvision, such as "vgg16", or
        of timm, such as "timm:resnet26". A module or function maps float images
        (b, 3, height, width) in [0, 1] to a tensor (b, ...); a module is copied and frozen. A
        :class:`LossNetwork` says more, such as the layer. Several networks in a list are
        joined, each with its share of the loss.
    normalize_features : bool, default=True
        Whether ``encoder="features"`` takes features less their mean over (at most 4,096) training
        images, and normalises its hidden layer (LayerNorm); no other encoder is affected. Features
        that all are positive, as those of "alexnet", otherwise push every hidden unit the same way
        until none is active. The paper normalises nothing.
    image_shape : tuple of int or None, default=None
        (height, width), (height, width, channels) or (channels, height, width) of an image where X
        holds flattened rows. Rows without it are read as grey images as square as possible.
    max_epochs : int, default=50
        Epochs to train at most.
    batch_size : int or "auto", default="auto"
        Images per training step. "auto" is 128.
    lr : float, default=1e-3
        Learning rate of Adam, at its highest where there is a schedule.
    lr_schedule : {"one-cycle"} or None, default=None
        "one-cycle" raises the learning rate to `lr` and then lowers it to almost zero over
        `max_epochs`; None keeps it at `lr`, as the paper does.
    validation_fraction : float in (0, 1), default=0.2
        Share of the images that is held out to judge epochs by, where fit gets no `X_val`.
    patience : int, default=10
        Training stops after this many epochs without a lower validation loss.
    gamma : float, default=0.0
        Weight of the variational term. If positive, embeddings are drawn from a normal
        distribution in training, and `transform` returns its mean.
    memory : str, path-like, joblib.Memory or None, default=None
        Where to keep what the loss network sees in the images, for the next fit on the same
        images with the same loss network, also in other processes. None computes it once per fit.
        Entries are pickles written by joblib: use a folder that only you can write to. A data set
        with random transforms gives other images each time, so that no entry is ever found again.
    checkpoint_dir : str, path-like or None, default=None
        Folder, one for each fit, where the whole state of training is written after every epoch.
        When fit is called again with the same images and parameters, it goes on from there, and
        ends bit for bit where it would have ended without a break, on a CPU with the same number
        of threads. Holds numbers and JSON, no code. State of `callbacks` is not in it. A data set
        must give the same images each time: with random transforms, no fit can be continued.
    warm_start : bool, default=False
        Whether fit goes on from the coders of an earlier fit or partial_fit, for another
        `max_epochs`, instead of beginning anew.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of training. "auto" is mixed bfloat16 on a GPU and float32 elsewhere.
    compile : bool, default=False
        Whether to train through `torch.compile`: a minute of compilation, faster epochs on GPUs.
    device : str or torch.device, default="auto"
        Where to compute. "auto" is a CUDA device if there is one, else the CPU.
    random_state : int, RandomState instance or None, default=None
        Determines initial weights, the held-out images and the order of batches. Pass an int for
        the same embedding in every fit, bit for bit on a CPU with the same number of threads.
    verbose : int, default=0
        0 is silent, 1 prints a line per epoch, 2 shows a progress bar in terminals and notebooks.
    callbacks : list of skorch.callbacks.Callback or None, default=None
        Passed on to skorch.

    Attributes
    ----------
    encoder_ : torch.nn.Module
        The encoder at its best epoch, on the CPU.
    decoder_ : torch.nn.Module
        The decoder at its best epoch, on the CPU.
    loss_network_ : FrozenNetwork
        The frozen loss network.
    history_ : list of dict
        One row per epoch with the keys "epoch", "train_loss", "valid_loss" and "seconds".
    best_epoch_ : int
        The epoch, counted from 1, whose weights were kept.
    n_epochs_ : int
        Number of epochs trained.
    batch_size_ : int
        Images per training step.
    validation_loss_ : float
        The loss of the best epoch on the held-out images.
    image_shape_ : tuple of int
        Shape of one image in fit.
    n_features_in_ : int
        Number of values in one image.
    n_parameters_ : int
        Number of trained parameters, of encoder and decoder together.

    See Also
    --------
    FeaturePredictionEncoder : Predicts the features directly; several times faster.
    PixelAutoencoder : Compares pixels.

    References
    ----------
    .. [1] G. Grund Pihlgren, F. Sandin, M. Liwicki, "Pretraining Image Encoders without
       Reconstruction via Feature Prediction Loss", ICPR 2020.

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

    def _find_target(self, view: FeatureExtractor) -> nn.Module:
        return nn.Identity()

    def _make_objective(self, target: nn.Module | None, n_features: int, z: int) -> Objective:
        assert self.loss_network_ is not None  # nosec B101 # known to be there, but not to mypy
        decoder = ImageDecoder(z, self._preprocess.output_size)
        return Objective(decoder, PerceptualLoss(self.loss_network_))


class PixelAutoencoder(_ImageAutoencoder):
    """Image autoencoder trained pixel by pixel (I-I-PW and F-I-PW).

    The decoder gives an image, and the loss is its mean squared error: equation 1 of the
    paper [1]_.

    Parameters
    ----------
    z : int, default=128
        Size of the embedding: how many numbers an image is turned into.
    encoder : {"image", "features", "small", "large"} or callable, default="image"
        "image" takes the image itself (the paper's I-I-PW), "features" what the loss network sees
        in it (F-I-PW). "small" and "large" are "image" with half and twice the channels: of 64 by
        64 pixels they take 8, 30 ("image") and 112 MFLOP each, and embed 20,000, 4,100 and 1,100
        per second on one core (`python -m benchmarks encoders`). A function takes the size (height,
        width) that images have here, at least 64 each, and returns a new module from float images
        (b, 3, height, width) in [0, 1] to a tensor (b, ...), which is flattened and mapped
        linearly to the embedding; `save` cannot keep such a module.
    loss_network : str, LossNetwork, path-like, torch.nn.Module, callable or list, default="alexnet"
        The network that feeds the encoder; not needed with ``encoder="image"``.
        "alexnet" is the paper's: AlexNet pretrained on ImageNet, cut after its second ReLU,
        followed by a sigmoid; its weights come with the package. A path to a file of weights gives
        the same layers other weights. Another name is a model of torchvision, such as "vgg16", or
        of timm, such as "timm:resnet26". A module or function maps float images
        (b, 3, height, width) in [0, 1] to a tensor (b, ...); a module is copied and frozen. A
        :class:`LossNetwork` says more, such as the layer. Several networks in a list are
        joined, each with its share of the loss.
    normalize_features : bool, default=True
        Whether ``encoder="features"`` takes features less their mean over (at most 4,096) training
        images, and normalises its hidden layer (LayerNorm); no other encoder is affected. Features
        that all are positive, as those of "alexnet", otherwise push every hidden unit the same way
        until none is active. The paper normalises nothing.
    image_shape : tuple of int or None, default=None
        (height, width), (height, width, channels) or (channels, height, width) of an image where X
        holds flattened rows. Rows without it are read as grey images as square as possible.
    max_epochs : int, default=50
        Epochs to train at most.
    batch_size : int or "auto", default="auto"
        Images per training step. "auto" is 128.
    lr : float, default=1e-3
        Learning rate of Adam, at its highest where there is a schedule.
    lr_schedule : {"one-cycle"} or None, default=None
        "one-cycle" raises the learning rate to `lr` and then lowers it to almost zero over
        `max_epochs`; None keeps it at `lr`, as the paper does.
    validation_fraction : float in (0, 1), default=0.2
        Share of the images that is held out to judge epochs by, where fit gets no `X_val`.
    patience : int, default=10
        Training stops after this many epochs without a lower validation loss.
    gamma : float, default=0.0
        Weight of the variational term. If positive, embeddings are drawn from a normal
        distribution in training, and `transform` returns its mean.
    memory : str, path-like, joblib.Memory or None, default=None
        Where to keep what the loss network sees in the images, for the next fit on the same
        images with the same loss network, also in other processes. None computes it once per fit.
        Entries are pickles written by joblib: use a folder that only you can write to. A data set
        with random transforms gives other images each time, so that no entry is ever found again.
    checkpoint_dir : str, path-like or None, default=None
        Folder, one for each fit, where the whole state of training is written after every epoch.
        When fit is called again with the same images and parameters, it goes on from there, and
        ends bit for bit where it would have ended without a break, on a CPU with the same number
        of threads. Holds numbers and JSON, no code. State of `callbacks` is not in it. A data set
        must give the same images each time: with random transforms, no fit can be continued.
    warm_start : bool, default=False
        Whether fit goes on from the coders of an earlier fit or partial_fit, for another
        `max_epochs`, instead of beginning anew.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of training. "auto" is mixed bfloat16 on a GPU and float32 elsewhere.
    compile : bool, default=False
        Whether to train through `torch.compile`: a minute of compilation, faster epochs on GPUs.
    device : str or torch.device, default="auto"
        Where to compute. "auto" is a CUDA device if there is one, else the CPU.
    random_state : int, RandomState instance or None, default=None
        Determines initial weights, the held-out images and the order of batches. Pass an int for
        the same embedding in every fit, bit for bit on a CPU with the same number of threads.
    verbose : int, default=0
        0 is silent, 1 prints a line per epoch, 2 shows a progress bar in terminals and notebooks.
    callbacks : list of skorch.callbacks.Callback or None, default=None
        Passed on to skorch.

    Attributes
    ----------
    encoder_ : torch.nn.Module
        The encoder at its best epoch, on the CPU.
    decoder_ : torch.nn.Module
        The decoder at its best epoch, on the CPU.
    loss_network_ : FrozenNetwork or None
        The frozen loss network.
    history_ : list of dict
        One row per epoch with the keys "epoch", "train_loss", "valid_loss" and "seconds".
    best_epoch_ : int
        The epoch, counted from 1, whose weights were kept.
    n_epochs_ : int
        Number of epochs trained.
    batch_size_ : int
        Images per training step.
    validation_loss_ : float
        The loss of the best epoch on the held-out images.
    image_shape_ : tuple of int
        Shape of one image in fit.
    n_features_in_ : int
        Number of values in one image.
    n_parameters_ : int
        Number of trained parameters, of encoder and decoder together.

    See Also
    --------
    FeaturePredictionEncoder : Predicts what a pretrained network sees instead of pixels.
    PerceptualAutoencoder : Compares what a pretrained network sees.

    References
    ----------
    .. [1] G. Grund Pihlgren, F. Sandin, M. Liwicki, "Pretraining Image Encoders without
       Reconstruction via Feature Prediction Loss", ICPR 2020.

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

    def _describe_architecture(self) -> dict[str, Any]:
        architecture = super()._describe_architecture()
        # An encoder of images needs none: the loss compares pixels.
        return (
            architecture if self.encoder == "features" else {**architecture, "loss_network": None}
        )

    def _find_target(self, view: FeatureExtractor) -> None:
        return None

    def _make_objective(self, target: nn.Module | None, n_features: int, z: int) -> Objective:
        return Objective(ImageDecoder(z, self._preprocess.output_size), PixelLoss(self._preprocess))
