"""What identifies a fit: the facts that decide its course, and the networks that it trains."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from numbers import Integral
from typing import Any

from skfp._data.image_set import ImageSet
from skfp._loss_network import LossNetwork
from skfp._utils.fingerprint import fingerprint, fingerprint_callable
from skfp._utils.tensor_file import to_jsonable

# Parameters that do not decide what a fit computes.
_NO_FACTS = (
    *("checkpoint_dir", "memory", "device", "verbose", "callbacks"),
    *("loss_network", "random_state"),  # what comes of these is told instead
)


def fit_signature(
    estimator: Any, images: ImageSet, valid_images: ImageSet | None, continues: bool
) -> dict[str, Any]:
    """List what decides the course of a fit.

    Parameters
    ----------
    estimator : BaseImageEncoder
        Its loss network is there already.
    images : Images
    valid_images : Images or None
    continues : bool
        Whether training goes on from the coders of an earlier fit.

    Returns
    -------
    facts : dict of str to plain values
    """
    coders = (estimator.encoder_, estimator.decoder_, estimator._variance_head) if continues else ()
    weights = hashlib.sha256()
    for coder in filter(None, coders):
        for tensor in coder.state_dict().values():
            weights.update(fingerprint(tensor.numpy()).encode())
    loss_network = estimator.loss_network_
    seed = estimator.random_state
    return {
        "estimator": type(estimator).__name__,
        **{
            name: _tell(value)
            for name, value in estimator.get_params(deep=False).items()
            if name not in _NO_FACTS
        },
        "loss network": None if loss_network is None else loss_network.fingerprint()[:16],
        # Of any other source of seeds, only the seed that it gave is known.
        "random_state": int(seed) if isinstance(seed, Integral) else None,
        "weights before": weights.hexdigest()[:16] if continues else "random",
        "X": _tell_images(images),
        "X_val": None if valid_images is None else _tell_images(valid_images),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say which facts or parameters have changed, and how."""
    return [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in {**before, **now}
        if not _same(before.get(name), now.get(name))
    ]


def check_architecture(asked: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    """Refuse to go on with other networks than parameters now ask for.

    Parameters
    ----------
    asked, there : mapping of str to object
        The parameters that networks are made of: now, and in the fit that made those there are.

    Raises
    ------
    ValueError
        If they are not the same; the message names them.
    """
    if changes := differences(there, asked):
        raise ValueError(
            f"Training goes on with the networks of an earlier fit, but {'; '.join(changes)}. Set "
            "that back, or call fit with warm_start=False to begin anew."
        )


def _tell(value: Any) -> Any:
    """Turn a parameter into a value that JSON gives back as it is."""
    if isinstance(value, list | tuple):
        return [_tell(one) for one in value]
    if callable(value):
        name = f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"
        return f"{name}, SHA-256 {fingerprint_callable(value)[:16]}"
    value = to_jsonable(value)
    return value if isinstance(value, str | int | float | list | None) else repr(value)


def _tell_images(images: ImageSet) -> str:
    digest = hashlib.sha256(images.fingerprint.encode()).hexdigest()
    return f"{len(images)} images, SHA-256 {digest[:16]}"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, LossNetwork) and isinstance(other, LossNetwork):
        one, other = one.get_params(deep=False), other.get_params(deep=False)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    # Last comes what reads all weights of a module, and knows a copy of it.
    return one is other or one == other or _tell(one) == _tell(other)
