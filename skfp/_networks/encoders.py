"""Encoders and decoders: the paper's four (section V, figures 3 and 4), others, and the user's.

They take images of any size from 64 up.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Encoder(nn.Module):
    """A trunk and a linear head that maps its output to the embedding.

    Parameters
    ----------
    trunk : nn.Module
        Maps a batch of inputs to (batch, width).
    width : int
        Number of values that the trunk gives.
    z : int
        Size of the embedding.
    """

    head: nn.Linear

    def __init__(self, trunk: nn.Module, width: int, z: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(width, z)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map a batch of inputs to embeddings (batch, z)."""
        return self.head(self.trunk(inputs))


class ImageEncoder(Encoder):
    """Four strided convolutions and a linear map (figure 3).

    Parameters
    ----------
    size : tuple of int
        Height and width of the images in pixels, at least 46 each.
    z : int
        Size of the embedding.
    channels : sequence of 4 ints, default=(32, 64, 128, 256)
        Channels after each convolution.

    Examples
    --------
    >>> import torch
    >>> encoder = ImageEncoder((64, 64), z=64)
    >>> sum(p.numel() for p in encoder.parameters())
    756704
    >>> encoder(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 64])
    """

    CHANNELS = (32, 64, 128, 256)
    KERNEL = 4

    def __init__(self, size: tuple[int, int], z: int, channels: Sequence[int] = CHANNELS) -> None:
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise((3, *channels)):
            layers += [nn.Conv2d(n_in, n_out, self.KERNEL, stride=2)]
            layers += [nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
        sides = [self._side_after(side) for side in size]
        super().__init__(nn.Sequential(*layers, nn.Flatten()), channels[-1] * math.prod(sides), z)

    def _side_after(self, side: int) -> int:
        for _ in self.CHANNELS:
            side = (side - self.KERNEL) // 2 + 1
        return side


class CustomEncoder(Encoder):
    """A module of the user's and a linear map.

    Parameters
    ----------
    make_trunk : callable
        Takes the size of the images and returns a module from images (b, 3, height, width) to a
        tensor (b, ...).
    size : tuple of int
        Height and width of the images in pixels.
    z : int
        Size of the embedding.

    Raises
    ------
    TypeError
        If `make_trunk` returns no module.
    ValueError
        If the module cannot take images of that size, or gives no tensor with a row for each.

    Examples
    --------
    >>> import torch
    >>> encoder = OwnEncoder(lambda size: nn.Conv2d(3, 5, kernel_size=16, stride=16), (64, 64), z=2)
    >>> encoder(torch.zeros(3, 3, 64, 64)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self, make_trunk: Callable[[tuple[int, int]], nn.Module], size: tuple[int, int], z: int
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
        # Without a first pass in training mode, which would move statistics of BatchNorm.
        mode = trunk.training
        like = next(trunk.parameters(), torch.empty(0))
        # Lazy parameters have a type and a place, but no values yet.
        images = torch.zeros(2, 3, *size, dtype=like.dtype, device=like.device)
        try:
            with torch.no_grad():
                codes = trunk.eval()(images)
        except Exception as error:  # a module of the user's may fail in any way
            raise ValueError(
                f"The module that encoder returned cannot take images of shape (b, 3, {size[0]}, "
                f"{size[1]}), or returned no tensor: {error}"
            ) from error
        if codes.ndim != 2 or len(codes) != 2:
            raise ValueError(
                "The module that encoder returned must turn 2 images into a tensor of shape "
                f"(2, ...), got {tuple(codes.shape)}."
            )
        super().__init__(trunk.train(mode), codes.shape[1], z)


class Centring(nn.Module):
    """Subtracts a mean, which is not trained.

    Parameters
    ----------
    mean : Tensor of shape (n_features,)
    """

    mean: torch.Tensor

    def __init__(self, mean: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features (batch, n_features) to their differences from the mean."""
        return features - self.mean


class FeatureEncoder(Encoder):
    """A perceptron with one hidden layer, from loss network features to the embedding.

    Parameters
    ----------
    n_features : int
        Number of features of one image.
    z : int
        Size of the embedding.
    mean : Tensor of shape (n_features,) or None, default=None
        What is subtracted from features first; the hidden layer is normalised then (LayerNorm).
        None does neither, as the paper.
    """

    def __init__(self, n_features: int, z: int, mean: torch.Tensor | None = None) -> None:
        hidden = hidden_width(n_features)
        layers: list[nn.Module] = [nn.Linear(n_features, hidden)]
        if mean is not None:
            layers = [Centring(mean), *layers, nn.LayerNorm(hidden, elementwise_affine=False)]
        super().__init__(nn.Sequential(*layers, nn.ReLU(inplace=True)), hidden, z)


class ImageDecoder(nn.Module):
    """A linear map and four transposed convolutions, from the embedding to an image (figure 4).

    The layers give sides of 64 + 16 k pixels; other sizes are cut out of the next larger one.

    Parameters
    ----------
    z : int
        Size of the embedding.
    size : tuple of int
        Height and width of the images in pixels.

    Examples
    --------
    >>> import torch
    >>> decoder = ImageDecoder(64, (64, 64))
    >>> sum(p.numel() for p in decoder.parameters())
    3626019
    >>> decoder(torch.zeros(2, 64)).shape
    torch.Size([2, 3, 64, 64])
    """

    WIDTH = 1024

    def __init__(self, z: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.grid = tuple(max(math.ceil((side - 64) / 16), 0) + 1 for side in size)
        self.linear = nn.Linear(z, self.WIDTH * math.prod(self.grid))
        layers: list[nn.Module] = []
        for n_in, n_out, kernel in ((self.WIDTH, 128, 5), (128, 64, 5), (64, 32, 6)):
            layers += [nn.ConvTranspose2d(n_in, n_out, kernel, stride=2)]
            layers += [nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(32, 3, 6, stride=2), nn.Sigmoid())

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Map embeddings (batch, z) to images (batch, 3, height, width) in [0, 1]."""
        grid = torch.relu(self.linear(embedding)).unflatten(1, (self.WIDTH, *self.grid))
        grid = grid.contiguous(memory_format=torch.channels_last)
        return self.layers(grid)[..., : self.size[0], : self.size[1]]


class FeatureDecoder(nn.Sequential):
    """A perceptron with one hidden layer, from the embedding to loss network features.

    Parameters
    ----------
    z : int
        Size of the embedding.
    n_features : int
        Number of features of one image; the hidden layer has ``min(n_features / 2, 2048)`` units.
    n_outputs : int or None, default=None
        Number of values to predict where that is not the number of features: the coefficients of
        their principal components.

    Examples
    --------
    >>> decoder = FeatureDecoder(64, 9408)
    >>> sum(p.numel() for p in decoder.parameters())
    19410112
    """

    def __init__(self, z: int, n_features: int, n_outputs: int | None = None) -> None:
        hidden = hidden_width(n_features)
        super().__init__(
            nn.Linear(z, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, n_features if n_outputs is None else n_outputs),
        )


# Channels of the image encoders by the name that `encoder` gives them; "image" is the paper's.
IMAGE_ENCODERS = {
    "small": (16, 32, 64, 128),
    "image": ImageEncoder.CHANNELS,
    "large": (64, 128, 256, 512),
}


def make_encoder(
    encoder: str | Callable,
    n_features: int,
    size: tuple[int, int],
    z: int,
    mean: torch.Tensor | None = None,
) -> Encoder:
    """Make what an estimator's `encoder` parameter asks for.

    Parameters
    ----------
    encoder : "features", a key of `IMAGE_ENCODERS`, or callable
    n_features : int
        Number of features of one image.
    size : tuple of int
        Height and width of the images in pixels.
    z : int
        Size of the embedding.
    mean : Tensor of shape (n_features,) or None, default=None
        As in `FeatureEncoder`; no other encoder is affected.

    Returns
    -------
    encoder : Encoder
    """
    if callable(encoder):
        return CustomEncoder(encoder, size, z)
    if encoder == "features":
        return FeatureEncoder(n_features, z, mean)
    return ImageEncoder(size, z, IMAGE_ENCODERS[encoder])


def hidden_width(n_features: int) -> int:
    """Width of the hidden layer of the feature coders."""
    return max(min(n_features // 2, 2048), 1)


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Return an evaluation copy in which each BatchNorm is part of the convolution before it.

    Parameters
    ----------
    module : nn.Module
        Left as it is.

    Returns
    -------
    folded : nn.Module
        Gives the same output as ``module.eval()``, faster.
    """
    folded = copy.deepcopy(module).eval()
    sequences: list[Any] = [m for m in folded.modules() if type(m).forward is nn.Sequential.forward]
    for sequence in sequences:
        layers: list[nn.Module] = []
        # Not children(), which gives a layer once that comes twice. A subclass may do more than its
        # base: it is left as it is.
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
