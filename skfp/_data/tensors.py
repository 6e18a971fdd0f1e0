"""Rows of arrays as tensors."""

from __future__ import annotations

import numpy as np
import torch

from .._images.sources import Rows, Source, row_chunks


def as_tensor(rows: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Make a tensor of rows in memory, copied only where torch cannot share them."""
    if isinstance(rows, torch.Tensor):
        return rows
    # torch shares memory only with arrays that it may write to.
    rows = np.require(rows, requirements=["C", "W"])
    # C has several names for a type of one size, of which torch knows one.
    rows = rows.view(rows.dtype.str)
    # To NumPy, an axis of length one is in order whatever its stride; torch takes none below 0.
    return torch.from_numpy(rows.copy() if min(rows.strides, default=0) < 0 else rows)


def to_device(array: Rows, device: torch.device) -> torch.Tensor:
    """Copy all rows to a device, chunk by chunk where they are not in memory."""
    if not isinstance(array, Source):
        return as_tensor(array).to(device)
    like = torch.from_numpy(np.empty(0, array.dtype))
    held = torch.empty(array.shape, dtype=like.dtype, device=device)
    for rows in row_chunks(array):
        held[rows] = as_tensor(array[rows]).to(device)
    return held
