"""Arrays whose rows are read on demand: mapped files, HDF5, zarr, torch data sets.

A `Source` has a shape and a dtype and is indexed by rows, like an array, but reads them only then.
"""

from __future__ import annotations

import io
import math
import mmap
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import issparse
from sklearn.utils import gen_batches

from .._utils.torch_types import is_torch, to_numpy
from .formats import layout_of_images
from .pil import BACKGROUND, advice, open_image, to_array

# Rows are read in chunks of so many bytes where all are needed.
CHUNK_BYTES = 2**24
# Linux may map 2 MiB of a file for each row that is read: so many rows make 64 MiB.
_MAPPED_ROWS = 32


class Source(ABC):
    """Rows of the given shape and dtype, read when indexed.

    `dtype` is that of the rows read: uint8 for bool, float32 for half and float64 for extended
    precision; any other as stored, in the byte order of the machine.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape = tuple(int(side) for side in shape)
        self.dtype = _computable(dtype)
        self.stored_dtype = np.dtype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes, that of the rows included."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that all rows would take in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Read rows, of a slice or a list of indices in any order, into memory."""
        if isinstance(rows, slice):
            read = self._read(np.arange(*rows.indices(len(self))))
        else:
            wanted, places = np.unique(np.asarray(rows, dtype=np.intp), return_inverse=True)
            read = self._read(wanted)[places]
        return _computable_array(read, self.dtype)

    @abstractmethod
    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Read rows that rise without repetition, as they are stored."""


class ArraySource(Source):
    """A numpy array that is in a mapped file, or whose dtype is converted when it is read."""

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(array.shape, array.dtype)
        self._array = array

    def _read(self, rows: np.ndarray) -> np.ndarray:
        if _mapping(self._array) is None:
            return self._array[rows]
        read = np.empty((len(rows), *self.shape[1:]), self._array.dtype)
        for batch in gen_batches(len(rows), _MAPPED_ROWS):
            read[batch] = self._array[rows[batch]]
            release_pages(self._array)
        return read


class RowSource(Source):
    """An object with `shape` and `dtype` that reads slices of its rows, such as an HDF5 array.

    `chunks`, if it has them, says how many rows are stored together; `oindex` reads any rows at
    once.
    """

    def __init__(self, array: Any) -> None:
        if any(math.isnan(side) for side in array.shape):
            raise ValueError(
                f"X has shape {tuple(array.shape)}: the number of its images is unknown. Call "
                "compute_chunk_sizes() on a dask array first."
            )
        super().__init__(array.shape, np.dtype(array.dtype))
        self._array = array
        chunks = getattr(array, "chunks", None) or (1,)
        self._rows_per_chunk = chunks[0] if isinstance(chunks[0], int) else 1

    def _read(self, rows: np.ndarray) -> np.ndarray:
        runs = self._runs(rows)
        if len(runs) > 1 and hasattr(self._array, "oindex"):
            return self._checked(self._array.oindex[rows], len(rows))
        parts = [self._slice(run[0], run[-1] + 1)[run - run[0]] for run in runs]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _runs(self, rows: np.ndarray) -> list[np.ndarray]:
        """Split rows into those that one slice reads best: neighbours, or in one chunk."""
        chunks = rows // self._rows_per_chunk
        apart = (np.diff(rows) > 1) & (np.diff(chunks) > 0)
        return np.split(rows, np.flatnonzero(apart) + 1)

    def _slice(self, start: int, stop: int) -> np.ndarray:
        return self._checked(self._array[int(start) : int(stop)], int(stop - start))

    def _checked(self, read: Any, n_rows: int) -> np.ndarray:
        read = np.asarray(read)
        expected = (n_rows, *self.shape[1:])
        if read.shape != expected:
            raise ValueError(
                f"X gave an array of shape {read.shape} for {n_rows} of its rows. Expected "
                f"{expected}, as its shape {self.shape} says."
            )
        return read


class ItemSource(Source):
    """The images of a list or a map-style torch data set, or the first entry of each item.

    The first image gives the shape and dtype of all. With `mixed_sizes` images may differ in
    height and width; then rows are read as lists of (height, width, channels) arrays, and `shape`
    holds 0 for height and width.
    """

    def __init__(self, items: Any, *, mixed_sizes: bool = False) -> None:
        if is_torch(items, "utils.data.IterableDataset") or not hasattr(items, "__len__"):
            raise ValueError(
                f"X is a {type(items).__name__}, which cannot be indexed. Expected a map-style "
                "data set with a length; give a stream to partial_fit in batches."
            )
        if len(items) == 0:
            raise ValueError(
                f"Found {type(items).__name__} with 0 sample(s) while a minimum of 1 is required."
            )
        self._items = items
        self._mixed_sizes = mixed_sizes
        first = self._image(0)
        super().__init__((len(items), *_shape_of(first, mixed_sizes)), first.dtype)

    def __getitem__(self, rows: Any) -> Any:
        if not self._mixed_sizes:
            return super().__getitem__(rows)
        numbers = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        return [_computable_array(self._image(row), self.dtype) for row in numbers.tolist()]

    @property
    def nbytes(self) -> int:
        """Bytes that all images would take in memory; unknown, and taken as too many, if mixed."""
        return sys.maxsize if self._mixed_sizes else super().nbytes

    def _read(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._image(row) for row in rows.tolist()])

    def _image(self, row: int) -> np.ndarray:
        image = read_item(self._items[row], row)
        if self._mixed_sizes:
            image = _channels_last(image)
        if hasattr(self, "shape"):
            is_grey = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
            if is_grey and self.ndim == 4 and self.shape[3] == 3:  # among colour images
                image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
            self._check(image, row)
        return image

    def _check(self, image: np.ndarray, row: int) -> None:
        shape = _shape_of(image, self._mixed_sizes)
        if shape != self.shape[1:] or _computable(image.dtype) != self.dtype:
            what = "channels" if self._mixed_sizes else "shapes"
            size = "" if self._mixed_sizes else "Pass resize=(height, width) for any size, or "
            raise ValueError(
                f"X holds images of different {what} or types: {self.shape[1:]}, {self.dtype} "
                f"first, and {shape}, {image.dtype} in row {row}. {size}put skfp.ImageLoader() "
                "before the encoder, which converts them."
            )


def read_item(item: Any, row: int) -> np.ndarray:
    """Return the image of an item as an array; errors name its row."""
    try:
        return image_array(item)
    except TypeError as error:
        raise TypeError(f"Row {row} of X: {error}.") from error
    except Exception as error:  # Pillow's readers raise almost anything on a broken file.
        raise ValueError(
            f"Row {row} of X cannot be read as an image: {type(error).__name__}: "
            f"{str(error).rstrip('.')}.{advice(item, error)}"
        ) from error


def image_of(item: Any) -> Any:
    """Return the image of an item: itself, or that in a tuple (image, ...) or a dict."""
    if isinstance(item, tuple | list) and item:
        item = item[0]
    if isinstance(item, dict) and encoded_image(item) is None:
        entries = [item.get("image"), item.get("img"), *item.values()]
        item = next(filter(is_image, entries), item)
    return item


def is_image(item: Any) -> bool:
    """Tell whether an item is an image in itself."""
    if isinstance(item, np.ndarray) or is_torch(item, "Tensor"):
        return item.ndim >= 2 or item.dtype == object  # rows of a nested list
    return isinstance(item, Image.Image) or encoded_image(item) is not None


def image_array(item: Any, background: str = BACKGROUND) -> np.ndarray:
    """Return the image of an item as an array: the item, its first entry, or what it encodes."""
    image = image_of(item)
    if (encoded := encoded_image(image)) is not None:
        with open_image(encoded) as opened:
            return to_array(opened, background)
    if is_torch(image, "Tensor"):
        # NumPy has no bfloat16.
        return to_numpy(image.float() if str(image.dtype) == "torch.bfloat16" else image)
    if isinstance(image, Image.Image):
        return to_array(image, background)
    if isinstance(image, np.ndarray) and image.dtype == object and image.ndim:
        return np.stack([image_array(row) if isinstance(row, np.ndarray) else row for row in image])
    if isinstance(image, np.ndarray) and image.dtype.kind in "biuf":
        return image
    raise TypeError(
        f"a {type(item).__name__} is not an image. Expected an array, a tensor, a PIL image, the "
        "bytes of an image file, or a tuple that begins with one"
    )


def encoded_image(item: Any) -> Any:
    """Return what PIL opens of the bytes of an image file, or of a cell {"bytes", "path"}."""
    if isinstance(item, dict) and (item.get("bytes") or item.get("path")):
        item = item.get("bytes") or item["path"]
        if isinstance(item, str):
            return item
    if isinstance(item, bytes | bytearray):
        return io.BytesIO(item)
    if isinstance(item, io.IOBase):
        item.seek(0)
        return item
    return None


def as_cells(X: Any) -> Any:
    """Return a series or a table of one column as an array, or a list if it holds objects."""
    if len(getattr(X, "columns", ())) == 1:
        X = X[X.columns[0]]
    if not hasattr(X, "to_numpy") or hasattr(X, "columns"):
        return X
    if str(X.dtype).startswith("Struct"):
        return X.to_list()
    values = X.to_numpy()
    return values.tolist() if values.dtype.kind in "OU" else values


def _channels_last(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2:
        return image[:, :, None]
    return image.transpose(1, 2, 0) if layout_of_images(image.shape) == "chw" else image


def _shape_of(image: np.ndarray, mixed_sizes: bool) -> tuple[int, ...]:
    return (0, 0, image.shape[2]) if mixed_sizes else image.shape


Rows = Any  # an ndarray, a torch.Tensor or a Source


def release_pages(array: Any) -> None:
    """Drop the pages of a mapped file from this process's memory; the file keeps their content.

    Pages that a process has read or written count as its memory as long as they are mapped. Other
    arrays are left as they are.
    """
    mapping = _mapping(array)
    if mapping is not None:
        mapping.madvise(mmap.MADV_DONTNEED)


def _mapping(array: Any) -> mmap.mmap | None:
    shared = False
    while isinstance(array, np.ndarray):
        # Copy-on-write pages ("c") are in no file: dropping them would lose their content.
        shared |= getattr(array, "mode", None) in ("r", "r+", "w+")
        array = array.base
    can_advise = shared and isinstance(array, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED")
    return array if can_advise else None


def as_source(X: Any) -> Any:
    """Wrap X in a `Source` if it should be read in batches; return it as it is otherwise."""
    if isinstance(X, np.ndarray):
        return X if X.dtype == _computable(X.dtype) and _mapping(X) is None else ArraySource(X)
    if is_torch(X, "utils.data.Dataset"):
        return ItemSource(X)
    return RowSource(X) if _reads_rows(X) else X


def _reads_rows(X: Any) -> bool:
    # Tables have rows too, but each column has a type of its own.
    if isinstance(X, Source) or is_torch(X, "Tensor") or issparse(X) or hasattr(X, "iloc"):
        return False
    try:
        np.dtype(X.dtype)
        return X.ndim == len(X.shape) >= 2
    except (AttributeError, TypeError):
        return False


def _computable_array(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    with np.errstate(over="ignore"):  # what double precision cannot hold becomes infinite
        return array.astype(dtype, copy=False)


def _computable(dtype: np.dtype) -> np.dtype:
    types = {np.bool_: np.uint8, np.float16: np.float32, np.longdouble: np.float64}
    return np.dtype(types.get(dtype.type, dtype)).newbyteorder("=")


def row_chunks(array: Rows) -> Iterator[slice]:
    """Yield slices of the rows of an array, of 16 MiB at most or of a single row."""
    if 0 in array.shape[1:]:  # images of mixed sizes
        yield from gen_batches(len(array), 64)
        return
    row_bytes = math.prod(array.shape[1:]) * array.dtype.itemsize
    yield from gen_batches(len(array), max(CHUNK_BYTES // max(row_bytes, 1), 1))
