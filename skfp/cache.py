"""Arrays that outlive a fit: joblib.Memory with checksums, and one computation at a time."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from filelock import FileLock

from skfp.sources import Source, as_source, in_parts

Arrays = dict[str, np.ndarray]


class Cache:
    """Keeps named arrays under the images and the loss network that they come from.

    Parameters
    ----------
    memory : None, str, path-like or joblib.Memory
        Where to keep arrays, as in scikit-learn; None keeps nothing.
    *key : str
        What every entry depends on.
    """

    def __init__(self, memory: Any, *key: str) -> None:
        if not (memory is None or hasattr(memory, "cache")):
            # Entries may be larger than memory, so they are mapped instead of read.
            memory = joblib.Memory(memory, mmap_mode="r", verbose=0)
        self.memory = memory
        self.key = key

    def __call__(self, compute: Callable[[], Arrays], *key: Any) -> Arrays:
        """Return what `compute` returns, from the cache where it is there and undamaged.

        Parameters
        ----------
        compute : callable
            Returns the arrays.
        *key : object
            What this entry depends on besides the key of the cache.

        Returns
        -------
        arrays : dict of str to ndarray
        """
        if self.memory is None or self.memory.location is None:
            return compute()
        full_key = (*self.key, *key)
        remembered = self.memory.cache(_compute, ignore=["compute"])
        locks = Path(self.memory.location) / "skfp-locks"
        locks.mkdir(parents=True, exist_ok=True)
        # Processes that want the same entry wait here for the first one to compute it.
        with FileLock(locks / joblib.hash(full_key)):
            entry = remembered.call_and_shelve(full_key, compute)
            arrays = _undamaged(entry)
            if arrays is None:
                warnings.warn(
                    f"A damaged entry of the cache {str(self.memory.location)!r} was dropped, and "
                    "is computed again.",
                    RuntimeWarning,
                    stacklevel=2,
                )
                entry.clear()
                arrays, _ = remembered(full_key, compute)
        return arrays


def _compute(key: tuple, compute: Callable[[], Arrays]) -> tuple[Arrays, str]:
    arrays = compute()
    return arrays, _checksum(arrays)


def _undamaged(entry: Any) -> Arrays | None:
    try:
        arrays, checksum = entry.get()
    except Exception:  # A broken file can fail to load in any way.
        return None
    return arrays if _checksum(arrays) == checksum else None


def _checksum(arrays: Arrays) -> str:
    return "".join(fingerprint(array) for array in arrays.values())


def fingerprint(array: np.ndarray | Source) -> str:
    """SHA-256 of an array's type, shape and values, read in parts."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    rows = as_source(array if array.ndim else array[None])
    for part in in_parts(rows):
        digest.update(np.ascontiguousarray(rows[part]).data)
    return digest.hexdigest()
