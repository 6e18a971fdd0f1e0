"""Layers before and after a pretrained network: resizing, normalisation, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Resize(nn.Module):
    """Resize images bilinearly so that their shorter side has `side` pixels."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        factor = self.side / min(height, width)
        size = [round(height * factor), round(width * factor)]
        return F.interpolate(images, size=size, mode="bilinear", antialias=factor < 1)


class Normalise(nn.Module):
    """Subtract a mean from each colour and divide by a deviation, on the unit scale."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class Pool(nn.Module):
    """Average maps within the fields of a grid, where they have more than `largest` rows."""

    def __init__(self, grid: int, largest: int) -> None:
        super().__init__()
        self.grid = grid
        self.largest = largest

    def forward(self, features: Tensor) -> Tensor:
        if features.ndim <= 2:
            return features
        if features.ndim != 4:
            raise ValueError(
                f"pool={self.grid} needs feature maps (channels, rows, columns), but the layer "
                f'gives features of shape {tuple(features.shape[1:])}. Use pool="avg" or '
                'pool="flatten".'
            )
        height, width = (self.grid if side > self.largest else side for side in features.shape[2:])
        if (height, width) == features.shape[2:]:
            return features
        return F.adaptive_avg_pool2d(features, (height, width))


class PoolMaps(Pool):
    """Pool maps, and leave tokens as they are."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) if features.ndim == 4 else features


class Average(nn.Module):
    """Average maps over all places; of tokens take "cls", the first, or "avg", or "cls+avg".

    The average leaves out the first `n_prefix` tokens, which stand for no place.
    """

    def __init__(self, tokens: str, n_prefix: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.n_prefix = n_prefix

    def forward(self, features: Tensor) -> Tensor:
        if features.ndim == 3:  # (b, tokens, channels)
            average = features[:, self.n_prefix :].mean(dim=1)
            chosen = {"cls": features[:, 0], "avg": average}
            return torch.cat([chosen[name] for name in self.tokens.split("+")], dim=1)
        if self.tokens != "avg":
            raise ValueError(
                f"pool={self.tokens!r} needs tokens (tokens, channels), but the layer gives "
                f'features of shape {tuple(features.shape[1:])}. Use pool="avg".'
            )
        return features if features.ndim == 2 else features.flatten(2).mean(dim=2)


class ChannelsFirst(nn.Module):
    """Turn maps (b, rows, columns, channels) to (b, channels, rows, columns)."""

    def forward(self, features: Tensor) -> Tensor:
        return features.permute(0, 3, 1, 2) if features.ndim == 4 else features


class Function(nn.Module):
    """A function of images as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)
