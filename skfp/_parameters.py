"""The parameters that the three estimators share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from ._images.formats import MIN_NETWORK_SIDE
from ._loss_network import LossNetwork, describe
from ._networks import FEATURE_ENCODERS, IMAGE_ENCODERS, TRUNKS


class EncoderParameters(BaseEstimator):
    """Parameters, their constraints, and the paper's settings of them."""

    _parameter_constraints: ClassVar[dict[str, list]] = {
        "z": [Interval(Integral, 1, None, closed="left")],
        "encoder": [StrOptions({"auto", *FEATURE_ENCODERS, *IMAGE_ENCODERS, *TRUNKS}), callable],
        "loss_network": [str, os.PathLike, callable, LossNetwork, list, tuple],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), None],
        "max_seconds": [Interval(Real, 0, None, closed="neither"), None],
        "random_state": ["random_state"],
        "image_shape": [tuple, list, None],
        "value_range": [StrOptions({"auto"}), tuple, list],
        "channels": [StrOptions({"auto", "rgba", "mean", "pca"}), tuple, list],
        "resize": [
            StrOptions({"auto", "tile"}),
            Interval(Integral, MIN_NETWORK_SIDE, None, closed="left"),
            tuple,
            list,
        ],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "lr_schedule": [StrOptions({"one-cycle"}), None],
        "augment": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "gamma": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "memory": [str, os.PathLike, HasMethods("cache"), None],
        "checkpoint_dir": [str, os.PathLike, None],
        "device": [str, torch.device],
        "verbose": ["verbose"],
        "callbacks": [list, tuple, None],
        "net_params": [dict, None],
    }

    _PAPER_SETTINGS: ClassVar[dict[str, Any]] = {
        "resize": "tile",
        "max_epochs": 50,
        "batch_size": 512,
        "lr": 1e-3,
        "lr_schedule": None,
        "augment": False,
        "validation_fraction": 0.2,
        "patience": 10,
        "net_params": {"autocast": False},
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
        image_shape: Sequence[int] | None = None,
        value_range: str | Sequence[float] = "auto",
        channels: str | Sequence[int] = "auto",
        resize: str | int | Sequence[int] = "auto",
        batch_size: int | str = "auto",
        lr: float | str = 1e-3,
        lr_schedule: str | None = None,
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
        self.z = z
        self.encoder = encoder
        self.loss_network = loss_network
        self.max_epochs = max_epochs
        self.max_seconds = max_seconds
        self.random_state = random_state
        self.image_shape = image_shape
        self.value_range = value_range
        self.channels = channels
        self.resize = resize
        self.batch_size = batch_size
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.augment = augment
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.gamma = gamma
        self.warm_start = warm_start
        self.memory = memory
        self.checkpoint_dir = checkpoint_dir
        self.device = device
        self.verbose = verbose
        self.callbacks = callbacks
        self.net_params = net_params

    @classmethod
    def with_paper_settings(cls, z: int = 128, **parameters: Any) -> Self:
        """Make an estimator that trains as the paper did, instead of with this package's defaults.

        Batches of 512, 50 epochs, and Adam at a constant learning rate of 1e-3; feature prediction
        of all features instead of their principal components, and of maps as large as they are
        where `loss_network` is a name; encoders of features that normalise nothing; float32 on any
        device. The paper validates on the last fifth of the images: pass that as `X_val` to repeat
        it exactly.

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
        papers = {"auto": "image", "features": "paper-features"}
        encoder: Any = parameters.get("encoder", "auto")
        parameters["encoder"] = encoder if callable(encoder) else papers.get(encoder, encoder)
        if isinstance(parameters.setdefault("loss_network", "alexnet"), str):
            described: Any = describe(parameters["loss_network"])
            parameters["loss_network"] = described.set_params(pool="flatten")
        return cls(z, **{**cls._PAPER_SETTINGS, **parameters})

    def _encoder(self) -> str | Callable:
        """Return the encoder's name, or what makes it."""
        return "image" if self.encoder == "auto" else self.encoder

    def _check_limits(self) -> None:
        if self.max_epochs is None and self.max_seconds is None:
            raise ValueError(
                "max_epochs and max_seconds are None, and training would not end. Set one of them."
            )

    def _batch_size(self) -> int:
        return 128 if self.batch_size == "auto" else int(self.batch_size)

    def _reading(self) -> dict[str, Any]:
        """Return the parameters that say how images are read."""
        return {name: getattr(self, name) for name in ("value_range", "channels", "resize")}

    def _lr(self) -> float:
        return float(self.lr)

    def _resize(self) -> Any:
        """Check the parameter `resize`."""
        resize: Any = self.resize
        if isinstance(resize, str):
            return resize
        if isinstance(resize, Integral):
            return int(resize)
        sides: tuple[Any, ...] = tuple(resize)
        if len(sides) != 2 or not all(isinstance(s, int | np.integer) and s >= 64 for s in sides):
            raise ValueError(
                f"resize is {self.resize!r}. Expected the shorter side or (height, width), of at "
                'least 64 pixels, "auto" or "tile".'
            )
        return tuple(int(side) for side in sides)
