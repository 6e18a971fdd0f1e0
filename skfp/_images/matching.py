"""Images of a later call, read so that they look like those in fit."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from .arrays import as_array
from .formats import ImageFormat, layout_of_images
from .sources import Rows
from .value_range import kind_of, range_like, with_range


def read_like(X: Any, format: ImageFormat, estimator: BaseEstimator) -> tuple[Rows, ImageFormat]:
    """Return X as an array, and how it is read as images like those in fit.

    Raises
    ------
    TypeError, ValueError
        If X does not hold images like those that the estimator was fitted on.
    """
    array = as_array(X, format.resize)
    if array.ndim == 2 and array.shape == format.shape[:2]:
        raise ValueError(
            f"X has the shape {tuple(array.shape)} of one image in fit. Pass a single image as "
            "X[None]."
        )
    check_columns(estimator, X, array, reset=False)
    return array, format_like(array, kind_of(X, array), format)


def check_columns(estimator: Any, X: Any, array: Rows, *, reset: bool) -> None:
    """Check names and number of the columns of flattened images, or keep them for later calls."""
    if array.ndim == 2:
        # A table has names of columns; of one column of images they are not those of pixels.
        is_table = hasattr(X, "columns") and len(X.columns) == array.shape[1]
        rows = X if is_table or isinstance(X, np.ndarray | list) else array
        validate_data(estimator, rows, skip_check_array=True, reset=reset)


def format_like(array: Rows, kind: str, format: ImageFormat) -> ImageFormat:
    """Return how an array from `as_array` is read, in any layout, given the format in fit.

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
    return with_range(format, range_like(array, kind, format), array)


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
