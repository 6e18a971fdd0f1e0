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
    """Average maps within the fields of a grid by grid, or maps and tokens over all places."""

    def __init__(self, grid: int | None) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, features: Tensor) -> Tensor:
        if features.ndim <= 2:
            return features
        if self.grid is None and features.ndim == 3:  # (b, tokens, channels)
            return features.mean(dim=1)
        if self.grid is None:  # (b, channels, rows, columns, ...)
            return features.flatten(2).mean(dim=2)
        if features.ndim != 4:
            raise ValueError(
                f"pool={self.grid} needs feature maps (channels, rows, columns), but the layer "
                f'gives features of shape {tuple(features.shape[1:])}. Use pool="avg" or '
                'pool="flatten".'
            )
        rows, columns = features.shape[2:]
        return F.adaptive_avg_pool2d(features, (min(self.grid, rows), min(self.grid, columns)))


class Function(nn.Module):
    """A function of images as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)
