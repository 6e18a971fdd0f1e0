"""The three public encoders: each names its decoder, its target and its loss."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from skfp._base import BaseImageEncoder, Objective
from skfp._features.extractor import FeatureExtractor, PCAProjection
from skfp._networks.encoders import FeatureDecoder
from skfp._networks.losses import (
    ComponentPredictionLoss,
    FeaturePredictionLoss,
)


class FeaturePredictionEncoder(BaseImageEncoder):
    """Image encoder trained to predict what a pretrained network sees (I-F-FP and F-F-FP).

    The encoder turns an image into z numbers, and a decoder predicts from them the features that a
    frozen, pretrained loss network finds in the image [1]_. No image is ever decoded, which makes
    training faster than that of an autoencoder, and the embedding keeps what matters to vision.

    Parameters
    ----------
    z : int, default=128
        Size of the embedding: how many numbers an image is turned into.
    encoder : {"image", "features", "small", "large"} or callable, default="image"
        "image" takes the image itself (the paper's I-F-FP), "features" what the loss network sees
        in it (F-F-FP). "small" and "large" are "image" with half and twice the channels: of 64 by
        64 pixels they take 8, 30 ("image") and 112 MFLOP each, and embed 20,000, 4,100 and 1,100
        per second on one core (`python -m benchmarks encoders`). A function takes the size (height,
        width) that images have here, at least 64 each, and returns a new module from float images
        (b, 3, height, width) in [0, 1] to a tensor (b, ...), which is flattened and mapped
        linearly to the embedding; `save` cannot keep such a module.
    loss_network : str, LossNetwork, path-like, torch.nn.Module, callable or list, default="alexnet"
        The network whose features are predicted.
        "alexnet" is the paper's: AlexNet pretrained on ImageNet, cut after its second ReLU,
        followed by a sigmoid; its weights come with the package. A path to a file of weights gives
        the same layers other weights. Another name is a model of torchvision, such as "vgg16", or
        of timm, such as "timm:resnet26". A module or function maps float images
        (b, 3, height, width) in [0, 1] to a tensor (b, ...); a module is copied and frozen. A
        :class:`LossNetwork` says more, such as the layer. Several networks in a list are
        joined, each with its share of the loss.
    target_components : int, "auto" or None, default="auto"
        How many leading principal components of the features the decoder predicts; "auto" takes as
        many as explain 98 % of their variance, at most 512. None predicts the features
        themselves, the paper's exact loss. See Notes.
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
        Images per training step. "auto" is 64 with an encoder of images, which learns best in small
        steps, and 128 with ``encoder="features"``, whose many weights make each step costly.
    lr : float, default=3e-3
        Learning rate of Adam, at its highest where there is a schedule.
    lr_schedule : {"one-cycle"} or None, default="one-cycle"
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
    LossNetwork : Describes a loss network: which one, cut where, its features pooled how.
    PerceptualAutoencoder : Decodes images, and compares what the loss network sees in them.
    PixelAutoencoder : Decodes images, and compares pixels.

    Notes
    -----
    The loss is equation 3 of the paper, the mean squared error over the m features. With
    `target_components` the decoder predicts k coefficients c' instead of m features: it stands
    for mean + c' B, where the rows of B are the leading principal components of the features of at
    most 4,096 training images. As B is orthonormal, the loss is (||c - c'||^2 + r) / m, where c
    are the true coefficients and r is the squared length of the features outside B. Nothing
    that the decoder could learn about the components is lost; what is dropped is its ability to
    predict the rest, r, which is counted in the reported losses and has no gradient. In LunarLander
    frames 512 components hold 95 % of the variance of 9,408 features, and an epoch takes half the
    time.

    References
    ----------
    .. [1] G. Grund Pihlgren, F. Sandin, M. Liwicki, "Pretraining Image Encoders without
       Reconstruction via Feature Prediction Loss", ICPR 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from skfp import FeaturePredictionEncoder
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    >>> encoder = FeaturePredictionEncoder(z=8, max_epochs=1, random_state=0)
    >>> encoder.fit_transform(images).shape
    (20, 8)
    """

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseImageEncoder._parameter_constraints,
        "target_components": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
            None,
        ],
    }
    _PAPER_SETTINGS: ClassVar[dict[str, Any]] = {
        **BaseImageEncoder._PAPER_SETTINGS,
        "target_components": None,
    }

    def __init__(
        self,
        z: int = 128,
        *,
        encoder: str | Callable = "image",
        loss_network: Any = "alexnet",
        target_components: int | str | None = "auto",
        normalize_features: bool = True,
        image_shape: Sequence[int] | None = None,
        max_epochs: int = 50,
        batch_size: int | str = "auto",
        lr: float = 3e-3,
        lr_schedule: str | None = "one-cycle",
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
        super().__init__(
            z,
            encoder=encoder,
            loss_network=loss_network,
            normalize_features=normalize_features,
            image_shape=image_shape,
            max_epochs=max_epochs,
            batch_size=batch_size,
            lr=lr,
            lr_schedule=lr_schedule,
            validation_fraction=validation_fraction,
            patience=patience,
            gamma=gamma,
            memory=memory,
            checkpoint_dir=checkpoint_dir,
            warm_start=warm_start,
            precision=precision,
            compile=compile,
            device=device,
            random_state=random_state,
            verbose=verbose,
            callbacks=callbacks,
        )
        self.target_components = target_components

    def _find_batch_size(self) -> int:
        if self.batch_size == "auto" and self.encoder != "features":
            return 64
        return super()._find_batch_size()

    def _describe_architecture(self) -> dict[str, Any]:
        return {**super()._describe_architecture(), "target_components": self.target_components}

    def _find_target(self, view: FeatureExtractor) -> nn.Module:
        if self.target_components is None:
            return nn.Identity()
        return view.components(self.target_components)

    def _make_objective(self, target: nn.Module | None, n_features: int, z: int) -> Objective:
        if isinstance(target, PCAProjection):
            decoder = FeatureDecoder(z, n_features, len(target.basis))
            return Objective(decoder, ComponentPredictionLoss(n_features))
        return Objective(FeatureDecoder(z, n_features), FeaturePredictionLoss())

    def _decoded_features(self, decoded: torch.Tensor) -> torch.Tensor:
        return (
            self._target.features(decoded) if isinstance(self._target, PCAProjection) else decoded
        )
