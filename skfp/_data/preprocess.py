"""Stored pixels to the input of networks: RGB in [0, 1], at least 64 by 64 pixels."""

from __future__ import annotations

import torch
from torch import nn

from .formats import ImageFormat

MIN_NETWORK_SIDE = 64


class Preprocess(nn.Module):
    """Make the input of encoders and loss networks from images of a size (height, width).

    uint8 is divided by 255, grey is repeated to three channels, and images smaller than 64 pixels
    are tiled, as the paper's authors do with the 32 by 32 digits of SVHN. `output_size` is the
    height and width after tiling.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.output_size = (max(size[0], MIN_NETWORK_SIDE), max(size[1], MIN_NETWORK_SIDE))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (b, 1 or 3, height, width) to float32 (b, 3, *output_size) in [0, 1]."""
        if self.output_size != self.size:
            height, width = self.output_size
            times = (-(-height // self.size[0]), -(-width // self.size[1]))
            images = images.repeat(1, 1, *times)[..., :height, :width]
        if images.dtype == torch.uint8:
            images = images.to(torch.float32).div_(255)
        images = images.expand(-1, 3, -1, -1)
        return images.contiguous(memory_format=torch.channels_last)

    def crop(self, pixels: torch.Tensor) -> torch.Tensor:
        """Undo tiling."""
        return pixels[..., : self.size[0], : self.size[1]]


class InputDecoder(nn.Module):
    """Decode images in the layout and range of those in fit: the first layer of an export."""

    def __init__(self, format: ImageFormat) -> None:
        super().__init__()
        self.format = format

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Map (b, *format.shape) to uint8 or float32 (b, channels, height, width) in [0, 1]."""
        if tuple(items.shape[1:]) != self.format.shape:
            raise ValueError(
                f"Expected a batch of images of shape {self.format.shape}, as in fit, got a tensor "
                f"of shape {tuple(items.shape)}."
            )
        if (items.dtype == torch.uint8) != (self.format.low is None):
            raise ValueError(
                f"Expected {'uint8' if self.format.low is None else 'float'} images, as in fit, "
                f"got {items.dtype}."
            )
        return self.format.to_batch(self.format.to_unit_scale(items))
