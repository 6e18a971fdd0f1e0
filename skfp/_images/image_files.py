"""Image files and encoded images as pixels of one mode and size."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import Image

from .pil import normalise, open_image, to_array
from .sources import encoded_image, image_array, image_of

Range = tuple[float, float]


def _open(item: Any) -> Any:
    """Return what Pillow opens of a path or an encoded image; None for images in memory."""
    image = image_of(item)
    return image if isinstance(image, str | os.PathLike) else encoded_image(image)


def deep_pixels(item: Any) -> np.ndarray | None:
    """Return the pixels of an image of more than 8 bits, None of any other."""
    file = _open(item)
    if file is not None:
        with open_image(file) as image:
            return to_array(image) if image.mode.startswith(("I", "F")) else None
    pixels = image_array(item)
    return None if pixels.dtype in (np.uint8, np.bool_) else pixels


def load(
    item: Any,
    size: tuple[int, int] | None,
    mode: str,
    background: str,
    value_range: Range | None = None,
    deep_range: Range | None = None,
) -> np.ndarray:
    """Read one image as uint8 of a mode and size.

    `value_range` is that of 8-bit images, by default 0 to 255, `deep_range` that of all others, by
    default their own.
    """
    file = _open(item)
    if file is not None:
        with open_image(file) as opened:
            if size is not None:
                # Square, as the EXIF orientation may yet swap the sides.
                opened.draft(mode, (2 * max(size), 2 * max(size)))
            image = normalise(opened, background)
        if image.mode in ("RGB", "L") and value_range is None:
            return _fit(image, size, mode)
        pixels = np.asarray(image)
    else:
        try:
            pixels = image_array(item, background)
        except TypeError as error:
            raise TypeError(f"a {type(item).__name__} is neither a path nor an image") from error
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)  # a tensor, channels first
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise ValueError(
            f"it has shape {pixels.shape}; expected (height, width) or (height, width, channels) "
            "with 1, 3 or 4 channels. The encoders take any number of channels"
        )
    image = Image.fromarray(_to_uint8(pixels, value_range, deep_range))
    if image.mode == "RGBA":
        image = normalise(image, background)
    return _fit(image, size, mode)


def _fit(image: Image.Image, size: tuple[int, int] | None, mode: str) -> np.ndarray:
    image = image if image.mode == mode else image.convert(mode)
    if size is not None:
        image = image.resize(size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(image)


def _to_uint8(
    pixels: np.ndarray, value_range: Range | None, deep_range: Range | None
) -> np.ndarray:
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype != np.uint8:
        value_range = deep_range or (float(pixels.min()), float(pixels.max()))
    elif value_range is None:
        return pixels
    if not np.isfinite(pixels).all():
        raise ValueError("it holds NaN or infinity")
    low, high = value_range
    scaled = (pixels.astype(np.float64) - low) / ((high - low) or 1.0)
    return (scaled.clip(0, 1) * 255).round().astype(np.uint8)
