"""Decoded images to the input of networks."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from .._images.formats import ImageFormat
from .decoding import decode, decode_any_size


class Preprocess(nn.Module):
    """Make the input of encoders from images (b, channels, height, width).

    uint8 is divided by 255, and grey is repeated to three channels.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 images in [0, 1], in channels-last memory."""
        if images.dtype == torch.uint8:
            images = images.to(torch.float32).div_(255)
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        return images.contiguous(memory_format=torch.channels_last)


class InputDecoder(nn.Module):
    """Decode images in the layout and range of those in fit: the first layer of an export."""

    def __init__(self, format: ImageFormat) -> None:
        super().__init__()
        if format.dtype == "bool":
            format = dataclasses.replace(format, low=0.0, high=1.0)
        self.format = format

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Map (b, *format.shape) to (b, channels, height, width): uint8, or float32 in [0, 1]."""
        shape = tuple(items.shape[1:])
        expected = self.format.shape
        if self.format.takes_any_size:
            free = self.format.size_axes
            expected = tuple(shape[a] if a in free else n for a, n in enumerate(expected))
        if shape != expected:
            raise ValueError(
                f"Expected a batch of images of shape {self.format.shape}, as in fit, got a tensor "
                f"of shape {tuple(items.shape)}."
            )
        if not self._takes(items.dtype):
            raise ValueError(f"Expected {self.dtype} images, as in fit, got {items.dtype}.")
        if self.format.takes_any_size:
            return decode_any_size(items, self.format)
        return decode(items, self.format)

    def _takes(self, dtype: torch.dtype) -> bool:
        """Tell whether images are of the kind in fit, in any precision."""
        if self.dtype != torch.float32:
            return dtype == self.dtype
        if dtype.is_floating_point:
            return True
        return self.format.dtype == "int" and dtype not in (torch.bool, torch.uint8)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the images in fit: bool, uint8, or float32 for any other."""
        kinds = {"bool": torch.bool, "uint8": torch.uint8}
        return kinds.get(self.format.dtype, torch.float32)
