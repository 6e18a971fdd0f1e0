"""Feature prediction: the decoder predicts the features of a loss network."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions

from ._base import BaseImageEncoder
from ._docs import fill_docstring
from ._loss_network import describe
from ._networks import Architecture
from ._networks.encoders import takes_features


@fill_docstring(
    image="I-F-FP",
    auto_encoder='''"pretrained" where `loss_network` names another network than "alexnet", else
    "image"''',
    features="F-F-FP",
    role="The network whose features are predicted.",
    batch_size="""64 with an encoder of images, which learns best in small steps, and 128 with
    ``encoder="features"``, whose many weights make each step costly""",
    lr_type='float or "auto", default="auto"',
    lr="""the highest one if there is a schedule. "auto" is 3e-3, and 1e-3 with
    ``encoder="pretrained"``, whose first layers have learned already""",
    lr_schedule='"one-cycle"',
    or_none="",
)
class FeaturePredictionEncoder(BaseImageEncoder):
    """Image encoder trained to predict features of a pretrained network (I-F-FP and F-F-FP).

    The encoder turns an image into z numbers, and a decoder predicts from them the features that a
    frozen, pretrained loss network extracts from the image [1]_. No image is ever decoded, which
    makes training faster than that of an autoencoder, and the embedding keeps what matters to
    vision.

    Parameters
    ----------
    <z>
    <encoder>
    <loss_network>
    <max_epochs>
    target_components : int, "auto" or None, default="auto"
        How many leading principal components of the features the decoder predicts; "auto" takes as
        many as explain 98 % of their variance, at most 512. None predicts the features
        themselves, the paper's exact loss. See Notes.
    <parameters>

    Attributes
    ----------
    <attributes>

    See Also
    --------
    LossNetwork : Describes a loss network: which one, cut where, its features pooled how.
    PerceptualAutoencoder : Decodes images and compares their features.
    PixelAutoencoder : Decodes images and compares pixels.

    Notes
    -----
    The loss is equation 3 of the paper, the mean squared error over the m features. With
    `target_components` the decoder predicts k coefficients c' instead of m features: they stand
    for the features mean + c' B, where the rows of B are the leading principal components of the
    features of at most 4,096 training images. As B is orthonormal, the loss is
    (||c - c'||^2 + r) / m, where c are the true coefficients and r is the squared length of the
    features outside B. The decoder learns all it could learn about the components; what it cannot
    predict, r, counts in the reported losses and has no gradient. In LunarLander frames 512
    components hold 95 % of the variance of 9,408 features, and an epoch takes half the time.

    References
    ----------
    <references>

    Examples
    --------
    >>> import numpy as np
    >>> from skfp import FeaturePredictionEncoder
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    >>> encoder = FeaturePredictionEncoder(z=8, max_epochs=1, random_state=0)
    >>> encoder.fit_transform(images).shape
    (20, 8)
    """

    _LOSS = "features"
    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseImageEncoder._parameter_constraints,
        "lr": [*BaseImageEncoder._parameter_constraints["lr"], StrOptions({"auto"})],
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
        encoder: str | Callable = "auto",
        loss_network: Any = "alexnet",
        max_epochs: int | None = 50,
        max_seconds: float | None = None,
        random_state: Any = None,
        target_components: int | str | None = "auto",
        image_shape: Sequence[int] | None = None,
        value_range: str | Sequence[float] = "auto",
        channels: str | Sequence[int] = "auto",
        resize: str | int | Sequence[int] = "auto",
        batch_size: int | str = "auto",
        lr: float | str = "auto",
        lr_schedule: str | None = "one-cycle",
        augment: bool = False,
        validation_fraction: float = 0.2,
        patience: int = 10,
        gamma: float = 0.0,
        warm_start: bool = False,
        memory: Any = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        device: str | torch.device = "auto",
        verbose: int = 0,
        callbacks: Sequence[Any] | None = None,
        net_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            z,
            encoder=encoder,
            loss_network=loss_network,
            max_epochs=max_epochs,
            max_seconds=max_seconds,
            random_state=random_state,
            image_shape=image_shape,
            value_range=value_range,
            channels=channels,
            resize=resize,
            batch_size=batch_size,
            lr=lr,
            lr_schedule=lr_schedule,
            augment=augment,
            validation_fraction=validation_fraction,
            patience=patience,
            gamma=gamma,
            warm_start=warm_start,
            memory=memory,
            checkpoint_dir=checkpoint_dir,
            device=device,
            verbose=verbose,
            callbacks=callbacks,
            net_params=net_params,
        )
        self.target_components = target_components

    def _architecture(self) -> Architecture:
        return super()._architecture().replace(target_components=self.target_components)

    def _batch_size(self) -> int:
        if self.batch_size == "auto" and not takes_features(self.encoder):
            return 64
        return super()._batch_size()

    def _encoder(self) -> str | Callable:
        if self.encoder != "auto":
            return self.encoder
        described: Any = describe(self.loss_network)
        networks = described if isinstance(described, list) else [described]
        names = [network.network for network in networks if isinstance(network.network, str)]
        return "image" if all(name == "alexnet" for name in names) else "pretrained"

    def _lr(self) -> float:
        if self.lr == "auto":
            return 1e-3 if self._encoder() == "pretrained" else 3e-3
        return super()._lr()
