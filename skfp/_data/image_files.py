"""Image files and encoded images as pixels of one mode and size."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any

import numpy as np
from PIL import Image

from .pil import to_array
from .sources import encoded_image, image_array


def _open(item: Any) -> Any:
    """Return what Pillow opens of a path or an encoded image; None for images in memory."""
    return item if isinstance(item, str | os.PathLike) else encoded_image(item)


def deep_pixels(item: Any) -> np.ndarray | None:
    """Return the pixels of an image of more than 8 bits, None of any other."""
    file = _open(item)
    if file is not None:
        with Image.open(file) as image:
            return to_array(image) if image.mode.startswith(("I", "F")) else None
    pixels = image_array(item)
    return None if pixels.dtype in (np.uint8, np.bool_) else pixels


def load(
    item: Any,
    size: tuple[int, int] | None,
    mode: str,
    value_range: tuple[float, float] | None,
    background: str,
) -> np.ndarray:
    """Read one image as uint8 of a mode and size."""
    _register_heif()
    file = _open(item)
    if file is not None:
        with Image.open(file) as opened:
            if size is not None:
                # Square, as the EXIF orientation may yet swap the sides.
                opened.draft(mode, (2 * max(size), 2 * max(size)))
            pixels = to_array(opened, background)
    elif isinstance(item, Image.Image):
        pixels = to_array(item, background)
    else:
        try:
            pixels = image_array(item)
        except TypeError as error:
            raise TypeError(f"a {type(item).__name__} is neither a path nor an image") from error
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)  # a tensor, channels first
    image = Image.fromarray(_to_uint8(pixels, value_range).squeeze())
    if image.mode == "RGBA":
        image = Image.fromarray(to_array(image, background))
    image = image.convert(mode)
    if size is not None:
        image = image.resize(size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(image)


def _to_uint8(pixels: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype == np.uint8:
        return pixels
    if not np.isfinite(pixels).all():
        raise ValueError("it holds NaN or infinity")
    low, high = value_range or (float(pixels.min()), float(pixels.max()))
    scaled = (pixels.astype(np.float64) - low) / ((high - low) or 1.0)
    return (scaled.clip(0, 1) * 255).round().astype(np.uint8)


@functools.cache
def _register_heif() -> None:
    """Let Pillow read HEIC files, if pillow-heif is installed."""
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
