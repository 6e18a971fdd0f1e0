"""The fitted state: everything that a fit computes, in one object."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import nn

from ._data import ImageFormat, ImageSet, Preprocess
from ._features import PCAProjection
from ._loss_network import FrozenNetwork, LossNetwork, empty_loss_network, select_channels
from ._networks import (
    Architecture,
    Encoder,
    FeaturePredictionLoss,
    PerceptualLoss,
    PixelLoss,
    ProjectedFeatureLoss,
)
from ._training import differences
from ._utils.random import seeded
from ._utils.tensor_file import Tensors, flatten_tensors, lists_to_tuples, nest_tensors

_PLAIN = (
    *("n_features", "history", "seed", "batch_size", "reading"),
    *("best_epoch", "validation_loss"),
)


class Networks(NamedTuple):
    """The trained networks, and what their targets are made with; the last three may be None."""

    encoder: Encoder
    decoder: nn.Module
    variance_head: nn.Linear | None = None
    loss_network: FrozenNetwork | None = None
    projection: PCAProjection | None = None

    @property
    def trained(self) -> tuple[Encoder, nn.Module, nn.Linear | None]:
        """The networks that training changes."""
        return self[:3]

    def on_cpu(self) -> Networks:
        """Move all networks to the CPU, in evaluation mode."""
        networks: list[Any] = [net if net is None else net.cpu().eval() for net in self]
        return Networks(*networks)


@dataclasses.dataclass(frozen=True)
class FittedState:
    """What `fit` and `partial_fit` compute; an estimator assigns it once, at their end.

    Parameters
    ----------
    format : ImageFormat
        Of the images in fit.
    feature_names : ndarray of str or None
        Column names of flattened images.
    architecture : Architecture
        What the networks were made from.
    n_features : int
        Number of features of the loss network, 0 without one.
    networks : Networks
        On the CPU.
    history : list of dict
        A row per epoch.
    seed : int
        Of everything random in the fit.
    batch_size : int
        Images per training step.
    reading : dict
        The parameters `value_range`, `channels` and `resize`, which say how images are read.
    best_epoch, validation_loss
        None after `partial_fit`.
    report : dict or None
        Numbers of the last `report`.
    optimizer_state : dict of int to dict of str to Tensor
        Of each parameter, for the next `partial_fit`; empty after `fit`.
    """

    format: ImageFormat
    feature_names: np.ndarray | None
    architecture: Architecture
    n_features: int
    networks: Networks
    history: list[dict[str, Any]]
    seed: int
    batch_size: int
    reading: dict[str, Any]
    best_epoch: int | None = None
    validation_loss: float | None = None
    report: dict[str, Any] | None = None
    optimizer_state: dict[int, Tensors] = dataclasses.field(default_factory=dict)

    @property
    def preprocess(self) -> Preprocess:
        """Makes the input of networks from stored images."""
        return Preprocess()

    @property
    def criterion(self) -> nn.Module:
        """The loss that the networks were trained with."""
        return make_criterion(self.architecture, self.n_features, self.preprocess, self.networks)

    def embedder(self, encoder: nn.Module) -> nn.Sequential:
        """Put before an encoder what makes its input from stored images."""
        features = [self.networks.loss_network] if self.architecture.takes_features else []
        return nn.Sequential(self.preprocess, *filter(None, features), encoder)

    def inputs_of_features(self, images: ImageSet, rows: Any, inputs: torch.Tensor) -> torch.Tensor:
        """Return what the loss network gets of some images, whose `inputs` other networks get."""
        own = self.architecture.images_of_features(images, self.networks.loss_network)
        if own is images:
            return inputs
        return self.preprocess(own.read(rows).to(inputs.device))

    @property
    def n_parameters(self) -> int:
        """Number of trained parameters."""
        modules = filter(None, self.networks.trained)
        return sum(p.numel() for m in modules for p in m.parameters() if p.requires_grad)

    def check_parameters(
        self, architecture: Architecture, reading: dict[str, Any], *, ignore_z: bool = False
    ) -> Architecture:
        """Return the state's architecture; refuse parameters that the networks do not fit.

        Raises
        ------
        ValueError
            If training cannot go on with these parameters.
        """
        before = {**_parameters(self.architecture), **self.reading}
        now = {**_parameters(architecture), **reading}
        if ignore_z:
            now["z"] = before["z"]
        if changes := differences(before, now):
            raise ValueError(
                f"Training goes on with the networks of an earlier fit, but {'; '.join(changes)}. "
                "Set that back, or call fit with warm_start=False to start again."
            )
        return self.architecture

    def to_values(self) -> tuple[dict[str, Any], Tensors]:
        """Split the state into plain values and named tensors."""
        networks = self.networks._asdict()
        tensors = {name: net.state_dict() for name, net in networks.items() if net is not None}
        tensors["optimizer_state"] = flatten_tensors(self.optimizer_state)
        names = self.feature_names
        values = {
            "format": dataclasses.asdict(self.format),
            "feature_names": None if names is None else names.tolist(),
            "architecture": networks_to_dicts(
                {
                    field.name: getattr(self.architecture, field.name)
                    for field in dataclasses.fields(self.architecture)
                }
            ),
            **{name: getattr(self, name) for name in (*_PLAIN, "report")},
        }
        return values, flatten_tensors(tensors)

    @classmethod
    def from_values(cls, values: dict[str, Any], tensors: Tensors) -> Self:
        """Make the state again from what `to_values` returned.

        Raises
        ------
        KeyError, RuntimeError, TypeError, ValueError
            If values and tensors are not those of one state.
        """
        groups = nest_tensors(tensors)
        if unknown := groups.keys() - {*Networks._fields, "optimizer_state"}:
            raise ValueError(f"{min(unknown)} is unknown")
        format = ImageFormat(**lists_to_tuples(values["format"]))
        names = values["feature_names"]
        architecture = Architecture(**dicts_to_networks(values["architecture"]))
        n_features, shape = values["n_features"], format.input_shape
        projection = None
        if groups["projection"]:
            projection = PCAProjection(**{n: t.float() for n, t in groups["projection"].items()})
        # On the meta device, nothing is allocated or initialised before shapes are compared.
        on_meta = torch.device("meta")
        loss_network = None
        if architecture.loss_network is not None:
            network = empty_loss_network(architecture.loss_network)
            with on_meta:
                network = select_channels(network, values["reading"]["channels"], shape[0])
            loss_network = _fill(network, groups["loss_network"])
        place: Any = seeded(0) if callable(architecture.encoder) else on_meta
        with place:
            mean = torch.empty(n_features) if architecture.encoder == "features" else None
            encoder = architecture.make_encoder(n_features, shape, mean)
        with on_meta:
            decoder = architecture.make_decoder(n_features, shape, projection)
            variance_head = architecture.make_variance_head(encoder)
        networks = Networks(
            _fill(encoder, groups["encoder"]),
            _fill(decoder, groups["decoder"]),
            None if variance_head is None else _fill(variance_head, groups["variance_head"]),
            loss_network,
            projection,
        )
        return cls(
            format=format,
            feature_names=None if names is None else np.asarray(names, dtype=object),
            architecture=architecture,
            networks=networks,
            optimizer_state={
                int(parameter): state
                for parameter, state in nest_tensors(groups["optimizer_state"]).items()
            },
            report=values.get("report"),  # files of earlier versions have none
            **{name: values[name] for name in _PLAIN},
        )


def make_criterion(
    architecture: Architecture, n_features: int, preprocess: nn.Module, networks: Networks
) -> nn.Module:
    """Make the loss of an architecture: equation 1, 2 or 3 of the paper."""
    if architecture.loss == "pixels":
        return PixelLoss(preprocess)
    if architecture.loss == "perceptual" and networks.loss_network is not None:
        return PerceptualLoss(networks.loss_network)
    if networks.projection is None:
        return FeaturePredictionLoss()
    return ProjectedFeatureLoss(n_features)


def _parameters(architecture: Architecture) -> dict[str, Any]:
    """Name what an architecture holds as the parameters of estimators are named."""
    return {
        "z": architecture.z,
        "encoder": architecture.encoder,
        "gamma > 0": architecture.variational,
        "loss_network": architecture.loss_network,
        "target_components": architecture.target_components,
    }


def _fill(module: Any, tensors: Tensors) -> Any:
    state = module.state_dict()
    for name, expected in state.items():
        if name in tensors and tensors[name].dtype != expected.dtype:
            raise TypeError(f"{name} holds {tensors[name].dtype}, expected {expected.dtype}")
    # Copied into a module of the user's, where several names may stand for one tensor.
    module.load_state_dict(tensors, assign=any(tensor.is_meta for tensor in state.values()))
    return module.cpu().eval().to(memory_format=torch.channels_last)


def networks_to_dicts(value: Any) -> Any:
    """Replace descriptions of loss networks by dicts of their parameters, also in lists."""
    if isinstance(value, dict):
        return {key: networks_to_dicts(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [networks_to_dicts(one) for one in value]
    return (
        {"LossNetwork": value.get_params(deep=False)} if isinstance(value, LossNetwork) else value
    )


def dicts_to_networks(value: Any) -> Any:
    """Undo `networks_to_dicts`."""
    if isinstance(value, list):
        return [dicts_to_networks(one) for one in value]
    if isinstance(value, dict) and "LossNetwork" in value:
        return LossNetwork(**value["LossNetwork"])
    if isinstance(value, dict):
        return {key: dicts_to_networks(one) for key, one in value.items()}
    return value
