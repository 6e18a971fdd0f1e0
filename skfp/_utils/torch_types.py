"""Tell what is torch's, where torch may be missing or not yet imported."""

import sys
from operator import attrgetter
from typing import Any

import numpy as np


def is_torch(X: Any, *names: str) -> bool:
    """Tell whether X is an instance of a class of torch, such as "Tensor".

    Without importing torch: what has not been imported has no instances.

    >>> is_torch([1.0], "Tensor", "utils.data.Dataset")
    False
    """
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(X, attrgetter(*names)(torch))


def to_numpy(X: Any) -> np.ndarray:
    """Return an array or a tensor, on any device, as an array."""
    return X.detach().cpu().numpy() if is_torch(X, "Tensor") else np.asarray(X)
