"""Files that version 0.1 saved, read as those of this version."""

from __future__ import annotations

from typing import Any

from ._loss_network import describe
from ._utils.tensor_file import Tensors

_LOSSES = {
    "FeaturePredictionEncoder": "features",
    "PerceptualAutoencoder": "perceptual",
    "PixelAutoencoder": "pixels",
}
_TENSORS = {
    "encoder_": "encoder",
    "decoder_": "decoder",
    "loss_network_": "loss_network",
    "_target": "projection",
    "_variance_head": "variance_head",
    "_moments": "optimizer_state",
}


def upgrade(header: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
    """Rewrite header and tensors of format 1 as those of format 2."""
    parameters = dict(header["parameters"])
    normalized = parameters.pop("normalize_features")
    parameters["encoder"] = _encoder(parameters["encoder"], normalized)
    for dropped in ("precision", "compile"):
        parameters.pop(dropped)
    learned = header["learned"]
    networks = learned["_structure"]
    parameters["resize"] = "tile"
    parameters["loss_network"] = _loss_network(parameters["loss_network"])
    state = {
        "format": _format(learned["_format"]),
        "feature_names": learned.get("feature_names_in_"),
        "architecture": {
            "loss": _LOSSES[header["estimator"]],
            "z": networks["z"],
            "encoder": _encoder(networks["encoder"], networks["normalize_features"]),
            "variational": networks["gamma > 0"],
            "loss_network": _loss_network(networks["loss_network"]),
            "target_components": networks.get("target_components"),
        },
        "n_features": learned["_n_loss_features"],
        "history": learned["history_"],
        "seed": learned["_seed"],
        "batch_size": learned["batch_size_"],
        "reading": {"value_range": "auto", "channels": "auto", "resize": "tile"},
        "best_epoch": learned.get("best_epoch_"),
        "validation_loss": learned.get("validation_loss_"),
    }
    renamed = {}
    for path, tensor in tensors.items():
        group, _, name = path.partition(".")
        renamed[f"{_TENSORS.get(group, group)}.{name}"] = tensor
    return {**header, "parameters": parameters, "state": state}, renamed


def _encoder(name: Any, normalized: bool) -> Any:
    return "paper-features" if name == "features" and not normalized else name


def _loss_network(value: Any) -> Any:
    """Spell out the defaults of version 0.1, which resized and pooled nothing."""
    if isinstance(value, list):
        return [_loss_network(one) for one in value]
    if isinstance(value, str):
        named: Any = describe(value)
        value = {"LossNetwork": named.set_params(pool="flatten", resize=None).get_params()}
    if value is None or value["LossNetwork"]["squash"] != "auto":
        return value
    return {"LossNetwork": {**value["LossNetwork"], "squash": "sigmoid"}}


def _format(format: dict[str, Any]) -> dict[str, Any]:
    """Add how version 0.1 read images: it tiled small ones, and dropped a fourth channel."""
    axis = {"hwc": -1, "chw": 0}.get(format["layout"])
    has_alpha = axis is not None and format["image_shape"][axis] == 4
    return {
        **format,
        "dtype": "uint8" if format["low"] is None else "float",
        "alpha": "drop" if has_alpha else None,
        "resize": "tile",
    }
