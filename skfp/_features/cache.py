"""Arrays that outlive a fit: joblib.Memory with checksums, and one computation at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from filelock import AcquireReturnProxy, FileLock

from skfp._utils.fingerprint import fingerprint

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
            memory = _open(memory)
        self.memory = memory
        self.key = key

    def __call__(self, compute_rows: Callable[[], Arrays], *key: Any) -> Arrays:
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
            return compute_rows()
        full_key = (*self.key, *key)
        computed: list[Arrays] = []

        def compute_once() -> Arrays:
            if not computed:
                computed.append(compute_rows())
            return computed[0]

        try:
            lock = self._lock(full_key)
        except OSError as error:
            _warn_unusable(self.memory.location, error)
            return compute_rows()
        with lock:
            remembered = self.memory.cache(_compute, ignore=["compute"])
            entry = remembered.call_and_shelve(full_key, compute_once)
            # What was computed just now need not be read back, and a full disk may not hold it.
            arrays = computed[0] if computed else _undamaged(entry)
            if arrays is None:
                warnings.warn(
                    f"A damaged entry of the cache {str(self.memory.location)!r} was dropped, and "
                    "is computed again.",
                    RuntimeWarning,
                    stacklevel=2,
                )
                entry.clear()
                remembered(full_key, compute_once)
                arrays = compute_once()
        return arrays

    def _lock(self, full_key: tuple) -> AcquireReturnProxy:
        """Wait until no other process computes the same entry."""
        folder = Path(self.memory.location) / "skfp-locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / joblib.hash(full_key)).acquire()


def _open(location: str | os.PathLike[str]) -> joblib.Memory | None:
    try:
        # Entries may be larger than memory, so they are mapped instead of read.
        return joblib.Memory(location, mmap_mode="r", verbose=0)
    except OSError as error:
        _warn_unusable(location, error)
        return None


def _warn_unusable(location: str | os.PathLike[str], error: OSError) -> None:
    warnings.warn(
        f"The cache {os.fspath(location)!r} cannot be written ({error}): what the loss network "
        "sees is computed for this fit alone. Pass a memory that can be written, or None.",
        RuntimeWarning,
        stacklevel=3,
    )


def _compute(key: tuple, compute_rows: Callable[[], Arrays]) -> tuple[Arrays, str]:
    arrays = compute_rows()
    return arrays, _checksum(arrays)


def _undamaged(entry: Any) -> Arrays | None:
    try:
        arrays, checksum = entry.get()
    except Exception:  # A broken file can fail to load in any way.
        return None
    return arrays if _checksum(arrays) == checksum else None


def _checksum(arrays: Arrays) -> str:
    return "".join(fingerprint(array) for array in arrays.values())
