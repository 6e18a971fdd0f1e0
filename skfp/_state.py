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

from skfp._data.image_set import ImageFormat
from skfp._features.extractor import PCAProjection
from skfp._loss_network import LossNetwork, empty_loss_network
from skfp._networks.encoders import make_encoder
from skfp._utils.tensor_file import (
    Tensors,
    flatten_tensors,
    lists_to_tuples,
    nan_to_none,
    nest_tensors,
    none_to_nan,
    read_tensors,
    to_jsonable,
    write_tensors,
)

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
            The file to write, replaced as a whole if it is there. `memory`, `checkpoint_dir` and
            `callbacks` are not written.

        Raises
        ------
        NotFittedError
            If fit was not called before.
        FileNotFoundError
            If there is no folder to write to.
        ValueError
            If a parameter cannot be written as JSON, such as a loss network or an encoder of your
            own: keep such an estimator with :func:`joblib.dump`, or export it by `to_onnx`.

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
        state["history_"] = nan_to_none(state["history_"])
        saved = {
            name: _as_json(name, _plain_networks(value))
            for name, value in state.items()
            if name not in _NOT_SAVED
        }
        parameters = self.get_params(deep=False).keys() & saved.keys()  # type: ignore[attr-defined]
        header = {
            "format": FORMAT,
            "estimator": type(self).__name__,
            "parameters": {name: saved.pop(name) for name in sorted(parameters)},
            "learned": saved,
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
                **{name: _from_json(name, value) for name, value in header["parameters"].items()}
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
    modules = {shard: state.pop(shard) for shard in _MODULES}
    parts = {shard: module.state_dict() for shard, module in modules.items() if module is not None}
    parts["_moments"] = flatten_tensors(state.pop("_moments"))
    state["_structure"] = _plain_networks(state["_structure"])
    del state["_loss"]  # made of the others
    state["_format"] = dataclasses.asdict(state["_format"])
    return state, flatten_tensors(parts)


def _put_together(estimator: Any, tensors: Tensors) -> None:
    """Rebuild an estimator's networks from named tensors, and its format from plain values."""
    estimator._format = ImageFormat(**lists_to_tuples(estimator._format))
    parts = nest_tensors(tensors)
    if unknown := parts.keys() - {*_MODULES, "_moments"}:
        raise ValueError(f"{min(unknown)} is no part of an estimator")
    moments = nest_tensors(parts["_moments"])
    estimator._optimizer_state = {int(parameter): kinds for parameter, kinds in moments.items()}

    # Not the parameters, which may have been set since.
    architecture = estimator._architecture = _networks(estimator._architecture)
    encoder, z, loss_network = (architecture[name] for name in ("encoder", "z", "loss_network"))
    n_features = estimator._n_loss_features
    if "basis" in parts["_target"]:
        estimator._target = PCAProjection(**{n: t.float() for n, t in parts["_target"].items()})
    else:
        estimator._target = estimator._find_target(None)
    output_size = estimator._preprocess.output_size
    # On the meta device nothing is allocated or initialised before the shapes are compared.
    on_meta = torch.device("meta")
    place: Any = torch.random.fork_rng() if callable(encoder) else on_meta
    with place:
        mean = torch.empty(n_features) if architecture["normalize_features"] else None
        estimator.encoder_ = make_encoder(encoder, n_features, output_size, z, mean)
    with on_meta:
        variance_head = nn.Linear(estimator.encoder_.head.in_features, z)
    estimator.encoder_ = _filled(estimator.encoder_, parts["encoder_"])
    estimator._variance_head = (
        _filled(variance_head, parts["_variance_head"]) if architecture["gamma > 0"] else None
    )
    estimator.loss_network_ = None
    if loss_network is not None:
        network = empty_loss_network(loss_network)
        estimator.loss_network_ = _filled(network, parts["loss_network_"])
    with on_meta:
        decoder, estimator._loss = estimator._make_objective(estimator._target, n_features, z)
    estimator.decoder_ = _filled(decoder, parts["decoder_"])


def _filled(module: Any, tensors: Tensors) -> Any:
    state = module.state_dict()
    for name, expected in state.items():
        if name in tensors and tensors[name].dtype != expected.dtype:
            raise TypeError(f"{name} holds {tensors[name].dtype}, expected {expected.dtype}")
    # Copied into a module of the user's, where several names may stand for one tensor.
    module.load_state_dict(tensors, assign=any(tensor.is_meta for tensor in state.values()))
    return module.cpu().eval().to(memory_format=torch.channels_last)


def _as_json(name: str, value: Any) -> Any:
    if isinstance(value, np.random.RandomState):
        return None  # its draws are over
    if isinstance(value, dict):
        return {key: _as_json(key, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(name, one) for one in value]
    value = to_jsonable(value)
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
    if name == "history_":
        return none_to_nan(value)
    if name == "loss_network":
        return _networks(value)
    return lists_to_tuples(value) if name.startswith("image_shape") else value


def _plain_networks(value: Any) -> Any:
    """Turn descriptions of loss networks into dicts of their parameters."""
    if isinstance(value, dict):
        return {key: _plain_networks(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_networks(one) for one in value]
    return (
        {"LossNetwork": value.get_params(deep=False)} if isinstance(value, LossNetwork) else value
    )


def _networks(value: Any) -> Any:
    """Turn dicts of parameters into descriptions of loss networks again."""
    if isinstance(value, list):
        return [_networks(one) for one in value]
    if isinstance(value, dict) and "LossNetwork" in value:
        return LossNetwork(**value["LossNetwork"])
    if isinstance(value, dict):
        return {key: _networks(one) for key, one in value.items()}
    return value
