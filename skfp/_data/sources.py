"""Rows on demand: collections that are not in memory, or not in a type to compute with.

Memory-mapped files, HDF5 and zarr arrays, whatever else reads rows when asked, and torch data sets
become a `Source`: it has a shape and a type, and is indexed by rows, like an array, but reads them
only then. Arrays in memory are left as they are.
"""

from __future__ import annotations

import math
import mmap
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.sparse import issparse
from sklearn.utils import gen_batches
from torch.utils.data import Dataset, IterableDataset

# What is read at a time where all rows are needed.
PART_BYTES = 2**24
# Linux may map 2 MiB of a file for each row that is read: so many rows make 64 MiB.
_MAPPED_ROWS = 32

# Modes of PIL images whose values are no brightness, or packed otherwise, and what they become.
_PIL_MODES = {
    "1": "L",
    "LA": "RGBA",
    "P": "RGB",
    "PA": "RGBA",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "LAB": "RGB",
    "HSV": "RGB",
}


class Source(ABC):
    """Rows that are read when they are asked for.

    Parameters
    ----------
    shape : tuple of int
        Number of rows, and the shape of one.
    dtype : dtype
        The type that rows are stored in.

    Attributes
    ----------
    dtype : dtype
        The type that rows are read as: uint8 for bool, float32 for half and float64 for extended
        precision, and any other as it is, in the byte order of the machine.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape = tuple(int(side) for side in shape)
        self.dtype = _computable(dtype)

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
        if read.dtype == bool:
            return read.astype(np.uint8) * np.uint8(255)
        with np.errstate(over="ignore"):  # what double precision cannot hold becomes infinite
            return read.astype(self.dtype, copy=False)

    @abstractmethod
    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Read rows that rise without repetition, as they are stored."""


class ArraySource(Source):
    """An array in a mapped file, or in memory in a type that is converted when it is read.

    Parameters
    ----------
    array : ndarray of numbers
    """

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(array.shape, array.dtype)
        self._array = array

    def _read(self, rows: np.ndarray) -> np.ndarray:
        if _mapping(self._array) is None:
            return self._array[rows]
        read = np.empty((len(rows), *self.shape[1:]), self._array.dtype)
        for shard in gen_batches(len(rows), _MAPPED_ROWS):
            read[shard] = self._array[rows[shard]]
            release_pages(self._array)
        return read


class RowSource(Source):
    """An object with `shape` and `dtype` that gives a slice of its rows, such as a file format's.

    Parameters
    ----------
    array : object
        `chunks`, where it has them, says how many rows are stored together; `oindex` reads rows
        of any indices at once.

    Raises
    ------
    ValueError
        If the number of rows is not known.
    """

    def __init__(self, array: Any) -> None:
        if any(math.isnan(side) for side in array.shape):
            raise ValueError(
                f"X has the shape {tuple(array.shape)}, and its images must be counted first: call "
                "compute_chunk_sizes() of a dask array."
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


class DatasetSource(Source):
    """The images of a map-style torch data set.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Its items are images (tensors, arrays or PIL images), or tuples that begin with one. The
        first says what shape and type all of them have.

    Raises
    ------
    ValueError
        If the data set has no length or no items.
    TypeError
        If an item is no image.
    """

    def __init__(self, dataset: Dataset) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise ValueError(
                f"X is a {type(dataset).__name__}, whose images cannot be chosen. Expected a "
                "map-style data set with a length; give a stream to partial_fit in batches."
            )
        if len(dataset) == 0:
            raise ValueError(
                f"Found {type(dataset).__name__} with 0 sample(s) while a minimum of 1 is required."
            )
        self._dataset = dataset
        first = self._image(0)
        super().__init__((len(dataset), *first.shape), first.dtype)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        images = []
        for row in rows.tolist():
            image = self._image(row)
            if image.shape != self.shape[1:] or _computable(image.dtype) != self.dtype:
                raise ValueError(
                    f"X holds images of different shapes or types: {self.shape[1:]}, {self.dtype} "
                    f"first, and {image.shape}, {image.dtype} in item {row}. Convert them to one "
                    "in the data set's transform."
                )
            images.append(image)
        return np.stack(images)

    def _image(self, row: int) -> np.ndarray:
        item = self._dataset[row]
        image = item[0] if isinstance(item, tuple | list) and item else item
        if isinstance(image, torch.Tensor):
            image = image.detach().cpu()
            return (image.float() if image.dtype == torch.bfloat16 else image).numpy()
        if isinstance(image, Image.Image):
            return np.asarray(convert_pil_mode(image))
        if isinstance(image, np.ndarray):
            return image
        raise TypeError(
            f"Item {row} of X is a {type(item).__name__}. Expected an image (a tensor, an array or "
            "a PIL image), or a tuple that begins with one."
        )


Rows = np.ndarray | torch.Tensor | Source


def release_pages(array: Any) -> None:
    """Take the pages of a mapped file out of this process's memory; the file keeps what they hold.

    What a process has read of a mapped file, or written to it, else counts as its memory as long as
    it stays mapped.

    Parameters
    ----------
    array : object
        Anything but an array in a mapped file is left as it is.
    """
    mapping = _mapping(array)
    if mapping is not None:
        mapping.madvise(mmap.MADV_DONTNEED)


def _mapping(array: Any) -> mmap.mmap | None:
    shared = False
    while isinstance(array, np.ndarray):
        # Copy-on-write pages ("c") exist nowhere else: giving them back would lose what they hold.
        shared |= getattr(array, "mode", None) in ("r", "r+", "w+")
        array = array.base
    can_advise = shared and isinstance(array, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED")
    return array if can_advise else None


def as_source(X: Any) -> Any:
    """Make a `Source` of what should not be read whole.

    Parameters
    ----------
    X : object

    Returns
    -------
    source : Source or object
        X itself, where it is in memory or no collection of rows.
    """
    if isinstance(X, np.ndarray):
        return X if X.dtype == _computable(X.dtype) and _mapping(X) is None else ArraySource(X)
    if isinstance(X, Dataset):
        return DatasetSource(X)
    return RowSource(X) if _reads_rows(X) else X


def _reads_rows(X: Any) -> bool:
    # Tables have rows too, but each column has a type of its own.
    if isinstance(X, torch.Tensor | Source) or issparse(X) or hasattr(X, "iloc"):
        return False
    try:
        np.dtype(X.dtype)
        return X.ndim == len(X.shape) >= 2
    except (AttributeError, TypeError):
        return False


def _computable(dtype: np.dtype) -> np.dtype:
    types = {np.bool_: np.uint8, np.float16: np.float32, np.longdouble: np.float64}
    return np.dtype(types.get(dtype.type, dtype)).newbyteorder("=")


def row_chunks(array: Rows) -> Iterator[slice]:
    """Cut rows into parts that fit into memory.

    Parameters
    ----------
    array : ndarray, Tensor or Source

    Yields
    ------
    rows : slice
        The next rows, of 16 MiB or less, or a single one.
    """
    row_bytes = math.prod(array.shape[1:]) * array.dtype.itemsize
    yield from gen_batches(len(array), max(PART_BYTES // max(row_bytes, 1), 1))


def as_tensor(rows: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Make a tensor of rows in memory, which are copied only where torch cannot share them.

    Parameters
    ----------
    rows : ndarray or Tensor

    Returns
    -------
    tensor : Tensor
    """
    if isinstance(rows, torch.Tensor):
        return rows
    # torch shares memory with arrays that it may write to, and warns of the others.
    rows = np.require(rows, requirements=["C", "W"])
    # C has several names for a type of one size, of which torch knows one.
    rows = rows.view(rows.dtype.str)
    # To NumPy, an axis of length one is in order whatever its stride; torch takes none below 0.
    return torch.from_numpy(rows.copy() if min(rows.strides, default=0) < 0 else rows)


def to_device(array: Rows, device: torch.device) -> torch.Tensor:
    """Hold all rows on a device.

    Parameters
    ----------
    array : ndarray, Tensor or Source
        Read in parts where it is a source.
    device : torch.device

    Returns
    -------
    tensor : Tensor
    """
    if not isinstance(array, Source):
        return as_tensor(array).to(device)
    like = torch.from_numpy(np.empty(0, array.dtype))
    held = torch.empty(array.shape, dtype=like.dtype, device=device)
    for rows in row_chunks(array):
        held[rows] = as_tensor(array[rows]).to(device)
    return held


def convert_pil_mode(item: Any) -> Any:
    """Convert a PIL image whose values are no grey, RGB or RGBA, such as a palette's indices.

    Parameters
    ----------
    item : object

    Returns
    -------
    item : object
        As it was, if it is anything else.
    """
    if isinstance(item, Image.Image) and item.mode in _PIL_MODES:
        return item.convert(_PIL_MODES[item.mode])
    return item
