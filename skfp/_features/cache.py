"""Arrays kept on disk by joblib.Memory; processes that want the same one compute it once."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from filelock import FileLock

Arrays = dict[str, np.ndarray]


class Cache:
    """Named arrays, kept under what they were computed from.

    Parameters
    ----------
    memory : None, str, path-like, joblib.Memory or another object with a method `cache`
        Where to keep arrays, as in scikit-learn; None keeps nothing.
    *key : str
        What every entry depends on.
    """

    def __init__(self, memory: Any, *key: str) -> None:
        if not (memory is None or hasattr(memory, "cache")):
            memory = _open(memory)
        self.memory = memory
        self.key = key

    def __call__(self, compute: Callable[[], Arrays], *key: Any) -> Arrays:
        """Return the arrays that `compute` returns, from the cache if it has them.

        `key` is what this entry depends on besides the key of the cache.
        """
        if self.memory is None:
            return compute()
        full_key = (*self.key, *key)
        computed: list[Arrays] = []

        def compute_once() -> Arrays:
            if not computed:
                computed.append(compute())
            return computed[0]

        if not isinstance(self.memory, joblib.Memory):
            return self.memory.cache(lambda key: compute_once())(full_key)
        location = self.memory.location
        if location is None:
            return compute()
        cached = self.memory.cache(_compute, ignore=["compute"])
        try:
            folder = Path(location) / "skfp-locks"
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / joblib.hash(full_key)).acquire()
        except OSError as error:
            _warn_unusable(location, error)
            return compute()
        with lock:
            entry = cached.call_and_shelve(full_key, compute_once)
            if computed:  # a full disk may not hold what was computed just now
                return computed[0]
            try:
                return entry.get()
            except Exception:  # a damaged file can fail to load in any way
                warnings.warn(
                    f"A damaged entry of the cache {str(location)!r} is deleted and computed "
                    "again.",
                    RuntimeWarning,
                    stacklevel=2,
                )
                entry.clear()
                cached(full_key, compute_once)
                return compute_once()


def _open(location: str | os.PathLike[str]) -> joblib.Memory | None:
    try:
        # Entries may be larger than memory, so they are mapped instead of read.
        return joblib.Memory(location, mmap_mode="r", verbose=0)
    except OSError as error:
        _warn_unusable(location, error)
        return None


def _warn_unusable(location: str | os.PathLike[str], error: OSError) -> None:
    warnings.warn(
        f"The cache {os.fspath(location)!r} cannot be written ({error}): features are computed for "
        "this fit only. Pass a memory that can be written, or None.",
        RuntimeWarning,
        stacklevel=3,
    )


def _compute(key: tuple, compute: Callable[[], Arrays]) -> Arrays:
    return compute()
