"""Images in any accepted form, checked, and read batch by batch."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from .._images.formats import (
    MIN_NETWORK_SIDE,
    ImageFormat,
    layout_of_images,
    layout_of_rows,
)
from .._images.matching import format_like
from .._images.sources import ItemSource, Rows, row_chunks
from .._images.value_range import check_value_range, find_range, with_range
from .._utils.fingerprint import fingerprint
from .._utils.sampling import evenly_spaced
from .decoding import decode
from .tensors import as_tensor, to_device

# Images of more pixels than this make slow and large networks.
LARGE = 256 * 256


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
            return decode(as_tensor(items), self.format)
        return torch.cat([decode(as_tensor(item[None]), self._of_size(item)) for item in items])

    def _of_size(self, image: np.ndarray) -> ImageFormat:
        return dataclasses.replace(self.format, shape=image.shape, image_shape=image.shape)

    def enlarged(self, side: int | None) -> ImageSet:
        """Return the images so that small ones are read with a shorter side of `side` pixels.

        To enlarge them twice, here and in a network, would blur them: through EfficientNet-Lite0,
        CIFAR-10 gave 0.79 instead of 0.82.
        """
        size = self.format.size
        if side is None or self.format.resize != "auto" or max(size) >= MIN_NETWORK_SIDE:
            return self
        resize: Any = tuple(round(length * side / min(size)) for length in size)
        return ImageSet(self.array, dataclasses.replace(self.format, resize=resize))

    def to(self, device: torch.device) -> ImageSet:
        """Copy all images to a device, in their own layout."""
        return ImageSet(to_device(self.array, device), self.format)


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
    """Check images from `as_array` against the format of those in fit, as `format_like` does."""
    return ImageSet(array, format_like(array, kind, format))
