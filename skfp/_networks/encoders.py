"""Encoders by name: the paper's two (section V, figure 3) and others, or modules of the user's."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .decoders import hidden_width
from .trunks import TRUNKS


class Encoder(nn.Module):
    """A trunk from inputs to (batch, width), and a linear head from there to (batch, z)."""

    head: nn.Linear

    def __init__(self, trunk: nn.Module, width: int, z: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(width, z)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map a batch of inputs to embeddings (batch, z)."""
        return self.head(self.trunk(inputs))


class ImageEncoder(Encoder):
    """Four strided convolutions and a linear map (figure 3), for images of at least 46 pixels.

    >>> import torch
    >>> encoder = ImageEncoder((64, 64), z=64)
    >>> sum(p.numel() for p in encoder.parameters())
    756704
    >>> encoder(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 64])
    """

    CHANNELS = (32, 64, 128, 256)
    KERNEL = 4

    def __init__(
        self,
        size: tuple[int, int],
        z: int,
        channels: Sequence[int] = CHANNELS,
        in_channels: int = 3,
    ) -> None:
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise((in_channels, *channels)):
            layers += [nn.Conv2d(n_in, n_out, self.KERNEL, stride=2)]
            layers += [nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
        sides = [self._side_after(side) for side in size]
        super().__init__(nn.Sequential(*layers, nn.Flatten()), channels[-1] * math.prod(sides), z)

    def _side_after(self, side: int) -> int:
        for _ in self.CHANNELS:
            side = (side - self.KERNEL) // 2 + 1
        return side


class FeatureEncoder(Encoder):
    """A perceptron with one hidden layer, from loss network features to the embedding.

    With a mean of the features, the mean is subtracted first and the hidden layer is normalised;
    without, it is the paper's.
    """

    def __init__(self, n_features: int, z: int, mean: torch.Tensor | None = None) -> None:
        hidden = hidden_width(n_features)
        layers: list[nn.Module] = [nn.Linear(n_features, hidden)]
        if mean is not None:
            layers = [Centre(mean), *layers, nn.LayerNorm(hidden, elementwise_affine=False)]
        super().__init__(nn.Sequential(*layers, nn.ReLU(inplace=True)), hidden, z)


class Centre(nn.Module):
    """Subtracts a mean that is not trained."""

    mean: torch.Tensor

    def __init__(self, mean: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features (batch, n_features) to their differences from the mean."""
        return features - self.mean


class CustomEncoder(Encoder):
    """A module of the user's own and a linear map.

    `make_trunk` takes the size (height, width) of the images and returns a module from images
    (b, in_channels, height, width) to a tensor (b, ...).

    >>> import torch
    >>> encoder = CustomEncoder(lambda size: nn.Conv2d(3, 5, 16, stride=16), (64, 64), z=2)
    >>> encoder(torch.zeros(3, 3, 64, 64)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        make_trunk: Callable[[tuple[int, int]], nn.Module],
        size: tuple[int, int],
        z: int,
        in_channels: int = 3,
    ) -> None:
        if isinstance(make_trunk, nn.Module):
            raise TypeError(
                "encoder is a module, and each fit needs a new one. Pass a function that makes it "
                "for images of a size (height, width)."
            )
        trunk = make_trunk(size)
        if not isinstance(trunk, nn.Module):
            raise TypeError(
                f"encoder returned a {type(trunk).__name__}. Expected a function that takes the "
                "size (height, width) of the images and returns a torch.nn.Module."
            )
        trunk = nn.Sequential(trunk, nn.Flatten())
        mode = trunk.training
        like = next(trunk.parameters(), torch.empty(0))
        # Lazy parameters have a dtype and a device, but no values yet.
        images = torch.zeros(2, in_channels, *size, dtype=like.dtype, device=like.device)
        try:
            with torch.no_grad():
                # In evaluation mode: in training mode, statistics of BatchNorm would change.
                codes = trunk.eval()(images)
        except Exception as error:  # the user's module may fail in any way
            raise ValueError(
                f"The module that encoder returned cannot take images of shape (b, {in_channels}, "
                f"{size[0]}, {size[1]}), or returned no tensor: {error}"
            ) from error
        if codes.ndim != 2 or len(codes) != 2:
            raise ValueError(
                "The module that encoder returned must turn 2 images into a tensor of shape "
                f"(2, ...), got {tuple(codes.shape)}."
            )
        super().__init__(trunk.train(mode), codes.shape[1], z)


# Channels of the encoders that are like the paper's, "image", by name.
IMAGE_ENCODERS = {
    "small": (16, 32, 64, 128),
    "image": ImageEncoder.CHANNELS,
    "large": (64, 128, 256, 512),
}
# The second is the paper's: nothing is normalised.
FEATURE_ENCODERS = ("features", "paper-features")


def takes_features(encoder: str | Callable) -> bool:
    """Tell whether an encoder's input is features instead of images."""
    return isinstance(encoder, str) and encoder in FEATURE_ENCODERS


def make_encoder(
    encoder: str | Callable,
    n_features: int,
    size: tuple[int, int],
    z: int,
    mean: torch.Tensor | None = None,
    in_channels: int = 3,
) -> Encoder:
    """Make the encoder that an estimator's `encoder` parameter names; `mean` is of its features."""
    if callable(encoder):
        return CustomEncoder(encoder, size, z, in_channels)
    if takes_features(encoder):
        return FeatureEncoder(n_features, z, mean)
    if encoder in TRUNKS:
        return Encoder(*TRUNKS[encoder](in_channels), z)
    return ImageEncoder(size, z, IMAGE_ENCODERS[encoder], in_channels)


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Return a faster evaluation copy: each BatchNorm becomes part of the convolution before it."""
    folded = copy.deepcopy(module).eval()
    sequences: list[Any] = [m for m in folded.modules() if type(m).forward is nn.Sequential.forward]
    for sequence in sequences:
        layers: list[nn.Module] = []
        # Not children(), which yields a repeated layer once. Subclasses may do more than their
        # base class and are left as they are.
        for layer in sequence:
            before = layers[-1] if layers else None
            if (
                type(layer) is nn.BatchNorm2d
                and layer.track_running_stats
                and type(before) is nn.Conv2d
            ):
                layers[-1] = fuse_conv_bn_eval(before, layer)
            else:
                layers.append(layer)
        if len(layers) < len(sequence._modules):
            sequence._modules = {str(i): layer for i, layer in enumerate(layers)}
    return folded.to(memory_format=torch.channels_last)
