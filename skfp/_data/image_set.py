"""Images in any accepted form, checked, and read batch by batch."""

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

from .._utils.fingerprint import fingerprint
from .formats import LAYOUTS, ImageFormat, layout_of_images, layout_of_rows
from .sources import Rows, Source, as_source, as_tensor, convert_pil_mode, row_chunks, to_device

# Images that use less of the range of those in fit were probably scaled otherwise.
_MIN_SHARE_OF_RANGE = 0.02
_LOAD = "To read image files, put skfp.ImageLoader() before the encoder."


class ImageSet:
    """Images in the user's own array and layout, which is never copied as a whole."""

    def __init__(self, array: Any, format: ImageFormat) -> None:
        self.array = array
        self.format = format

    def __len__(self) -> int:
        return len(self.array)

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return int(self.array.nbytes)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the images and their format; reads all of them, once."""
        array = self.array.cpu().numpy() if isinstance(self.array, torch.Tensor) else self.array
        return f"{fingerprint(array, row_chunks(array))} {self.format}"

    def read(self, indices: Sequence[int] | np.ndarray | slice) -> torch.Tensor:
        """Read images as (n_indices, channels, height, width): uint8, or float32 in [0, 1]."""
        items = as_tensor(self.array[indices])
        return self.format.to_batch(self.format.to_unit_scale(items))

    def to(self, device: torch.device) -> ImageSet:
        """Copy all images to a device, in their own layout."""
        return ImageSet(to_device(self.array, device), self.format)


def as_array(X: Any) -> Rows:
    """Return X as an array, tensor or `Source` of numbers; refuse what holds no images.

    Raises
    ------
    ValueError
        If X is empty, holds no numbers, or has the wrong number of dimensions.
    TypeError
        If X is sparse or holds objects that are not numbers.
    """
    if isinstance(X, torch.Tensor):
        return _check_tensor(X.detach())
    if not isinstance(X, np.ndarray) and isinstance(source := as_source(X), Source):
        return _check_source(source, type(X).__name__)
    if isinstance(X, str | os.PathLike):
        raise ValueError(f"X is {os.fspath(X)!r}, not images. {_LOAD} Expected: {LAYOUTS}.")
    if hasattr(X, "to_numpy") and (values := X.to_numpy()).dtype.kind in "OU":
        X = values
    if isinstance(X, np.ndarray) and X.dtype == object and X.ndim and X.size == len(X):
        X = X.ravel().tolist()  # a column of images
    if isinstance(X, list | tuple):
        X = _stack(X)
        if isinstance(X, torch.Tensor):
            return _check_tensor(X)
    if isinstance(X, np.ndarray) and X.dtype != object:
        _check_dtype(X.dtype)
    if not hasattr(X, "__array__") and np.ndim(X) == 0:
        raise ValueError(f"X is a {type(X).__name__}. Expected 2D array or images: {LAYOUTS}.")
    try:
        array = check_array(X, allow_nd=True, dtype="numeric", ensure_all_finite=False)
    except (OverflowError, TypeError, ValueError) as error:
        refusal = TypeError if isinstance(error, TypeError) else ValueError
        raise refusal(
            f"X is not an array of numbers: {error}\nExpected images: {LAYOUTS}."
        ) from error
    _check_dtype(array.dtype)
    if array.ndim > 4:
        raise ValueError(f"X has {array.ndim} dimensions. Expected images: {LAYOUTS}.")
    return as_source(array)


def _stack(items: Sequence[Any]) -> Any:
    """Put a list of images into one array or tensor."""
    first = items[0] if items else None
    if isinstance(first, str | os.PathLike):
        raise ValueError(
            f"X holds text or paths such as {os.fspath(first)!r}, not numbers. {_LOAD} Expected "
            f"images: {LAYOUTS}."
        )
    if not isinstance(first, np.ndarray | torch.Tensor | Image.Image):
        try:
            return np.asarray(items)
        except ValueError as error:
            raise ValueError(
                f"X is a list that is not an array: {error} Expected images: {LAYOUTS}."
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
        raise ValueError(f"Complex data not supported. Expected images: {LAYOUTS}.")
    if dtype.kind not in "biuf":
        raise ValueError(
            f"X holds values of type {dtype}, not numbers. {_LOAD} Expected images: {LAYOUTS}."
        )


def _check_source(source: Source, kind: str) -> Source:
    _check_dtype(source.dtype)
    if not 2 <= source.ndim <= 4 or 0 in source.shape:
        raise ValueError(f"X is a {kind} of shape {source.shape}. Expected images: {LAYOUTS}.")
    return source


def _check_tensor(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
        raise TypeError(
            f"X is a tensor of type {tensor.dtype} and layout {tensor.layout}. Expected a dense "
            f"one of real numbers: {LAYOUTS}."
        )
    if not 2 <= tensor.ndim <= 4 or 0 in tensor.shape:
        raise ValueError(
            f"X is a tensor of shape {tuple(tensor.shape)}. Expected images: {LAYOUTS}."
        )
    if tensor.dtype == torch.bool:
        return tensor.to(torch.uint8) * 255
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return tensor.to(torch.float32)
    if tensor.dtype in (torch.uint16, torch.uint32, torch.uint64):
        return tensor.to(torch.float64)  # torch compares and subtracts few unsigned types
    return tensor


def check_images(array: Rows, image_shape: Sequence[int] | None = None) -> ImageSet:
    """Check images to fit on, and find their format.

    Raises
    ------
    ValueError
        If values are not finite, or items are not images of at least 16 by 16 pixels.
    """
    if array.ndim == 2:
        layout, image_shape = layout_of_rows(array.shape[1], image_shape)
    else:
        shape = tuple(array.shape[1:])
        if image_shape is not None and tuple(image_shape) != shape:
            raise ValueError(
                f"X holds images of shape {shape}, but image_shape is {tuple(image_shape)}. "
                "Leave image_shape out for images that are not flattened."
            )
        layout, image_shape = layout_of_images(shape), shape
    low, high = _value_range(array)
    return ImageSet(array, ImageFormat(tuple(array.shape[1:]), layout, image_shape, low, high))


def check_images_like(array: Rows, format: ImageFormat) -> ImageSet:
    """Check images against the format of those in fit, in the same layout or flattened.

    Raises
    ------
    ValueError
        If the images are of another size, channel count or value range than in fit.

    Warns
    -----
    UserWarning
        If all images use a small part of the value range in fit.
    """
    shape = tuple(array.shape[1:])
    if shape != format.shape:
        other = ImageFormat(shape, "row", shape)
        if len(shape) > 1:
            other = dataclasses.replace(other, layout=layout_of_images(shape), image_shape=shape)
        same_image = (
            other.layout != "row"
            and format.layout != "row"
            and (other.size, other.stored_channels) == (format.size, format.stored_channels)
        )
        flattened = len(shape) == 1 and shape[0] == math.prod(format.shape)
        if not (same_image or flattened):
            raise ValueError(
                f"X holds images of shape {shape}, but the encoder was fitted on images of shape "
                f"{format.shape}. Resize or convert them to that shape, or fit again."
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
            expected = "uint8 images" if format.low is None else "images in [0, 1]"
            _check_range(array, -1.0, 2.0, expected, "Pass uint8 values, or floats divided by 255.")
        low, high = unit or (None, None)
        format = dataclasses.replace(format, low=low, high=high)
    else:
        span = format.high - format.low
        expected = f"values from {format.low:g} to {format.high:g}"
        advice = "Pass images scaled as those in fit."
        low, high = _check_range(array, format.low - span, format.high + span, expected, advice)
        if high - low < _MIN_SHARE_OF_RANGE * span:
            warnings.warn(
                f"The encoder was fitted on {expected}, and X uses only {low:g} to {high:g}. "
                f"{advice}",
                UserWarning,
                stacklevel=2,
            )
    return ImageSet(array, format)


def _is_uint8(array: Rows) -> bool:
    return array.dtype == (torch.uint8 if isinstance(array, torch.Tensor) else np.uint8)


def _check_range(
    array: Rows, least: float, greatest: float, expected: str, advice: str
) -> tuple[float, float]:
    """Find the values that images span, and refuse those far from the range in fit."""
    low, high = _span(array)
    if low < least or high > greatest:
        raise ValueError(
            f"The encoder was fitted on {expected}, and X holds {array.dtype} values from {low:g} "
            f"to {high:g}. {advice}"
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
        chunk = array[rows]
        # min and max propagate NaN, so one pass serves both purposes.
        chunk_low, chunk_high = float(chunk.min()), float(chunk.max())
        if not (math.isfinite(chunk_low) and math.isfinite(chunk_high)):
            finite = [bool(as_tensor(image).isfinite().all()) for image in chunk]
            first = rows.start + finite.index(False)
            raise ValueError(
                "Input X contains NaN or infinity. Images must be finite: repair or leave out "
                f"the damaged ones (the first is image {first})."
            )
        low, high = min(low, chunk_low), max(high, chunk_high)
    return low, high
