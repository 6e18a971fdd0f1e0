"""Rows that stand for all rows of a collection."""

from __future__ import annotations

import numpy as np


def evenly_spaced(n_rows: int, n: int) -> np.ndarray:
    """Return at most n rows all over a collection, always the same ones.

    >>> evenly_spaced(10, 4), evenly_spaced(2, 4)
    (array([0, 3, 6, 9]), array([0, 1]))
    """
    return np.linspace(0, n_rows - 1, min(n_rows, n)).astype(int)
