"""How one item of a collection is an image: its axes, channels, size and value range."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence

# Encoders and loss networks take images of this height and width or more.
MIN_NETWORK_SIDE = 64
MIN_SIDE = 2
LAYOUTS = (
    "(n, height, width, channels), (n, channels, height, width), (n, height, width) or rows "
    "(n, pixels) with image_shape"
)


@dataclasses.dataclass(frozen=True)
class ImageFormat:
    """How one item of a collection is an image, and how it is read.

    Parameters
    ----------
    shape : tuple of int
        Shape of one item in the user's array; ``(pixels,)`` for flattened rows.
    layout : {"hwc", "chw", "hw", "row"}
        Meaning of the axes of ``image_shape``. "row" marks rows of unknown image shape, which
        are laid out as one-channel images as square as possible.
    image_shape : tuple of int
        Shape of the image that an item holds, in the order that `layout` names.
    low, high : float or None
        The values that are read as 0 and 1; None for uint8 from 0 to 255.
    dtype : {"bool", "uint8", "int", "float"}
        Kind of the values in fit.
    clip : bool
        Whether values outside the range are clipped to it.
    alpha : {"composite", "drop"} or None
        What becomes of the fourth channel, if it is alpha.
    resize : "auto", "tile" or tuple of int
        (height, width) of the images that networks get; "auto" and "tile" change only sides of
        less than 64 pixels.
    """

    shape: tuple[int, ...]
    layout: str
    image_shape: tuple[int, ...]
    low: float | None = None
    high: float | None = None
    dtype: str = "uint8"
    clip: bool = False
    alpha: str | None = None
    resize: str | tuple[int, int] = "auto"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels, as stored."""
        if self.layout == "row":
            side = math.ceil(math.sqrt(self.image_shape[0]))
            return side, side
        height, width = self.size_axes
        return self.image_shape[height], self.image_shape[width]

    @property
    def size_axes(self) -> tuple[int, int]:
        """Axes of an item that are height and width, unless it is flattened."""
        return (1, 2) if self.layout == "chw" else (0, 1)

    @property
    def takes_any_size(self) -> bool:
        """Whether images of any height and width are resized to `network_size`."""
        return not isinstance(self.resize, str) and len(self.shape) > 1

    @property
    def network_size(self) -> tuple[int, int]:
        """Height and width of the images that networks get."""
        if not isinstance(self.resize, str):
            return self.resize
        height, width = self.size
        return max(height, MIN_NETWORK_SIDE), max(width, MIN_NETWORK_SIDE)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the input of networks: grey is repeated to 3 channels."""
        return (3 if self.channels == 1 else self.channels, *self.network_size)

    @property
    def channels(self) -> int:
        """Number of channels, without alpha."""
        return 3 if self.alpha else self.stored_channels

    @property
    def stored_channels(self) -> int:
        """Number of channels in the user's array."""
        return {"hwc": self.image_shape[-1], "chw": self.image_shape[0]}.get(self.layout, 1)

    @property
    def value_range(self) -> tuple[float, float]:
        """The values that are read as 0 and 1."""
        return (0.0, 255.0) if self.low is None or self.high is None else (self.low, self.high)

    @property
    def stored_range(self) -> tuple[float, float]:
        """`value_range` in the user's array, where bool is False and True, not yet 0 and 255."""
        return (0.0, 1.0) if self.dtype == "bool" else self.value_range


def layout_of_images(shape: tuple[int, ...]) -> str:
    """Tell which axes of an item are height, width and channels.

    Three axes of which none, or more than one, could be the channels are read as channels last.

    >>> layout_of_images((28, 28)), layout_of_images((64, 48, 5)), layout_of_images((13, 64, 64))
    ('hw', 'hwc', 'chw')
    """
    sides: tuple[int, ...] = shape[:2]
    if len(shape) == 2:
        layout = "hw"
    elif _is_channels_first(shape):
        layout, sides = "chw", shape[1:]
    else:
        layout = "hwc"
    if min(sides) < MIN_SIDE:
        raise ValueError(
            f"X holds images of shape {shape}, that is {sides[0]} by {sides[1]} pixels. Expected "
            f"at least {MIN_SIDE} by {MIN_SIDE}: {LAYOUTS}. (A single image is passed as X[None].)"
        )
    if len(shape) == 2 and shape[1] in (3, 4) and shape[0] >= 8:
        raise ValueError(
            f"X holds images of shape {shape}, which looks like one image with {shape[1]} "
            "channels. Pass a single image as X[None]."
        )
    if len(shape) == 2 and shape[1] < 16 and shape[0] >= 4 * shape[1]:
        warnings.warn(
            f"X is read as grey images of {shape[0]} by {shape[1]} pixels. If it is one image with "
            f"{shape[1]} channels, pass X[None].",
            UserWarning,
            stacklevel=2,
        )
    channels = shape[0 if layout == "chw" else -1]
    if len(set(shape)) == 3 and channels > 16:  # no two equal sides tell
        warnings.warn(
            f"X holds images of shape {shape}, which are read as {channels} channels of {sides[0]} "
            f"by {sides[1]} pixels: the shorter of the first and last axis.",
            UserWarning,
            stacklevel=2,
        )
    return layout


def _is_channels_first(shape: tuple[int, ...]) -> bool:
    first, middle, last = shape
    if (first in (1, 3, 4)) != (last in (1, 3, 4)) and min(shape) == min(first, last):
        return first in (1, 3, 4)
    if (middle == last) != (first == middle):
        return middle == last
    return first < last


def layout_of_rows(n_pixels: int, image_shape: Sequence[int] | None) -> tuple[str, tuple[int, ...]]:
    """Tell how a flattened row is an image: its layout, and the shape it was flattened from."""
    if image_shape is None:
        side = math.isqrt(n_pixels // 3)
        if side >= 16 and 3 * side * side == n_pixels:
            warnings.warn(
                f"X has rows of {n_pixels} values, which are read as grey images, but could be "
                f"RGB images of {side} by {side} pixels. If they are, pass "
                f"image_shape=({side}, {side}, 3) or (3, {side}, {side}).",
                UserWarning,
                stacklevel=2,
            )
        elif (side := math.isqrt(n_pixels)) ** 2 != n_pixels:
            warnings.warn(
                f"X has rows of {n_pixels} values, which are not square: they are read as a grey "
                f"image of {side + 1} by {side + 1} pixels, its end filled up from its beginning. "
                "Pass image_shape=(height, width) if they are images.",
                UserWarning,
                stacklevel=2,
            )
        return "row", (n_pixels,)
    shape = tuple(int(side) for side in image_shape)
    if len(shape) not in (2, 3):
        raise ValueError(
            f"image_shape is {shape}. Expected (height, width), (height, width, channels) or "
            "(channels, height, width)."
        )
    if math.prod(shape) != n_pixels:
        raise ValueError(
            f"X has rows of {n_pixels} values, but image_shape {shape} needs {math.prod(shape)}. "
            "Pass the image_shape that the rows were flattened from."
        )
    return layout_of_images(shape), shape
