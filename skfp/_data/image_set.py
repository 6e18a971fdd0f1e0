"""Images in any accepted form, checked, and read batch by batch."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.sparse import issparse
from sklearn.utils import check_array
from torch.utils.data import DataLoader, Dataset

from .._utils.fingerprint import fingerprint
from .._utils.sampling import evenly_spaced
from .formats import (
    LAYOUTS,
    ImageFormat,
    layout_of_images,
    layout_of_rows,
)
from .sources import (
    ItemSource,
    Rows,
    Source,
    as_cells,
    as_source,
    as_tensor,
    encoded_image,
    image_of,
    is_image,
    read_item,
    row_chunks,
    to_device,
)
from .value_range import check_value_range, find_range, range_like, with_range

# Images of more pixels than this make slow and large networks.
LARGE = 256 * 256
_LOAD = "To read image files, put skfp.ImageLoader() before the encoder."


class Reading(NamedTuple):
    """How an estimator's parameters ask to read images."""

    image_shape: Sequence[int] | None = None
    value_range: Any = "auto"
    channels: Any = "auto"
    resize: Any = "auto"


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
        if isinstance(array, ItemSource) and 0 in array.shape[1:]:
            images = (image for rows in row_chunks(array) for image in array[rows])
            digest = "".join(fingerprint(image) for image in images)
        else:
            digest = fingerprint(array, row_chunks(array))
        return f"{digest} {self.format}"

    def read(self, indices: Sequence[int] | np.ndarray | slice) -> torch.Tensor:
        """Read images as (n_indices, channels, height, width): uint8, or float32 in [0, 1]."""
        items = self.array[indices]
        if not isinstance(items, list):
            return self.format.decode(as_tensor(items))
        return torch.cat([self._of_size(item).decode(as_tensor(item[None])) for item in items])

    def _of_size(self, image: np.ndarray) -> ImageFormat:
        return dataclasses.replace(self.format, shape=image.shape, image_shape=image.shape)

    def to(self, device: torch.device) -> ImageSet:
        """Copy all images to a device, in their own layout."""
        return ImageSet(to_device(self.array, device), self.format)


def as_array(X: Any, resize: Any = "auto") -> Rows:
    """Return X as an array, tensor or `Source` of numbers; refuse what holds no images.

    With a `resize` to (height, width), images may differ in size.

    Raises
    ------
    ValueError
        If X is empty, holds no numbers, or has the wrong number of dimensions.
    TypeError
        If X is sparse or holds objects that are not numbers.
    """
    if isinstance(X, torch.Tensor):
        return _check_tensor(X.detach())
    if issparse(X):
        raise TypeError(
            "Sparse data was passed, but dense data is required: pass X.toarray(). Expected "
            f"images: {LAYOUTS}."
        )
    if isinstance(X, DataLoader):
        raise TypeError("X is a DataLoader. Pass its data set: X.dataset is read in batches.")
    if isinstance(X, Image.Image) or encoded_image(X) is not None:
        raise ValueError(f"X is one image, a {type(X).__name__}. Pass a list: [X].")
    if _is_data_set(X):
        return _check_source(_as_items(X, resize), type(X).__name__)
    if not isinstance(X, np.ndarray) and isinstance(source := as_source(X), Source):
        return _check_source(source, type(X).__name__)
    if isinstance(X, str | os.PathLike):
        raise ValueError(f"X is {os.fspath(X)!r}, not images. {_LOAD} Expected: {LAYOUTS}.")
    cells = as_cells(X)
    if isinstance(cells, list) or (cells is not X and np.ndim(cells) > 1):
        X = cells
    if isinstance(X, np.ndarray) and X.dtype == object and X.ndim and X.size == len(X):
        X = X.ravel().tolist()  # a column of images
    if isinstance(X, Iterable) and not hasattr(X, "__array__") and not hasattr(X, "__getitem__"):
        X = list(X)
    if isinstance(X, list | tuple):
        X = _stack(X, resize)
        if isinstance(X, torch.Tensor):
            return _check_tensor(X)
        if isinstance(X, Source):
            return _check_source(X, "list")
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
    if 0 in array.shape:
        raise ValueError(f"X has shape {array.shape}, no pixels. Expected images: {LAYOUTS}.")
    return as_source(array)


def _is_data_set(X: Any) -> bool:
    """Tell whether X is a data set, of torch, skorch or Hugging Face, or a column of one."""
    if isinstance(X, Dataset):
        return True
    if isinstance(X, list | tuple | dict | memoryview) or hasattr(X, "dtype"):
        return False
    if hasattr(X, "columns") or not (hasattr(X, "__len__") and hasattr(X, "__getitem__")):
        return False
    return len(X) > 0 and is_image(image_of(X[0]))


def _as_items(items: Any, resize: Any) -> ItemSource:
    return ItemSource(items, mixed_sizes=resize not in ("auto", "tile"))


def _stack(items: Sequence[Any], resize: Any) -> Any:
    """Put a list of images into one array, tensor or source."""
    if len(items) == 0:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
    first = items[0]
    if isinstance(first, str | os.PathLike):
        raise ValueError(
            f"X holds text or paths such as {os.fspath(first)!r}, not numbers. {_LOAD} Expected "
            f"images: {LAYOUTS}."
        )
    if isinstance(first, torch.Tensor) and len({np.shape(item) for item in items}) == 1:
        if len(types := {item.dtype for item in items}) > 1:
            raise ValueError(f"X holds tensors of different types: {types}. Convert them to one.")
        return torch.stack([*items])
    is_item = isinstance(first, tuple | dict) or (
        isinstance(first, list) and len({np.shape(entry) for entry in first}) > 1
    )
    if not (is_image(first) or (is_item and is_image(image_of(first)))):
        if all(isinstance(item, np.ndarray) for item in items):
            items = _of_one_kind([*items])
        try:
            return np.asarray(items)
        except ValueError as error:
            raise ValueError(
                f"X is a list that is not an array: {error} Expected images: {LAYOUTS}."
            ) from error
    arrays = [read_item(item, row) for row, item in enumerate(items)]
    if any(a.ndim == 3 for a in arrays) and not isinstance(first, np.ndarray):
        # Grey images among colours.
        arrays = [a if a.ndim == 3 else np.repeat(a[..., None], 3, axis=2) for a in arrays]
    if len({tuple(np.shape(array)) for array in arrays}) > 1:
        if resize not in ("auto", "tile"):
            return ItemSource(arrays, mixed_sizes=True)
        row = next(r for r, a in enumerate(arrays) if np.shape(a) != np.shape(arrays[0]))
        raise ValueError(
            f"X holds images of different shapes: {tuple(np.shape(arrays[0]))} first, and "
            f"{tuple(np.shape(arrays[row]))} in row {row}. Pass resize=(height, width), or "
            "resize them yourself, for example with skfp.ImageLoader."
        )
    return np.stack(_of_one_kind(arrays))


def _of_one_kind(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Refuse images of several types, whose values have several scales; bool becomes 0 and 255."""
    kinds = {a.dtype.kind if a.dtype != np.uint8 else "uint8" for a in arrays}
    if kinds == {"b", "uint8"}:
        return [a.astype(np.uint8) * np.uint8(255) if a.dtype == bool else a for a in arrays]
    if len(kinds - {"i", "u"}) + bool(kinds & {"i", "u"}) > 1:
        row = next(r for r, a in enumerate(arrays) if a.dtype != arrays[0].dtype)
        raise ValueError(
            f"X holds images of different types: {arrays[0].dtype} first, and {arrays[row].dtype} "
            f"in row {row}. Convert them to one type and scale, for example with skfp.ImageLoader."
        )
    return arrays


def _check_dtype(dtype: np.dtype) -> None:
    if dtype.kind == "c":
        raise ValueError(f"Complex data not supported. Expected images: {LAYOUTS}.")
    if dtype.kind not in "biuf":
        raise ValueError(
            f"X holds values of type {dtype}, not numbers. {_LOAD} Expected images: {LAYOUTS}."
        )


def _check_source(source: Source, kind: str) -> Source:
    _check_dtype(source.dtype)
    mixed = isinstance(source, ItemSource) and 0 in source.shape[1:]
    if not 2 <= source.ndim <= 4 or (0 in source.shape and not mixed):
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


def check_images(array: Rows, kind: str, reading: Reading = Reading()) -> ImageSet:  # noqa: B008
    """Check images from `as_array` to fit on, and find their format; `kind` is from `kind_of`.

    Raises
    ------
    ValueError
        If values are not finite, or items are not images of at least 2 by 2 pixels.

    Warns
    -----
    UserWarning
        If images use a small part of the range they are read with, or are large.
    """
    value_range = check_value_range(reading.value_range)
    shape = tuple(array.shape[1:])
    resize: Any = reading.resize
    if 0 in shape:
        layout, image_shape = "hwc", shape
    elif array.ndim == 2:
        layout, image_shape = layout_of_rows(array.shape[1], reading.image_shape)
    else:
        if reading.image_shape is not None and tuple(reading.image_shape) != shape:
            raise ValueError(
                f"X holds images of shape {shape}, but image_shape is "
                f"{tuple(reading.image_shape)}. Leave image_shape out for images that are not "
                "flattened."
            )
        layout, image_shape = layout_of_images(shape), shape
        if layout == "hw" and len(array) in (3, 4):
            warnings.warn(
                f"X is read as {len(array)} grey images of shape {shape}. If it is one image with "
                f"{len(array)} channels, pass more images, each of them as X[None].",
                UserWarning,
                stacklevel=4,
            )
    format = ImageFormat(shape, layout, image_shape, dtype=kind, clip=value_range is not None)
    if isinstance(resize, int):
        size = _common_size(array) if 0 in shape else format.size
        resize = tuple(round(side * resize / min(size)) for side in size)
    format = dataclasses.replace(format, resize=resize if isinstance(resize, str) else (*resize,))
    if reading.channels == "rgba" and format.stored_channels != 3:  # RGB is opaque
        if format.stored_channels != 4:
            raise ValueError(
                f'channels is "rgba", but X has {format.stored_channels} channels. Expected 4.'
            )
        format = dataclasses.replace(format, alpha="composite")
    if math.prod(format.network_size) > LARGE:
        height, width = format.network_size
        warnings.warn(
            f"Networks get images of {height} by {width} pixels: training and embedding are slow "
            "and take much memory. Pass resize=128, for example, to make the shorter side 128 "
            "pixels.",
            UserWarning,
            stacklevel=4,
        )
    low_high = find_range(array, kind, value_range)
    images = ImageSet(array, with_range(format, low_high, array))
    if reading.channels == "auto" and format.channels not in (1, 3):
        _check_channels(images)
    return images


def _common_size(array: Rows) -> tuple[int, int]:
    """Return the size of images all over the array, or that of a square if they differ."""
    sizes = {image.shape[:2] for image in array[evenly_spaced(len(array), 64)]}
    return sizes.pop() if len(sizes) == 1 else (1, 1)


def _check_channels(images: ImageSet) -> None:
    """Warn of a channel that is like alpha, or nearly constant in the range of all."""
    pixels = images.read(evenly_spaced(len(images), 16))
    channels = pixels.to(torch.float32).div(255 if pixels.dtype == torch.uint8 else 1)
    if (
        channels.shape[1] == 4
        and ((channels[:, 3] == 0) | (channels[:, 3] == 1)).float().mean() > 0.5
    ):
        warnings.warn(
            'X has four channels, and the fourth looks like alpha. Pass channels="rgba" to show '
            "images on white, or channels=(0, 1, 2) to read it as a channel like others.",
            UserWarning,
            stacklevel=5,
        )
    low, high = channels.amin((0, 2, 3)), channels.amax((0, 2, 3))
    faint = ((high > low) & (high - low < 0.02)).nonzero().flatten().tolist()
    if faint and (high - low).max() > 0.1:
        warnings.warn(
            f"Channels {faint} of X use less than 2 % of the value range of all channels. Scale "
            "each channel to the same range.",
            UserWarning,
            stacklevel=5,
        )


def check_images_like(array: Rows, kind: str, format: ImageFormat) -> ImageSet:
    """Check images from `as_array` against the format of those in fit, in any layout.

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
        format = _of_shape(shape, format)
    return ImageSet(array, with_range(format, range_like(array, kind, format), array))


def _of_shape(shape: tuple[int, ...], format: ImageFormat) -> ImageFormat:
    """Return the format of the same images in another layout, flattened, or of another size."""
    if len(shape) == 1 and shape[0] == math.prod(format.shape):
        return dataclasses.replace(format, shape=shape)
    if len(shape) > 1 and format.layout != "row":
        layout = "hwc" if 0 in shape else layout_of_images(shape)
        other = dataclasses.replace(format, shape=shape, layout=layout, image_shape=shape)
        if other.stored_channels == 3:
            other = dataclasses.replace(other, alpha=None)  # RGB is opaque
        same_channels = other.stored_channels == (4 if other.alpha else format.channels)
        if same_channels and (other.size == format.size or not isinstance(format.resize, str)):
            return other
    raise ValueError(
        f"X holds images of shape {shape}, but the encoder was fitted on images of shape "
        f"{format.shape}. Resize or convert them to that shape, or fit with resize=(height, "
        "width), which takes images of any size."
    )
