"""Augmentation of the encoder's input in training."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch


def flip_and_shift(images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Flip half of the images from left to right, and shift each by up to an eighth of its sides.

    What a shift uncovers is filled with a reflection of the image.
    """
    n_images, n_channels, height, width = images.shape
    device = images.device
    draw: Any = partial(torch.randint, size=(n_images, 1), generator=generator, device=device)
    rows, columns = (
        _reflect(torch.arange(side, device=device) + draw(-(side // 8), side // 8 + 1), side)
        for side in (height, width)
    )
    columns = torch.where(draw(0, 2).bool(), columns.flip(1), columns)
    # One look-up of whole pixels, which lie together in channels-last memory.
    first = torch.arange(n_images, device=device)[:, None, None] * height
    pixels = (first + rows[:, :, None]) * width + columns[:, None, :]
    flat = images.permute(0, 2, 3, 1).reshape(-1, n_channels)
    return flat[pixels].permute(0, 3, 1, 2)


def _reflect(positions: torch.Tensor, side: int) -> torch.Tensor:
    positions = positions.abs()
    return torch.minimum(positions, 2 * (side - 1) - positions)
