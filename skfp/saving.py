"""Fitted encoders as plain values and arrays: for pickle, skops, and files without pickle."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skfp.coders import Encoder, FeatureEncoder, ImageEncoder
from skfp.images import ImageFormat
from skfp.loss_network import empty_loss_network
from skfp.targets import Components
from skfp.tensorfile import Tensors, read_tensors, write_tensors

FORMAT = 1
_MODULES = ("encoder_", "decoder_", "loss_network_", "_target", "_variance_head")
# Nothing to do with the embedding, and of types that only Python itself can write down.
_NOT_SAVED = ("memory", "checkpoint_dir", "callbacks", "_metadata_request")


class SavingMixin:
    """Pickling by value, and files that hold no code."""

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[misc, assignment]
        if not self.__sklearn_is_fitted__():  # type: ignore[attr-defined]
            return state
        state, tensors = _take_apart(state)
        state["_arrays"] = {name: tensor.numpy() for name, tensor in tensors.items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = state.pop("_arrays", None)
        super().__setstate__(state)  # type: ignore[misc]
        if arrays is not None:
            _put_together(self, {n: torch.from_numpy(np.array(a)) for n, a in arrays.items()})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a file that can be loaded without trusting it.

        The file is in the safetensors format, which holds numbers and no code; parameters and
        history are JSON in its header.

        Parameters
        ----------
        path : str or path-like
            The file to write, replaced as a whole if it is there. `memory` and `callbacks` are
            not written.

        Raises
        ------
        NotFittedError
            If fit was not called before.
        FileNotFoundError
            If there is no folder to write to.
        ValueError
            If a parameter cannot be written as JSON, such as a loss network of your own: keep
            such an estimator with :func:`joblib.dump`, or export it by `to_onnx`.

        See Also
        --------
        to_onnx : Writes a file for programs without Python.

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
        state, tensors = _take_apart(vars(self))
        parameters = self.get_params(deep=False)  # type: ignore[attr-defined]
        learned = {name: value for name, value in state.items() if name not in parameters}
        header = {
            "format": FORMAT,
            "estimator": type(self).__name__,
            "parameters": {
                name: _as_json(name, value)
                for name, value in parameters.items()
                if name not in _NOT_SAVED
            },
            "learned": {
                name: _as_json(name, value)
                for name, value in learned.items()
                if name not in _NOT_SAVED
            },
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
            If the file is damaged, or holds something else than this estimator.
        """
        wrong = f"Cannot load {os.fspath(path)!r} as {cls.__name__}"
        if not Path(path).is_file():
            raise FileNotFoundError(f"{wrong}: there is no such file.")
        try:
            tensors, header = read_tensors(Path(path))
        except ValueError as error:
            raise ValueError(f"{wrong}: {error}.") from error
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError(
                f"{wrong}: it was not written by save, or by another version of skfp. Expected "
                f"a file of format {FORMAT}."
            )
        if header.get("estimator") != cls.__name__:
            raise ValueError(
                f"{wrong}: it holds a {header.get('estimator')}. Load it with that class."
            )
        try:
            estimator = cls(
                **{name: _tuples(value) for name, value in header["parameters"].items()}
            )
            learned = {name: _from_json(name, value) for name, value in header["learned"].items()}
            learned["n_epochs_"]  # without it the estimator would count as not fitted
            if shadowed := [name for name in learned if hasattr(estimator, name)]:
                raise ValueError(f"{shadowed[0]} is nothing that an estimator learns")
            estimator.__dict__.update(learned)
            _put_together(estimator, tensors)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{wrong}: its content does not fit together ({error}).") from error
        return estimator


def _take_apart(state: dict[str, Any]) -> tuple[dict[str, Any], Tensors]:
    """Split an estimator's attributes into plain values and named tensors."""
    state = dict(state)
    tensors: Tensors = {}
    for part in _MODULES:
        module = state.pop(part)
        if module is not None:
            tensors |= {f"{part}.{name}": value for name, value in module.state_dict().items()}
    for parameter, moments in state.pop("_moments").items():
        tensors |= {f"_moments.{parameter}.{name}": value for name, value in moments.items()}
    del state["_loss"]  # made of the others
    state["_format"] = dataclasses.asdict(state["_format"])
    return state, tensors


def _put_together(estimator: Any, tensors: Tensors) -> None:
    """Rebuild an estimator's networks from named tensors, and its format from plain values."""
    format = {key: _tuples(value) for key, value in estimator._format.items()}
    estimator._format = ImageFormat(**format)
    parts: dict[str, Tensors] = {part: {} for part in (*_MODULES, "_moments")}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    estimator._moments = {}
    for name, moment in parts.pop("_moments").items():
        parameter, _, kind = name.partition(".")
        estimator._moments.setdefault(int(parameter), {})[kind] = moment

    # The shapes of stored weights say how wide layers are: a parameter may have been set since.
    z = len(parts["encoder_"]["head.weight"])
    n_features = estimator._n_loss_features
    if "basis" in parts["_target"]:
        estimator._target = Components(**{n: t.float() for n, t in parts["_target"].items()})
    else:
        estimator._target = estimator._find_target(None)
    # On the meta device nothing is allocated or initialised before the shapes are compared.
    with torch.device("meta"):
        encoder: Encoder
        if parts["encoder_"]["trunk.0.weight"].ndim == 2:
            encoder = FeatureEncoder(n_features, z)
        else:
            encoder = ImageEncoder(estimator._canvas.canvas_size, z)
        variance_head = nn.Linear(encoder.head.in_features, z)
    estimator.encoder_ = _filled(encoder, parts["encoder_"])
    estimator._variance_head = (
        _filled(variance_head, parts["_variance_head"]) if parts["_variance_head"] else None
    )
    estimator.loss_network_ = (
        _filled(empty_loss_network(estimator.loss_network), parts["loss_network_"])
        if n_features  # not `if parts[...]`: a pooling layer has no weights
        else None
    )
    with torch.device("meta"):
        decoder, estimator._loss = estimator._make_objective(estimator._target, n_features, z)
    estimator.decoder_ = _filled(decoder, parts["decoder_"])


def _filled(module: Any, tensors: Tensors) -> Any:
    for name, expected in module.state_dict().items():
        if name in tensors and tensors[name].dtype != expected.dtype:
            raise TypeError(f"{name} holds {tensors[name].dtype}, expected {expected.dtype}")
    module.load_state_dict(tensors, assign=True)
    return module.eval().to(memory_format=torch.channels_last)


def _as_json(name: str, value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, np.random.RandomState):
        return None  # its draws are over
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} is a {type(value).__name__}, which a file without code cannot hold. Keep the "
            "estimator with joblib.dump, or export its encoder by to_onnx."
        ) from error
    return value


def _from_json(name: str, value: Any) -> Any:
    if name == "feature_names_in_":
        return np.asarray(value, dtype=object)
    return _tuples(value) if name == "image_shape_" else value


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
