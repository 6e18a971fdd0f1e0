"""Rows of numbers, one per image: computed batch by batch, in memory or in a temporary file."""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.utils import gen_batches

from .._data.tensors import to_device
from .._images.sources import as_source, release_pages
from .._utils.malloc import keep_freed_memory
from .._utils.out import check_out

# A processor's cache holds the activations of so many images; larger batches are slower on one.
BATCH_SIZE = 128
MAX_BYTES_IN_MEMORY = 2**28


class FeatureStore:
    """Rows of an array, tensor or memory map, read batch by batch as tensors."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self._rows = as_source(array)

    def __len__(self) -> int:
        return len(self.array)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return int(self.array.nbytes)

    def read(self, indices: Any) -> torch.Tensor:
        """Read rows."""
        rows = self._rows[indices]
        # Copied, since a memory-mapped cache entry must not be written to.
        return torch.from_numpy(np.array(rows)) if isinstance(rows, np.ndarray) else rows

    def to(self, device: torch.device) -> FeatureStore:
        """Copy all rows to a device."""
        return FeatureStore(to_device(self._rows, device))


@keep_freed_memory()
def compute_rows(source: Any, function: Callable, n_values: int, *, out: Any = None) -> np.ndarray:
    """Apply a function to batches of a source and keep its rows of values.

    `source` is an `ImageSet` or a `FeatureStore`; `function` maps a batch of it to (b, n_values).
    The float32 rows go to `out` or, without it, into memory up to 256 MiB, else into a temporary
    file that is deleted with the array.

    Raises
    ------
    OSError
        If there is no space for the temporary file.
    TypeError, ValueError
        If `out` is not a writeable array of that shape and dtype.
    """
    shape = (len(source), n_values)
    if out is not None:
        rows = check_out(out, shape)
    elif math.prod(shape) * 4 <= MAX_BYTES_IN_MEMORY:
        rows = np.empty(shape, dtype=np.float32)
    else:
        rows = _array_on_disk(shape)
    with torch.inference_mode():
        for batch in gen_batches(len(source), BATCH_SIZE):
            rows[batch] = function(source.read(batch)).cpu().numpy()
            release_pages(rows)
    return rows


def _array_on_disk(shape: tuple[int, int]) -> np.ndarray:
    """Map an unnamed temporary file, whose disk space is reserved at once."""
    n_bytes = math.prod(shape) * np.dtype(np.float32).itemsize
    folder = tempfile.gettempdir()
    with tempfile.TemporaryFile() as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            elif shutil.disk_usage(folder).free < n_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            # Without the reservation, a full disk would kill the process in an assignment.
            raise OSError(
                error.errno,
                f"The features of {shape[0]:,} images take {n_bytes / 2**20:,.0f} MiB, which the "
                f"temporary folder {folder!r} has no space for ({error.strerror}). Free some, or "
                "set the environment variable TMPDIR to another folder before Python starts",
            ) from error
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
