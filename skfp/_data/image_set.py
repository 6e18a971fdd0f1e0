"""Every accepted form of image input, and every refusal.

An image collection stays in the array or tensor the user gave. `ImageFormat` says how one item of
it is an image, and `Images` reads batches of it as ``(batch, channels, height, width)`` tensors:
uint8 as it is, everything else float32 on the unit scale.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.utils import check_array

from skfp._data.sources import (
    Rows,
    Source,
    as_source,
    as_tensor,
    convert_pil_mode,
    row_chunks,
    to_device,
)
from skfp._utils.fingerprint import fingerprint

MIN_SIDE = 16
# Images that span less of the range in fit have probably been scaled otherwise.
_LEAST_SHARE = 0.02

_LAYOUTS = (
    "(n, height, width, channels), (n, channels, height, width), (n, height, width) or rows "
    "(n, pixels) with image_shape, where channels is 1 (grey), 3 (RGB) or 4 (RGBA)"
)
_LOAD = "To read image files, put skfp.ImageLoader() before the encoder."


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
        """Number of colour channels that are read: 1 or 3 (alpha is left out)."""
        return min(self._stored_channels, 3)

    @property
    def _stored_channels(self) -> int:
        return {"hwc": self.image_shape[-1], "chw": self.image_shape[0]}.get(self.layout, 1)

    def to_batch(self, items: torch.Tensor) -> torch.Tensor:
        """Turn items as the user stores them into ``(batch, channels, height, width)``."""
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
        """Turn items as the user stores them into uint8, or float32 where `low` stands for 0."""
        if self.low is None or self.high is None:
            return items
        if (self.low, self.high) == (0.0, 1.0):
            # Copied, so that no network that works in place reaches the user's own memory.
            return items.to(torch.float32, copy=True)
        # In double precision: the user's range may lie outside float32's.
        scaled = (items.to(torch.float64) - self.low) / ((self.high - self.low) or 1.0)
        return scaled.to(torch.float32)

    def from_batch(self, batch: torch.Tensor) -> torch.Tensor:
        """Turn unit-scale RGB ``(batch, 3, height, width)`` into items as the user stores them."""
        if self.channels == 1:
            batch = batch.mean(dim=1, keepdim=True)
        elif self._stored_channels == 4:
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


class ImageSet:
    """A collection of images, read batch by batch from the array that holds it.

    Parameters
    ----------
    array : ndarray, Tensor or Source of shape (n_images, *format.shape)
        The collection in the user's own layout; it is never copied as a whole.
    format : ImageFormat
        How an item of `array` is an image.
    """

    def __init__(self, array: Any, format: ImageFormat) -> None:
        self.array = array
        self.format = format

    def __len__(self) -> int:
        return len(self.array)

    @property
    def nbytes(self) -> int:
        """Bytes that the collection takes."""
        return int(self.array.nbytes)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the images and of how they are read; reads all of them, once."""
        array = self.array.cpu().numpy() if isinstance(self.array, torch.Tensor) else self.array
        return f"{fingerprint(array)} {self.format}"

    def read(self, indices: Sequence[int] | np.ndarray | slice) -> torch.Tensor:
        """Read some images as uint8, or as float32 on the unit scale.

        Parameters
        ----------
        indices : sequence of int or slice
            Which images.

        Returns
        -------
        batch : Tensor of shape (n_indices, channels, height, width)
            Where the collection is.
        """
        items = as_tensor(self.array[indices])
        return self.format.to_batch(self.format.to_unit_scale(items))

    def to(self, device: torch.device) -> ImageSet:
        """Hold the whole collection on a device, still in its own layout."""
        return ImageSet(to_device(self.array, device), self.format)


def as_array(X: Any) -> Rows:
    """Refuse what holds no images, and return the rest as an array or tensor of numbers.

    Parameters
    ----------
    X : array-like, Tensor or Dataset
        Images in one of the accepted layouts.

    Returns
    -------
    array : ndarray, Tensor or Source
        X itself where it is an array or a tensor of numbers already; what reads it where it is
        not in memory.

    Raises
    ------
    ValueError
        If X is empty, holds no numbers, or has the wrong number of dimensions.
    TypeError
        If X is sparse or holds objects that are no numbers.
    """
    if isinstance(X, torch.Tensor):
        return _check_tensor(X.detach())
    if not isinstance(X, np.ndarray) and isinstance(source := as_source(X), Source):
        return _check_source(source, type(X).__name__)
    if isinstance(X, str | os.PathLike):
        raise ValueError(f"X is {os.fspath(X)!r}, not images. {_LOAD} Expected: {_LAYOUTS}.")
    if hasattr(X, "to_numpy") and (values := X.to_numpy()).dtype.kind in "OU":
        X = values
    if isinstance(X, np.ndarray) and X.dtype == object and X.ndim and X.size == len(X):
        X = X.ravel().tolist()  # a column of images, or of what should be
    if isinstance(X, list | tuple):
        X = _stack(X)
        if isinstance(X, torch.Tensor):
            return _check_tensor(X)
    if isinstance(X, np.ndarray) and X.dtype != object:
        _check_dtype(X.dtype)
    if not hasattr(X, "__array__") and np.ndim(X) == 0:
        raise ValueError(f"X is a {type(X).__name__}. Expected 2D array or images: {_LAYOUTS}.")
    try:
        array = check_array(X, allow_nd=True, dtype="numeric", ensure_all_finite=False)
    except (OverflowError, TypeError, ValueError) as error:
        refusal = TypeError if isinstance(error, TypeError) else ValueError
        raise refusal(f"X is no array of numbers: {error}\nExpected images: {_LAYOUTS}.") from error
    _check_dtype(array.dtype)
    if array.ndim > 4:
        raise ValueError(f"X has {array.ndim} dimensions. Expected images: {_LAYOUTS}.")
    return as_source(array)


def _stack(items: Sequence[Any]) -> Any:
    """Put a list of images into one array or tensor."""
    first = items[0] if items else None
    if isinstance(first, str | os.PathLike):
        raise ValueError(
            f"X holds text or paths such as {os.fspath(first)!r}, not numbers. {_LOAD} Expected "
            f"images: {_LAYOUTS}."
        )
    if not isinstance(first, np.ndarray | torch.Tensor | Image.Image):
        try:
            return np.asarray(items)
        except ValueError as error:
            raise ValueError(
                f"X is a list that is no array: {error} Expected images: {_LAYOUTS}."
            ) from error
    if not isinstance(first, torch.Tensor):
        items = [np.asarray(convert_pil_mode(item)) for item in items]
    for row, item in enumerate(items):
        if np.shape(item) != np.shape(items[0]):
            raise ValueError(
                f"X holds images of different shapes: {tuple(np.shape(items[0]))} first, and "
                f"{tuple(np.shape(item))} in row {row}. Resize or convert them to one shape, for "
                "example with skfp.ImageLoader."
            )
    return torch.stack(list(items)) if isinstance(first, torch.Tensor) else np.stack(items)


def _check_dtype(dtype: np.dtype) -> None:
    if dtype.kind == "c":
        raise ValueError(f"Complex data not supported. Expected images: {_LAYOUTS}.")
    if dtype.kind not in "biuf":
        raise ValueError(
            f"X holds values of type {dtype}, not numbers. {_LOAD} Expected images: {_LAYOUTS}."
        )


def _check_source(source: Source, kind: str) -> Source:
    _check_dtype(source.dtype)
    if not 2 <= source.ndim <= 4 or 0 in source.shape:
        raise ValueError(f"X is a {kind} of shape {source.shape}. Expected images: {_LAYOUTS}.")
    return source


def _check_tensor(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
        raise TypeError(
            f"X is a tensor of type {tensor.dtype} and layout {tensor.layout}. Expected a dense "
            f"one of real numbers: {_LAYOUTS}."
        )
    if not 2 <= tensor.ndim <= 4 or 0 in tensor.shape:
        raise ValueError(
            f"X is a tensor of shape {tuple(tensor.shape)}. Expected images: {_LAYOUTS}."
        )
    if tensor.dtype == torch.bool:
        return tensor.to(torch.uint8) * 255
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return tensor.to(torch.float32)
    if tensor.dtype in (torch.uint16, torch.uint32, torch.uint64):
        return tensor.to(torch.float64)  # torch compares and subtracts few unsigned types
    return tensor


def check_images(array: Rows, image_shape: Sequence[int] | None = None) -> ImageSet:
    """Check images to fit on, and learn their format.

    Parameters
    ----------
    array : ndarray, Tensor or Source
        Images in one of the accepted layouts, from `as_array`.
    image_shape : tuple of int or None
        Shape of an image where the array holds flattened rows.

    Returns
    -------
    images : Images

    Raises
    ------
    ValueError
        If values are not finite, or items are not images of at least 16 by 16 pixels.
    """
    if array.ndim == 2:
        layout, image_shape = _layout_of_rows(array.shape[1], image_shape)
    else:
        shape = tuple(array.shape[1:])
        if image_shape is not None and tuple(image_shape) != shape:
            raise ValueError(
                f"X holds images of shape {shape}, but image_shape is {tuple(image_shape)}. "
                "Leave image_shape out for images that are not flattened."
            )
        layout, image_shape = _layout_of_images(shape), shape
    low, high = _value_range(array)
    return ImageSet(array, ImageFormat(tuple(array.shape[1:]), layout, image_shape, low, high))


def check_images_like(array: Rows, format: ImageFormat, *, whole: bool = True) -> ImageSet:
    """Check images against the format that fit has seen.

    Parameters
    ----------
    array : ndarray, Tensor or Source
        Images of the size and channels of `format`, in its layout or flattened, from `as_array`.
    format : ImageFormat
        The format learned by `check_images`.
    whole : bool, default=True
        Whether these are all images: of a few, a small range says nothing.

    Returns
    -------
    images : Images

    Raises
    ------
    ValueError
        If the images are of another size, channel count or value range than in fit.

    Warns
    -----
    UserWarning
        If all images take up a small part of the value range in fit.
    """
    shape = tuple(array.shape[1:])
    if shape != format.shape:
        other = ImageFormat(shape, "row", shape)
        if len(shape) > 1:
            other = dataclasses.replace(other, layout=_layout_of_images(shape), image_shape=shape)
        same_image = (
            other.layout != "row"
            and format.layout != "row"
            and (other.size, other._stored_channels) == (format.size, format._stored_channels)
        )
        flattened = len(shape) == 1 and shape[0] == math.prod(format.shape)
        if not (same_image or flattened):
            raise ValueError(
                f"X holds images of shape {shape}, but fit has seen images of shape "
                f"{format.shape}. Resize or convert them to what fit has seen, or fit again."
            )
        if flattened:
            format = dataclasses.replace(format, shape=shape)
        else:
            format = dataclasses.replace(
                format, shape=shape, layout=other.layout, image_shape=shape
            )
    if format.low is None or format.high is None or (format.low, format.high) == (0.0, 1.0):
        unit = None if _is_uint8(array) else (0.0, 1.0)
        if unit is not None:
            # A little outside is noise or another scaling step; far outside is another unit.
            seen = "uint8 images" if format.low is None else "images in [0, 1]"
            _check_range(array, -1.0, 2.0, seen, "Pass uint8 values, or floats divided by 255.")
        low, high = unit or (None, None)
        format = dataclasses.replace(format, low=low, high=high)
    else:
        span = format.high - format.low
        seen = f"values from {format.low:g} to {format.high:g}"
        advice = "Pass images scaled as those in fit."
        low, high = _check_range(array, format.low - span, format.high + span, seen, advice)
        if whole and high - low < _LEAST_SHARE * span:
            warnings.warn(
                f"The encoder was fitted on {seen}, of which X, with values from {low:g} to "
                f"{high:g}, takes up a small part. {advice}",
                UserWarning,
                stacklevel=2,
            )
    return ImageSet(array, format)


def _layout_of_images(shape: tuple[int, ...]) -> str:
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
            f"{_LAYOUTS}."
        )
    if min(sides) < MIN_SIDE:
        raise ValueError(
            f"X holds images of shape {shape}, that is {sides[0]} by {sides[1]} pixels. Expected "
            f"at least {MIN_SIDE} by {MIN_SIDE}; enlarge them first. (A single image is passed "
            "as X[None].)"
        )
    return layout


def _layout_of_rows(
    n_pixels: int, image_shape: Sequence[int] | None
) -> tuple[str, tuple[int, ...]]:
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
    return _layout_of_images(shape), shape


def _is_uint8(array: Rows) -> bool:
    return array.dtype == (torch.uint8 if isinstance(array, torch.Tensor) else np.uint8)


def _check_range(
    array: Rows, least: float, greatest: float, seen: str, advice: str
) -> tuple[float, float]:
    """Find the values that images span, and refuse those that are far from what fit has seen."""
    low, high = _span(array)
    if low < least or high > greatest:
        raise ValueError(
            f"The encoder was fitted on {seen}, and X holds {array.dtype} values from {low:g} to "
            f"{high:g}. {advice}"
        )
    return low, high


def _value_range(array: Rows) -> tuple[float | None, float | None]:
    """The values that stand for 0 and 1."""
    if _is_uint8(array):
        return None, None
    low, high = _span(array)
    if low >= 0.0 and high <= 1.0:
        return 0.0, 1.0
    if not math.isfinite(high - low):
        raise ValueError(
            f"X spans the values {low} to {high}, more than double precision can scale. "
            "Scale the images to [0, 1] first."
        )
    return low, high


def _span(array: Rows) -> tuple[float, float]:
    """Least and greatest value, found in one pass that also refuses NaN and infinity."""
    low, high = math.inf, -math.inf
    for rows in row_chunks(array):
        shard = array[rows]
        # min and max propagate NaN, so one pass over a part serves both purposes.
        part_low, part_high = float(shard.min()), float(shard.max())
        if not (math.isfinite(part_low) and math.isfinite(part_high)):
            finite = [bool(as_tensor(image).isfinite().all()) for image in shard]
            first = rows.start + finite.index(False)
            raise ValueError(
                "Input X contains NaN or infinity. Images must be finite: repair or leave out "
                f"the damaged ones (the first is image {first})."
            )
        low, high = min(low, part_low), max(high, part_high)
    return low, high
