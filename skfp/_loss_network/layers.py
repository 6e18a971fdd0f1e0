"""What stands before and behind a pretrained network: resizing, normalisation, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Resize(nn.Module):
    """Resize images bilinearly so that their shorter side has a number of pixels.

    Parameters
    ----------
    side : int
        Length of the shorter side in pixels.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        """Resize images (b, channels, height, width)."""
        height, width = images.shape[-2:]
        factor = self.side / min(height, width)
        size = [round(height * factor), round(width * factor)]
        return F.interpolate(images, size=size, mode="bilinear", antialias=factor < 1)


class Normalise(nn.Module):
    """Subtract a mean from each colour and divide by a deviation.

    Parameters
    ----------
    mean, std : sequence of 3 floats
        Red, green and blue, on the unit scale.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images (b, 3, height, width)."""
        return (images - self.mean) / self.std


class Pool(nn.Module):
    """Average features over places, or over the fields of a grid.

    Parameters
    ----------
    grid : int or None
        Fields on each side of the grid; None averages over all places.

    Examples
    --------
    >>> import torch
    >>> maps = torch.rand(2, 192, 7, 7)
    >>> Pool(None)(maps).shape, Pool(3)(maps).shape, Pool(8)(maps).shape
    (torch.Size([2, 192]), torch.Size([2, 192, 3, 3]), torch.Size([2, 192, 7, 7]))
    >>> Pool(None)(torch.rand(2, 50, 768)).shape
    torch.Size([2, 768])
    """

    def __init__(self, grid: int | None) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, features: Tensor) -> Tensor:
        """Pool maps (b, channels, rows, columns, ...) or tokens (b, tokens, channels)."""
        if features.ndim <= 2:
            return features
        if self.grid is None:
            return features.mean(dim=1) if features.ndim == 3 else features.flatten(2).mean(dim=2)
        if features.ndim != 4:
            raise ValueError(
                f"pool={self.grid} needs feature maps (channels, rows, columns), but the layer "
                f'gives features of shape {tuple(features.shape[1:])}. Use pool="avg" or '
                'pool="flatten".'
            )
        rows, columns = features.shape[2:]
        return F.adaptive_avg_pool2d(features, (min(self.grid, rows), min(self.grid, columns)))


class Function(nn.Module):
    """A callable in the place of a network.

    Parameters
    ----------
    function : callable
        Maps images (b, 3, height, width) to a tensor (b, ...).
    """

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        """Call the function."""
        return self.function(images)
