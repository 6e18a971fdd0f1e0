"""Stored items to images for networks, and back, on any device."""

from __future__ import annotations

import dataclasses

import torch
from torch.nn import functional as F

from .._images.formats import ImageFormat


def decode(items: torch.Tensor, format: ImageFormat) -> torch.Tensor:
    """Read stored items as (b, channels, *network_size): uint8, or float32 in [0, 1]."""
    return _resized(_to_images(items, format), format)


def decode_any_size(items: torch.Tensor, format: ImageFormat) -> torch.Tensor:
    """Read items of any height and width as `decode` does, with the same operations for all."""
    shape = tuple(items.shape[1:])
    images = _to_images(items, dataclasses.replace(format, shape=shape, image_shape=shape))
    if images.dtype == torch.uint8:
        images = images.to(torch.float32).div(255)
    # What is enlarged needs no antialiasing, but is not changed by it either.
    return F.interpolate(
        images.contiguous(), size=format.network_size, mode="bilinear", antialias=True
    )


def _to_images(items: torch.Tensor, format: ImageFormat) -> torch.Tensor:
    """Read stored items as (b, channels, height, width), of the size as stored."""
    images = _to_batch(_to_unit_scale(items, format), format)
    if format.alpha == "composite":
        pixels = images.to(torch.float32) / 255 if images.dtype == torch.uint8 else images
        opacity = pixels[:, 3:]
        images = pixels[:, :3] * opacity + (1 - opacity)  # on white
    return images[:, : format.channels]


def encode(pixels: torch.Tensor, format: ImageFormat) -> torch.Tensor:
    """Turn images (b, 3 or channels, *network_size) in [0, 1] into items as they are stored."""
    pixels = restore_size(pixels, format)
    if format.channels == 1:
        pixels = pixels.mean(dim=1, keepdim=True)
    elif format.alpha:
        pixels = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1)
    if format.layout == "row":
        items = pixels.flatten(1)[:, : format.image_shape[0]]
    elif format.layout == "hw":
        items = pixels[:, 0]
    else:
        items = pixels.permute(0, 2, 3, 1) if format.layout == "hwc" else pixels
    if 0 not in format.shape:  # not of mixed sizes
        items = items.reshape(len(items), *format.shape)
    low, high = format.stored_range
    if format.dtype == "uint8":
        return (items * (high - low) + low).round().to(torch.uint8)
    return items * (high - low) + low


def _to_unit_scale(items: torch.Tensor, format: ImageFormat) -> torch.Tensor:
    """Scale stored items to [0, 1] as float32; uint8 from 0 to 255 stays as it is."""
    if format.low is None or format.high is None:
        return items
    if (format.low, format.high) == (0.0, 1.0):
        # Copied: networks may work in place, and the memory is the user's.
        scaled = items.to(torch.float32, copy=True)
    else:
        # In double precision: the user's range may lie outside float32's.
        scaled = (items.to(torch.float64) - format.low) / ((format.high - format.low) or 1.0)
        scaled = scaled.to(torch.float32)
    return scaled.clamp(0, 1) if format.clip else scaled


def _to_batch(items: torch.Tensor, format: ImageFormat) -> torch.Tensor:
    """Lay out stored items as ``(batch, stored channels, height, width)``."""
    if format.layout == "row":
        height, width = format.size
        wrapped = torch.arange(height * width, device=items.device) % format.image_shape[0]
        return items[:, wrapped].reshape(-1, 1, height, width)
    items = items.reshape(-1, *format.image_shape)
    if format.layout == "hw":
        return items[:, None]
    return items.permute(0, 3, 1, 2) if format.layout == "hwc" else items


def _resized(images: torch.Tensor, format: ImageFormat) -> torch.Tensor:
    height, width = format.network_size
    if (height, width) == tuple(images.shape[-2:]):
        return images
    if format.resize == "tile":
        times = (-(-height // images.shape[-2]), -(-width // images.shape[-1]))
        return images.repeat(1, 1, *times)[..., :height, :width]
    if images.dtype == torch.uint8:
        images = images.to(torch.float32).div_(255)
    return resize(images, (height, width))


def restore_size(pixels: torch.Tensor, format: ImageFormat) -> torch.Tensor:
    """Undo the resizing of images (b, channels, *network_size)."""
    if format.network_size == format.size or 0 in format.size:
        return pixels
    if format.resize == "tile":
        return pixels[..., : format.size[0], : format.size[1]]
    return resize(pixels, format.size)


def resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize float images (b, channels, height, width) bilinearly, antialiased when smaller."""
    shrinks = size[0] < images.shape[-2] or size[1] < images.shape[-1]
    # Contiguous, as torch rounds otherwise where channels come last in memory.
    images = images.contiguous()
    return F.interpolate(images, size=size, mode="bilinear", antialias=shrinks)
