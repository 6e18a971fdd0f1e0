"""The parameter `out`: where a transform writes its rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from .torch_types import is_torch


def check_out(out: Any, shape: tuple[int, int]) -> Any:
    """Return `out`; refuse what is not a writeable float32 array of a shape."""
    expected = f"Expected a writeable array of shape {shape} and type float32"
    if is_torch(out, "Tensor") or not (
        hasattr(out, "shape") and hasattr(out, "dtype") and hasattr(out, "__setitem__")
    ):
        raise TypeError(f"out is a {type(out).__name__}. {expected}, such as a numpy.memmap.")
    if tuple(out.shape) != shape or out.dtype != np.float32:
        raise ValueError(f"out has shape {tuple(out.shape)} and type {out.dtype}. {expected}.")
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ValueError(f"out is read-only. {expected}; open a numpy.memmap with mode='r+'.")
    return out
