"""PIL images as arrays: upright, in grey or RGB, composited on a background."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

BACKGROUND = "white"
# Modes whose values are not brightness or are packed, and what they are converted to.
_CONVERSIONS = {"P": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB"}


def to_array(image: Image.Image, background: str = BACKGROUND) -> np.ndarray:
    """Return the pixels of an image, (height, width) or (height, width, 3).

    The image is turned upright as its EXIF orientation says, transparent pixels show the
    background, and 16-bit, 32-bit and float pixels keep their values. Pixels of mode "1" are bool.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, background)
        image = Image.alpha_composite(canvas, image).convert("RGB")
    return np.asarray(image.convert(_CONVERSIONS.get(image.mode, image.mode)))
