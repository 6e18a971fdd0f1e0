"""What a user passes in, as an array, tensor or source of numbers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import issparse
from sklearn.utils import check_array

from .._utils.torch_types import is_torch
from .formats import LAYOUTS
from .sources import (
    ItemSource,
    Rows,
    Source,
    as_cells,
    as_source,
    encoded_image,
    image_of,
    is_image,
    read_item,
)

_LOAD = "To read image files, put skfp.ImageLoader() before the encoder."


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
    if is_torch(X, "Tensor"):
        return _check_tensor(X.detach())
    if issparse(X):
        raise TypeError(
            "Sparse data was passed, but dense data is required: pass X.toarray(). Expected "
            f"images: {LAYOUTS}."
        )
    if is_torch(X, "utils.data.DataLoader"):
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
        if is_torch(X, "Tensor"):
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
    if is_torch(X, "utils.data.Dataset"):
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
    if is_torch(first, "Tensor") and len({np.shape(item) for item in items}) == 1:
        if len(types := {item.dtype for item in items}) > 1:
            raise ValueError(f"X holds tensors of different types: {types}. Convert them to one.")
        import torch  # which tensors have imported already

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


def _check_tensor(tensor: Any) -> Any:
    import torch  # which tensors have imported already

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
