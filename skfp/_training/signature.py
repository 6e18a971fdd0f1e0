"""The signature of a fit: what decides its course, so that no other fit continues it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

from sklearn.base import BaseEstimator
from torch import nn

from .._data import ImageSet
from .._loss_network import FrozenNetwork
from .._utils.fingerprint import fingerprint, fingerprint_callable
from .._utils.tensor_file import to_jsonable

# Parameters that do not change the result, and two that are represented by what came of them.
_NOT_SIGNED = (
    *("checkpoint_dir", "memory", "device", "verbose", "callbacks"),
    *("loss_network", "random_state"),
)


def fit_signature(
    estimator: BaseEstimator,
    images: ImageSet,
    valid_images: ImageSet | None,
    loss_network: FrozenNetwork | None,
    initial: Iterable[nn.Module] | None,
) -> dict[str, Any]:
    """List everything that decides the course of a fit, as values that JSON can hold.

    `initial` are the networks that a warm start begins with.
    """
    weights = hashlib.sha256()
    for network in initial or ():
        for tensor in network.state_dict().values():
            weights.update(fingerprint(tensor.numpy()).encode())
    parameters = estimator.get_params(deep=False)
    seed = parameters["random_state"]
    return {
        "estimator": type(estimator).__name__,
        **{name: _sign(value) for name, value in parameters.items() if name not in _NOT_SIGNED},
        "loss network": None if loss_network is None else loss_network.fingerprint()[:16],
        # Of another source of seeds, only the seed that it gave is known.
        "random_state": int(seed) if isinstance(seed, Integral) else None,
        "initial weights": "random" if initial is None else weights.hexdigest()[:16],
        "X": _sign_images(images),
        "X_val": None if valid_images is None else _sign_images(valid_images),
    }


def digest(signature: Mapping[str, Any]) -> str:
    """Name a fit by its signature."""
    text = json.dumps(signature, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe the entries that have changed."""
    return [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in {**before, **now}
        if not equal(before.get(name), now.get(name))
    ]


def equal(one: Any, other: Any) -> bool:
    """Compare parameters by their values, modules and functions by what they compute."""
    if isinstance(one, BaseEstimator) and isinstance(other, BaseEstimator):
        one, other = one.get_params(deep=False), other.get_params(deep=False)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    # The last comparison reads all weights of a module.
    return one is other or one == other or _sign(one) == _sign(other)


def _sign(value: Any) -> Any:
    """Turn a parameter into a value that survives JSON."""
    if isinstance(value, list | tuple):
        return [_sign(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _sign(one) for key, one in value.items()}
    if callable(value):
        name = f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"
        return f"{name}, SHA-256 {fingerprint_callable(value)[:16]}"
    value = to_jsonable(value)
    return value if isinstance(value, str | int | float | list | None) else repr(value)


def _sign_images(images: ImageSet) -> str:
    digest = hashlib.sha256(images.fingerprint.encode()).hexdigest()
    return f"{len(images)} images, SHA-256 {digest[:16]}"
