"""Which values are read as black and white, found from the images or given by the user."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._utils.torch_types import is_torch, to_numpy
from .formats import ImageFormat
from .sources import Rows, row_chunks

Range = tuple[float, float]
UINT8: Range = (0.0, 255.0)
UNIT: Range = (0.0, 1.0)
SIGNED: Range = (-1.0, 1.0)
# Images that use less of a usual range are stretched to their own.
MIN_SHARE = 0.1
_LITTLE_CONTRAST = 0.15
_SAMPLE = 100_000
_FEW = 0.05
_ADVICE = "Pass value_range=(low, high), the values that stand for black and white in all images."


def check_value_range(value_range: str | Sequence[float]) -> Range | None:
    """Return the parameter `value_range` as two floats, None for "auto"."""
    if isinstance(value_range, str) and value_range == "auto":
        return None
    low_high = np.array([] if isinstance(value_range, str) else value_range, dtype=float)
    if low_high.shape != (2,) or not (np.isfinite(low_high).all() and low_high[0] < low_high[1]):
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
    dtype = first.dtype if is_torch(first, "Tensor") else array.dtype
    stored = getattr(array, "stored_dtype", dtype)
    kind = getattr(stored, "name", str(stored)).removeprefix("torch.")
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
        If nearly all values lie in a small part of the range, or outside a given one.
    """
    if kind == "bool":
        return UINT8  # converted to 0 and 255 when read
    low, high, sample = span(array, enough=UINT8 if kind == "uint8" else None)
    if value_range is not None:
        _check_contrast(sample, low, high, value_range, f"value_range={value_range}")
        return value_range
    usual = _usual_range(low, high, kind == "uint8")
    if usual is None and not math.isfinite(high - low):
        raise ValueError(
            f"X spans the values {low} to {high}, more than double precision can scale. "
            "Scale the images to [0, 1] first."
        )
    if usual and low < high and high - low < MIN_SHARE * (usual[1] - usual[0]):
        _warn(
            f"X uses only values from {low:g} to {high:g}: these are read as black and white, "
            f"instead of {usual[0]:g} and {usual[1]:g}. {_ADVICE}"
        )
        return low, high
    found = usual or (low, high)
    _check_contrast(sample, low, high, found, f"the range {found[0]:g} to {found[1]:g}")
    return found


def range_like(array: Rows, kind: str, format: ImageFormat) -> Range:
    """Find the range to read other images with, so that they look like those of the format.

    Raises
    ------
    ValueError
        If values are far outside the range in fit.

    Warns
    -----
    UserWarning
        If values seem to be on another scale than those in fit.
    """
    if kind == "bool":
        return UINT8
    low, high, sample = span(array, enough=UINT8 if kind == "uint8" else None)
    expected = format.value_range if format.clip else _expected_range(kind, format, high)
    fitted = "The encoder was fitted on values from {:g} to {:g}".format(*format.value_range)
    if not format.clip:
        width = expected[1] - expected[0]
        other_scale = (
            kind == "float"
            and expected == UINT8
            and (format.value_range, format.dtype) != (UINT8, "float")
            and _share(sample, above=2) < _FEW
        )
        if low < expected[0] - width / 2 or high > expected[1] + width or other_scale:
            raise ValueError(
                f"{fitted}, and X holds values from {low:g} to {high:g}"
                f"{', nearly all below 2' if other_scale else ''}. Pass images scaled as those in "
                "fit, or fit with value_range=(low, high), which clips values outside."
            )
    if low < high and (doubt := _doubt(sample, kind, format, expected, low, high)):
        _warn(f"{fitted}, and X {doubt}. Pass images scaled as those in fit. {_ADVICE}")
    return expected


def _expected_range(kind: str, format: ImageFormat, high: float) -> Range:
    """Choose the range in fit, or the same brightness on the other usual scale."""
    fitted = format.value_range
    if fitted == SIGNED and kind == "uint8":
        return UINT8
    if fitted not in (UNIT, UINT8):
        return fitted
    if kind != "float":
        is_mask = format.dtype == "bool" or (fitted == UNIT and format.dtype != "float")
        return UNIT if is_mask and high <= 1 else UINT8
    if fitted == UINT8 and format.dtype == "float":
        return UINT8
    # A little above 1 is noise or rounding; more is another scale.
    return UNIT if high <= 2 else UINT8


def _doubt(
    sample: np.ndarray, kind: str, format: ImageFormat, expected: Range, low: float, high: float
) -> str | None:
    """Say why images may be on another scale than those in fit."""
    fitted, width = format.value_range, expected[1] - expected[0]
    used = min(high, expected[1]) - max(low, expected[0])
    small_integers = kind != "float" and 1 < high <= 255 and expected == UINT8
    if used < 0.02 * width and not small_integers:
        return f"uses only {low:g} to {high:g} of {expected[0]:g} to {expected[1]:g}"
    if fitted[1] > 2 * UINT8[1] and format.dtype != "uint8" and low >= 0 and 128 < high <= 255:
        return f"holds values from {low:g} to {high:g}, like images of 8 bits"
    if kind == "float" and low >= 0 and high <= 1 and (expected == SIGNED or expected[1] >= 2):
        return f"holds floats from {low:g} to {high:g}"
    after_masks = kind != "float" and expected == UINT8 and fitted == UNIT
    if after_masks and format.dtype != "float" and not np.isin(sample, (0, 255)).all():
        return f"holds other integers up to {high:g}, which are read as 0 to 255"
    if format.clip:
        return "lies almost everywhere outside" if _is_clipped(sample, expected) else None
    outside = max(expected[0] - low, high - expected[1]) > 0.1 * width
    return f"holds values from {low:g} to {high:g}" if outside else None


def _check_contrast(sample: np.ndarray, low: float, high: float, used: Range, name: str) -> None:
    """Warn of images that are nearly black, white or grey when read with a range.

    A few extreme values do not count, nor does a background that is equal to the extreme.
    """
    if low == high:
        return
    if _is_clipped(sample, used):
        _warn(f"X holds values from {low:g} to {high:g}, nearly all outside {name}.")
        return
    values = sample.clip(*used)
    low, high = max(low, used[0]), min(high, used[1])
    bright, dark = values[values > low], values[values < high]
    top = np.quantile(bright, 0.99) if len(bright) else low
    bottom = np.quantile(dark, 0.01) if len(dark) else high
    if min(top - low, high - bottom) < _LITTLE_CONTRAST * (used[1] - used[0]):
        _warn(
            f"Nearly all values of X lie between {max(bottom, low):g} and {min(top, high):g}, a "
            f"small part of {name}: images have little contrast. {_ADVICE}"
        )


def _is_clipped(values: np.ndarray, used: Range) -> bool:
    inside = np.mean((values > used[0]) & (values < used[1]))
    outside = np.mean((values < used[0]) | (values > used[1]))
    return bool(outside > 0.1 and inside < 0.01)


def _share(values: np.ndarray, above: float) -> float:
    """Return the share of positive values that are above a value."""
    positive = values[values > 0]
    return float(np.mean(positive > above)) if len(positive) else 0.0


def _draw(chunk: Any, n: int, random: np.random.Generator) -> np.ndarray:
    """Draw n values from images."""
    images = chunk if isinstance(chunk, list) else [chunk]
    drawn = []
    for image in images:
        flat = image.reshape(-1)
        if len(flat) > (n_places := max(n // len(images), 1)):
            flat = flat[random.integers(len(flat), size=n_places)]
        drawn.append(to_numpy(flat).astype(np.float64))
    return np.concatenate(drawn)


def with_range(format: ImageFormat, low_high: Range, array: Rows) -> ImageFormat:
    """Return a format that reads an array with a range."""
    if low_high == UINT8 and _is_uint8(array):
        return dataclasses.replace(format, low=None, high=None)
    return dataclasses.replace(format, low=low_high[0], high=low_high[1])


def span(array: Rows, enough: Range | None = None) -> tuple[float, float, np.ndarray]:
    """Find the least and greatest value, and a sample of all, in one pass that refuses NaN.

    The pass ends as soon as the images use a tenth of the range `enough`, and more than 0 and 1.
    """
    low, high = math.inf, -math.inf
    random, samples = np.random.default_rng(0), []
    chunks = list(row_chunks(array))
    for rows in chunks:
        chunk = array[rows]
        if isinstance(chunk, list):  # images of mixed sizes
            chunk_low = float(np.min([image.min() for image in chunk]))
            chunk_high = float(np.max([image.max() for image in chunk]))
        else:
            # min and max propagate NaN, so one pass serves both purposes.
            chunk_low, chunk_high = float(chunk.min()), float(chunk.max())
        if not (math.isfinite(chunk_low) and math.isfinite(chunk_high)):
            finite = [bool(np.isfinite(to_numpy(image)).all()) for image in chunk]
            first = rows.start + (finite.index(False) if False in finite else 0)
            raise ValueError(
                "Input X contains NaN or infinity. Images must be finite: repair or leave out "
                f"the damaged ones (the first is image {first})."
            )
        low, high = min(low, chunk_low), max(high, chunk_high)
        samples.append(_draw(chunk, max(_SAMPLE // len(chunks), 1000), random))
        if enough and high > 1 and high - low >= MIN_SHARE * (enough[1] - enough[0]):
            break
    return low, high, np.concatenate(samples)


def _usual_range(low: float, high: float, is_uint8: bool) -> Range | None:
    if low >= 0 and high <= 1:
        return UINT8 if is_uint8 and high == 0 else UNIT
    if low >= 0 and high <= 255:
        return UINT8
    return SIGNED if -1 <= low <= -0.5 and high <= 1 else None


def _is_uint8(array: Rows) -> bool:
    return str(array.dtype).removeprefix("torch.") == "uint8"


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=6)
