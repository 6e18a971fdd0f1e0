"""From stored pixels to what the networks see: RGB on the unit scale, at least 64 by 64."""

from __future__ import annotations

import torch
from torch import nn

from skfp._data.image_set import ImageFormat

MIN_SIDE_OF_NETWORKS = 64


class Preprocess(nn.Module):
    """Lay images on the canvas that encoders and loss networks see.

    uint8 is divided by 255, grey is repeated to three channels, and images smaller than 64 pixels
    are tiled, as the paper's authors do with the 32 by 32 digits of SVHN.

    Parameters
    ----------
    size : tuple of int
        Height and width of the images in pixels.

    Attributes
    ----------
    canvas_size : tuple of int
        Height and width of the canvas, each at least 64.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.output_size = (max(size[0], MIN_SIDE_OF_NETWORKS), max(size[1], MIN_SIDE_OF_NETWORKS))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (b, 1 or 3, height, width) to float32 (b, 3, canvas height, canvas width)."""
        if self.output_size != self.size:
            height, width = self.output_size
            times = (-(-height // self.size[0]), -(-width // self.size[1]))
            images = images.repeat(1, 1, *times)[..., :height, :width]
        if images.dtype == torch.uint8:
            images = images.to(torch.float32).div_(255)
        images = images.expand(-1, 3, -1, -1)
        return images.contiguous(memory_format=torch.channels_last)

    def crop(self, preprocess: torch.Tensor) -> torch.Tensor:
        """Cut the images back out of canvases."""
        return preprocess[..., : self.size[0], : self.size[1]]


class InputDecoder(nn.Module):
    """Read stored images, in the layout and range that fit has seen, as batches of pixels.

    Parameters
    ----------
    format : ImageFormat
        How an item is an image.
    """

    def __init__(self, format: ImageFormat) -> None:
        super().__init__()
        self.format = format

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Map (b, *format.shape) to uint8 or unit-scale float32 (b, channels, height, width)."""
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
