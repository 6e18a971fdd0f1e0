"""Which values are read as black and white, found from the images or given by the user."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .formats import ImageFormat
from .sources import Rows, as_tensor, row_chunks

Range = tuple[float, float]
UINT8: Range = (0.0, 255.0)
UNIT: Range = (0.0, 1.0)
# Images that use less of a usual range are stretched to their own.
MIN_SHARE = 0.1
_ADVICE = "Pass value_range=(low, high), the values that stand for black and white in all images."


def check_value_range(value_range: str | Sequence[float]) -> Range | None:
    """Return the parameter `value_range` as two floats, None for "auto"."""
    if isinstance(value_range, str) and value_range == "auto":
        return None
    low_high = np.asarray(value_range, dtype=float) if not isinstance(value_range, str) else None
    if low_high is None or low_high.shape != (2,) or not -math.inf < low_high[0] < low_high[1]:
        raise ValueError(
            f'value_range is {value_range!r}. Expected "auto" or (low, high) with low < high: the '
            "values that stand for black and white."
        )
    return float(low_high[0]), float(low_high[1])


def kind_of(X: Any, array: Rows) -> str:
    """Return the kind of the values of X, which `array` has been made of.

    "bool", "uint8", "int" or "float".
    """
    first = X[0] if isinstance(X, list | tuple) and len(X) else X
    dtype = first.dtype if isinstance(first, torch.Tensor) else array.dtype
    kind = str(getattr(array, "stored_dtype", dtype)).removeprefix("torch.").lstrip("<>=")
    if kind == "bool":
        return "bool"
    if kind.startswith(("float", "bfloat", "longdouble")):
        return "float"
    return "int" if kind.startswith(("int", "uint")) and kind != "uint8" else "uint8"


def find_range(array: Rows, kind: str, value_range: Range | None) -> Range:
    """Find the range to read images of a fit with.

    Without a given range it is the smallest usual one that holds them: 0 to 1, 0 to 255 or -1 to
    1. Images that fit into none of them, or use less than a tenth of one, are read with the range
    of their own values.

    Warns
    -----
    UserWarning
        If images use a small part of the usual, or of the given range.
    """
    if kind == "bool":
        return UINT8  # converted to 0 and 255 when read
    low, high = span(array, enough=UINT8 if _is_uint8(array) else None)
    if value_range is not None:
        if low < high and high - low < MIN_SHARE / 2 * (value_range[1] - value_range[0]):
            _warn(f"X uses only values from {low:g} to {high:g} of value_range={value_range}.")
        return value_range
    usual = _usual_range(low, high, _is_uint8(array))
    if usual is None:
        if not math.isfinite(high - low):
            raise ValueError(
                f"X spans the values {low} to {high}, more than double precision can scale. "
                "Scale the images to [0, 1] first."
            )
        return low, high
    if low == high or high - low >= MIN_SHARE * (usual[1] - usual[0]):
        return usual
    _warn(
        f"X uses only values from {low:g} to {high:g}: these are read as black and white, instead "
        f"of {usual[0]:g} and {usual[1]:g}. {_ADVICE}"
    )
    return low, high


def range_like(array: Rows, kind: str, format: ImageFormat) -> Range:
    """Find the range to read other images with, so that they look like those of the format.

    Raises
    ------
    ValueError
        If values are far outside the range in fit.

    Warns
    -----
    UserWarning
        If images use a small part of the range in fit.
    """
    fitted = format.value_range
    uint8 = _is_uint8(array)
    if kind == "bool":
        return UINT8
    if format.clip:
        if not uint8:
            span(array)  # refuses values that are not finite
        return fitted
    low, high = span(array, enough=UINT8 if uint8 else None)
    if fitted in (UNIT, UINT8):
        masks = format.dtype == "bool" or (format.dtype == "uint8" and fitted == UNIT)
        if uint8:
            if masks:
                return UNIT if high <= 1 else UINT8
            expected = UINT8
        elif fitted == UINT8 and format.dtype == "float":
            expected = UINT8
        else:
            # A little above 1 is noise or rounding; more is another scale.
            expected = UNIT if high <= 2 else UINT8
    else:
        expected = fitted
    width = expected[1] - expected[0]
    if low < expected[0] - width or high > expected[1] + width:
        raise ValueError(
            f"The encoder was fitted on values from {fitted[0]:g} to {fitted[1]:g}, and X holds "
            f"values from {low:g} to {high:g}. Pass images scaled as those in fit, or fit with "
            "value_range=(low, high), which clips values outside."
        )
    uses_little = high - low < 0.02 * width
    if uses_little and low < high and not (uint8 and high > 1 and expected == UINT8):
        _warn(
            f"The encoder was fitted on values from {fitted[0]:g} to {fitted[1]:g}, and X uses "
            f"only {low:g} to {high:g}. Pass images scaled as those in fit. {_ADVICE}"
        )
    return expected


def with_range(format: ImageFormat, low_high: Range, array: Rows) -> ImageFormat:
    """Return a format that reads an array with a range."""
    if low_high == UINT8 and _is_uint8(array):
        return dataclasses.replace(format, low=None, high=None)
    return dataclasses.replace(format, low=low_high[0], high=low_high[1])


def span(array: Rows, enough: Range | None = None) -> Range:
    """Find the least and greatest value, in one pass that also refuses NaN and infinity.

    The pass ends as soon as the images use a tenth of the range `enough`, and more than 0 and 1.
    """
    low, high = math.inf, -math.inf
    for rows in row_chunks(array):
        chunk = array[rows]
        if isinstance(chunk, list):  # images of mixed sizes
            lows, highs = zip(*((float(i.min()), float(i.max())) for i in chunk), strict=True)
            chunk_low, chunk_high = min(lows), max(highs)
        else:
            # min and max propagate NaN, so one pass serves both purposes.
            chunk_low, chunk_high = float(chunk.min()), float(chunk.max())
        if not (math.isfinite(chunk_low) and math.isfinite(chunk_high)):
            finite = [bool(as_tensor(image).isfinite().all()) for image in chunk]
            first = rows.start + (finite.index(False) if False in finite else 0)
            raise ValueError(
                "Input X contains NaN or infinity. Images must be finite: repair or leave out "
                f"the damaged ones (the first is image {first})."
            )
        low, high = min(low, chunk_low), max(high, chunk_high)
        if enough and high > 1 and high - low >= MIN_SHARE * (enough[1] - enough[0]):
            break
    return low, high


def _usual_range(low: float, high: float, is_uint8: bool) -> Range | None:
    if low >= 0 and high <= 1:
        return UINT8 if is_uint8 and high == 0 else UNIT
    if low >= 0 and high <= 255:
        return UINT8
    return (-1.0, 1.0) if -1 <= low <= -0.5 and high <= 1 else None


def _is_uint8(array: Rows) -> bool:
    return array.dtype == (torch.uint8 if isinstance(array, torch.Tensor) else np.uint8)


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=6)
