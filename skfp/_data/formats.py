"""How one item of a collection is an image: its axes, channels, size and value range."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence

import torch

MIN_SIDE = 16
LAYOUTS = (
    "(n, height, width, channels), (n, channels, height, width), (n, height, width) or rows "
    "(n, pixels) with image_shape, where channels is 1 (grey), 3 (RGB) or 4 (RGBA)"
)


@dataclasses.dataclass(frozen=True)
class ImageFormat:
    """How one item of a collection is an image: its axes, its size and its value range.

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
        The values that stand for 0 and 1; None for uint8, whose range is known.
    """

    shape: tuple[int, ...]
    layout: str
    image_shape: tuple[int, ...]
    low: float | None = None
    high: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        if self.layout == "row":
            side = math.ceil(math.sqrt(self.image_shape[0]))
            return side, side
        start = 1 if self.layout == "chw" else 0
        return self.image_shape[start], self.image_shape[start + 1]

    @property
    def channels(self) -> int:
        """Number of channels that are used: 1 or 3 (alpha is dropped)."""
        return min(self.stored_channels, 3)

    @property
    def stored_channels(self) -> int:
        """Number of channels in the user's array."""
        return {"hwc": self.image_shape[-1], "chw": self.image_shape[0]}.get(self.layout, 1)

    def to_batch(self, items: torch.Tensor) -> torch.Tensor:
        """Lay out stored items as ``(batch, channels, height, width)``."""
        if self.layout == "row":
            height, width = self.size
            wrapped = torch.arange(height * width, device=items.device) % self.image_shape[0]
            return items[:, wrapped].reshape(-1, 1, height, width)
        items = items.reshape(-1, *self.image_shape)
        if self.layout == "hw":
            items = items[:, None]
        elif self.layout == "hwc":
            items = items.permute(0, 3, 1, 2)
        return items[:, : self.channels]

    def to_unit_scale(self, items: torch.Tensor) -> torch.Tensor:
        """Scale stored items to [0, 1] as float32; uint8 stays as it is."""
        if self.low is None or self.high is None:
            return items
        if (self.low, self.high) == (0.0, 1.0):
            # Copied: networks may work in place, and the memory is the user's.
            return items.to(torch.float32, copy=True)
        # In double precision: the user's range may lie outside float32's.
        scaled = (items.to(torch.float64) - self.low) / ((self.high - self.low) or 1.0)
        return scaled.to(torch.float32)

    def from_batch(self, batch: torch.Tensor) -> torch.Tensor:
        """Turn RGB ``(batch, 3, height, width)`` in [0, 1] into items as they are stored."""
        if self.channels == 1:
            batch = batch.mean(dim=1, keepdim=True)
        elif self.stored_channels == 4:
            batch = torch.cat([batch, torch.ones_like(batch[:, :1])], dim=1)
        if self.layout == "row":
            items = batch.flatten(1)[:, : self.image_shape[0]]
        elif self.layout == "hw":
            items = batch[:, 0]
        else:
            items = batch.permute(0, 2, 3, 1) if self.layout == "hwc" else batch
        items = items.reshape(len(items), *self.shape)
        if self.low is None or self.high is None:
            return (items * 255).round().to(torch.uint8)
        return items * (self.high - self.low) + self.low


def layout_of_images(shape: tuple[int, ...]) -> str:
    sides: tuple[int, ...]
    if len(shape) == 2:
        layout, sides = "hw", shape
    elif shape[-1] in (1, 3, 4) and shape[0] >= MIN_SIDE:
        layout, sides = "hwc", shape[:2]
    elif shape[0] in (1, 3, 4):
        layout, sides = "chw", shape[1:]
    elif shape[-1] in (1, 3, 4):
        layout, sides = "hwc", shape[:2]
    else:
        channels = shape[0] if shape[0] < MIN_SIDE else shape[-1]
        raise ValueError(
            f"X holds images of shape {shape}, which looks like {channels} channels. Expected "
            f"{LAYOUTS}."
        )
    if min(sides) < MIN_SIDE:
        raise ValueError(
            f"X holds images of shape {shape}, that is {sides[0]} by {sides[1]} pixels. Expected "
            f"at least {MIN_SIDE} by {MIN_SIDE}; enlarge them first. (A single image is passed "
            "as X[None].)"
        )
    return layout


def layout_of_rows(n_pixels: int, image_shape: Sequence[int] | None) -> tuple[str, tuple[int, ...]]:
    if image_shape is None:
        side = math.isqrt(n_pixels // 3)
        if side >= MIN_SIDE and 3 * side * side == n_pixels:
            warnings.warn(
                f"X has rows of {n_pixels} values, which are read as grey images, but could be "
                f"RGB images of {side} by {side} pixels. If they are, pass "
                f"image_shape=({side}, {side}, 3) or (3, {side}, {side}).",
                UserWarning,
                stacklevel=2,
            )
        elif (side := math.isqrt(n_pixels)) ** 2 != n_pixels:
            warnings.warn(
                f"X has rows of {n_pixels} values, which are no square: they are read as a grey "
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
