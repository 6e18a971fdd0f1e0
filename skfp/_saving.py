"""Fitted estimators as plain values and arrays: for pickle, skops, and files without code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from ._state import FittedState, dicts_to_networks, networks_to_dicts
from ._utils.tensor_file import (
    lists_to_tuples,
    nan_to_none,
    none_to_nan,
    read_tensors,
    to_jsonable,
    write_tensors,
)
from ._version_0_1 import upgrade

FORMAT = 2
# They have nothing to do with the embedding, and JSON cannot hold them.
_NOT_SAVED = ("memory", "checkpoint_dir", "callbacks", "net_params")


class SavingMixin:
    """Pickling by value, and files that hold no code."""

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[misc, assignment]
        if "_state" in state:
            values, tensors = state["_state"].to_values()
            arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
            state = {**state, "_state": {"values": values, "arrays": arrays}}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(pickled := state.get("_state"), dict):
            tensors = {
                name: torch.from_numpy(np.array(array)) for name, array in pickled["arrays"].items()
            }
            state = {**state, "_state": FittedState.from_values(pickled["values"], tensors)}
        super().__setstate__(state)  # type: ignore[misc]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a file that can be loaded without trusting it.

        The file is in the safetensors format, which holds numbers and no code; parameters and
        history are JSON in its header.

        Parameters
        ----------
        path : str or path-like
            The file to write, replaced as a whole if it is there. `memory`, `checkpoint_dir`,
            `callbacks` and `net_params` are not written.

        Raises
        ------
        NotFittedError
            If fit was not called before.
        FileNotFoundError
            If the folder does not exist.
        ValueError
            If a parameter cannot be written as JSON, such as a loss network or an encoder of your
            own: keep such an estimator with :func:`joblib.dump`, or export it by `to_onnx`.

        See Also
        --------
        to_onnx : Write a file for programs without Python.

        Examples
        --------
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import numpy as np
        >>> from skfp import PixelAutoencoder
        >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
        >>> encoder = PixelAutoencoder(z=2, max_epochs=1).fit(images)
        >>> with TemporaryDirectory() as folder:
        ...     encoder.save(Path(folder) / "encoder.safetensors")
        ...     again = PixelAutoencoder.load(Path(folder) / "encoder.safetensors")
        >>> np.array_equal(again.transform(images), encoder.transform(images))
        True
        """
        check_is_fitted(self)
        values, tensors = self._state.to_values()  # type: ignore[attr-defined]
        values["history"] = nan_to_none(values["history"])
        parameters = self.get_params(deep=False)  # type: ignore[attr-defined]
        header = {
            "format": FORMAT,
            "estimator": type(self).__name__,
            "parameters": {
                name: _to_json(name, networks_to_dicts(value))
                for name, value in parameters.items()
                if name not in _NOT_SAVED
            },
            "state": {name: _to_json(name, value) for name, value in values.items()},
        }
        path = Path(path)
        if not path.parent.is_dir():
            raise FileNotFoundError(
                f"Cannot save to {str(path)!r}: there is no folder {str(path.parent)!r}. Make it "
                "first."
            )
        write_tensors(path, tensors, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an estimator that `save` has written. No code in the file is run.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        estimator : object
            Fitted, with the embedding of the one that was saved.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, or does not hold this estimator.
        """
        wrong = f"Cannot load {os.fspath(path)!r} as {cls.__name__}"
        if not Path(path).is_file():
            raise FileNotFoundError(f"{wrong}: there is no such file.")
        try:
            tensors, header = read_tensors(Path(path))
        except ValueError as error:
            raise ValueError(f"{wrong}: {error}.") from error
        known = isinstance(header, dict) and header.get("format") in (1, FORMAT)
        if not known:
            raise ValueError(
                f"{wrong}: it was not written by save, or by a newer version of skfp. Expected a "
                f"file of format {FORMAT} or older."
            )
        if header.get("estimator") != cls.__name__:
            raise ValueError(
                f"{wrong}: it holds a {header.get('estimator')}. Load it with that class."
            )
        try:
            if header["format"] == 1:
                header, tensors = upgrade(header, tensors)
            parameters = {name: _from_json(value) for name, value in header["parameters"].items()}
            estimator: Any = cls(**parameters)
            history = none_to_nan(header["state"]["history"])
            state = FittedState.from_values({**header["state"], "history": history}, tensors)
            if state.architecture.loss != estimator._LOSS:
                raise ValueError(f"its loss is {state.architecture.loss!r}")
            estimator._state = state
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{wrong}: its content is inconsistent ({error}).") from error
        return estimator


def _to_json(name: str, value: Any) -> Any:
    if isinstance(value, np.random.RandomState):
        return None  # its numbers were drawn
    if isinstance(value, dict):
        return {key: _to_json(key, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(name, one) for one in value]
    value = to_jsonable(value)
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} is a {type(value).__name__}, which a file without code cannot hold. Keep the "
            "estimator with joblib.dump, or export its encoder by to_onnx."
        ) from error
    return value


def _from_json(value: Any) -> Any:
    value = dicts_to_networks(value)
    return lists_to_tuples(value) if isinstance(value, list) and _is_shape(value) else value


def _is_shape(value: list) -> bool:
    return all(isinstance(side, int) for side in value)
