"""PIL images as arrays: upright, in grey or RGB, composited on a background."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

BACKGROUND = "white"
# Modes whose values are not brightness or are packed, and what they are converted to.
_CONVERSIONS = dict.fromkeys(("P", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"), "RGB")


def open_image(file: Any) -> Image.Image:
    """Open a path or an open file, also a HEIC file if pillow-heif is installed."""
    _register_heif()
    return Image.open(file)


def to_array(image: Image.Image, background: str = BACKGROUND) -> np.ndarray:
    """Return the pixels of an image as `normalise` leaves it, of 2 axes or (height, width, 3)."""
    return np.asarray(normalise(image, background))


def normalise(image: Image.Image, background: str = BACKGROUND) -> Image.Image:
    """Return a copy of an image in grey or RGB.

    It is turned upright as its EXIF orientation says, transparent pixels show the
    background, and 16-bit, 32-bit and float pixels keep their values. Pixels of mode "1" are bool.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "La":
        image = image.convert("LA")
    # A transparent value among deep pixels is left as it is: their colours have no range yet.
    may_be_clear = "transparency" in image.info and image.mode[0] not in "IF"
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or may_be_clear:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, background)
        image = Image.alpha_composite(canvas, image).convert("RGB")
    return image.convert(_CONVERSIONS[image.mode]) if image.mode in _CONVERSIONS else image


def advice(item: Any, error: Exception) -> str:
    """Say how an image that cannot be read might be, if there is a way."""
    if isinstance(error, Image.DecompressionBombError):
        return " If you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS."
    if str(item).lower().endswith((".heic", ".heif")) or b"ftyphei" in _head(item):
        return " HEIC files need pillow-heif: pip install pillow-heif."
    if isinstance(error, UnidentifiedImageError):
        return " Files that Pillow cannot read are passed as arrays of their pixels."
    return ""


def _head(item: Any) -> bytes:
    content = item.get("bytes") if isinstance(item, dict) else item
    return bytes(content[:32]) if isinstance(content, bytes | bytearray) else b""


@functools.cache
def _register_heif() -> None:
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
