"""Description of a loss network by plain values, to be cloned, searched over and saved."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from .frozen import FrozenNetwork, JointNetwork
from .layers import Function, Normalise, Pool, Resize
from .pretrained import IMAGENET_MEAN, IMAGENET_STD, make_pretrained

_WEIGHTS_FILES = (".safetensors", ".pt", ".pth")


class LossNetwork(BaseEstimator):
    """Description of a loss network: a network, a layer of it, and the use of its features.

    Pass one to an encoder as `loss_network`, or a list of them to train against all at once. It
    holds plain values and no weights: `fit` makes the networks.

    Parameters
    ----------
    network : str, torch.nn.Module or callable, default="alexnet"
        - "alexnet": the paper's loss network [1]_, whose weights come with the package up to its
          second ReLU.
        - The name of any other classification model of torchvision, such as "vgg16". Weights are
          downloaded to torch's cache at first use.
        - "timm:" and the name of a model of timm, such as "timm:resnet26"; needs the extra `timm`.
        - A module or a function from float images (b, 3, height, width) in [0, 1] to a tensor
          (b, ...). A module is copied and frozen.
    layer : str or None, default=None
        The node of the network's graph whose output is taken, named as by torchvision's
        `get_graph_node_names`; a name such as "layer2" means the last node within. None is the
        default that :func:`skfp.loss_networks` shows. For other networks of torchvision it is the
        input of their classifier, for timm's and your own it is their output.
    weights : str or path-like, default="default"
        "default" are the best that torchvision or timm publish. Else the name of other weights of
        torchvision, such as "IMAGENET1K_V1", or a file: safetensors, or a state dict saved by
        torch, which is read without running code. It may hold more than is needed.
    preprocess : {"auto", "imagenet"} or None, default="auto"
        How images in [0, 1] are scaled. "imagenet" subtracts ImageNet's mean colour and divides by
        its deviation. "auto" scales images as in the training of the weights, except for
        "alexnet", which takes them unscaled, as in the paper, and so does a network of your own.
    resize : int or None, default=None
        The shorter side in pixels to which images are resized for the network. None leaves their
        size.
    pool : "flatten", "avg" or int, default="flatten"
        "flatten" takes every feature at every place, as the paper does. "avg" averages each
        channel over all places. An int averages within the fields of a grid of so many rows and
        columns, where maps are larger than that.
    squash : {"auto", "sigmoid"} or None, default="auto"
        "sigmoid" bounds features as in the paper, before they are pooled. "auto" is "sigmoid" for
        a named network, None for your own.
    weight : float, default=1.0
        Share of this network where there are several, relative to the others'. See Notes.

    See Also
    --------
    skfp.loss_networks : Table of networks that are known to do well.

    Notes
    -----
    The features of several networks are joined. As they differ in number and in size, `fit` scales
    those of network i, by its features of 128 training images, so that they make up
    w_i / (w_1 + w_2 + ...) of the variance of all features, whose mean variance becomes 1. So a
    decoder that always predicts the mean has a loss of 1, to which each network contributes its
    share. With `target_components`, principal components represent each network by its share of
    the variance. The weight of a single network has no effect.

    Features of PyTorch transformers are tokens (b, tokens, channels), or maps with the channels
    last: "avg" averages tokens, and a grid needs maps (b, channels, rows, columns).

    References
    ----------
    .. [1] G. Grund Pihlgren, F. Sandin, M. Liwicki, "Pretraining Image Encoders without
       Reconstruction via Feature Prediction Loss", ICPR 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from skfp import FeaturePredictionEncoder, LossNetwork
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    >>> early = LossNetwork("alexnet", layer="features.1", pool=4)
    >>> encoder = FeaturePredictionEncoder(z=8, loss_network=early, max_epochs=1, random_state=0)
    >>> encoder.fit_transform(images).shape
    (20, 8)

    Its parameters are those of the encoder too, for example in a search:

    >>> encoder.set_params(loss_network__layer="features.4").loss_network
    LossNetwork(layer='features.4', pool=4)

    Two networks at once:

    >>> both = [early, LossNetwork("alexnet", weight=2.0)]
    >>> encoder.set_params(loss_network=both).fit_transform(images).shape
    (20, 8)
    """

    _parameter_constraints: ClassVar[dict[str, list]] = {
        "network": [str, callable],
        "layer": [str, None],
        "weights": [str, os.PathLike],
        "preprocess": [StrOptions({"auto", "imagenet"}), None],
        "resize": [Interval(Integral, 1, None, closed="left"), None],
        "pool": [StrOptions({"flatten", "avg"}), Interval(Integral, 1, None, closed="left")],
        "squash": [StrOptions({"auto", "sigmoid"}), None],
        "weight": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        network: str | nn.Module | Callable = "alexnet",
        *,
        layer: str | None = None,
        weights: str | os.PathLike[str] = "default",
        preprocess: str | None = "auto",
        resize: int | None = None,
        pool: str | int = "flatten",
        squash: str | None = "auto",
        weight: float = 1.0,
    ) -> None:
        self.network = network
        self.layer = layer
        self.weights = weights
        self.preprocess = preprocess
        self.resize = resize
        self.pool = pool
        self.squash = squash
        self.weight = weight

    @property
    def _name(self) -> str:
        """Name of the network in messages."""
        network = self.network
        if not isinstance(network, str):
            return getattr(network, "__name__", type(network).__name__)
        if self.weights != "default":
            return os.fspath(self.weights)
        return network if self.layer is None else f"{network} to {self.layer}"

    def _make(self, *, empty: bool) -> FrozenNetwork:
        """Make the network, with its weights or without."""
        self._validate_params()
        mean: tuple[float, ...] | None = None
        std: tuple[float, ...] | None = None
        if isinstance(self.network, str):
            layers, mean, std = make_pretrained(self.network, self.layer, self.weights, empty=empty)
        elif isinstance(self.network, type):
            raise TypeError(
                f"network is the class {self.network.__name__}. Pass an instance of it."
            )
        elif self.layer is not None or self.weights != "default":
            raise ValueError(
                "layer and weights are for networks that are named. Pass a module of your own with "
                "its weights loaded, which returns the features of the layer you want."
            )
        elif isinstance(self.network, nn.Module):
            layers = [self.network]
        else:
            layers = [Function(self.network)]
        if self.preprocess == "imagenet":
            mean, std = IMAGENET_MEAN, IMAGENET_STD
        before: list[nn.Module] = []
        if self.resize is not None:
            before.append(Resize(self.resize))
        if self.preprocess is not None and mean is not None and std is not None:
            # Beside the weights, which may be on the meta device.
            device = next((p.device for layer in layers for p in layer.parameters()), "cpu")
            before.append(Normalise(mean, std).to(device))
        after: list[nn.Module] = []
        if self.squash == "sigmoid" or (self.squash == "auto" and isinstance(self.network, str)):
            after.append(nn.Sigmoid())
        if self.pool != "flatten":
            after.append(Pool(None if self.pool == "avg" else int(self.pool)))
        steps = [*before, *layers, *after]
        own = isinstance(self.network, nn.Module) and len(steps) == 1
        frozen = FrozenNetwork(steps[0] if own else nn.Sequential(*steps), name=self._name)
        if isinstance(self.network, str):
            # Convolutions of few channels run a fifth faster with the channels innermost.
            frozen.network.to(memory_format=torch.channels_last)
        return frozen


def describe(loss_network: Any) -> LossNetwork | list[LossNetwork] | FrozenNetwork:
    """Describe what an estimator takes as `loss_network`, as in `load_loss_network`.

    The description is a copy, so that a fitted estimator keeps its own; modules are not copied.
    """
    if isinstance(loss_network, FrozenNetwork):
        return loss_network
    if isinstance(loss_network, list | tuple):
        return [_describe(one) for one in loss_network]
    return _describe(loss_network)


def load_loss_network(loss_network: Any) -> FrozenNetwork:
    """Make the network that an estimator takes as `loss_network`, on the CPU.

    That is a description, or its `network` alone; a path to weights of "alexnet"; or a list of
    these, whose features are joined.

    Examples
    --------
    >>> import torch
    >>> from skfp._loss_network import load_loss_network
    >>> p = load_loss_network("alexnet")
    >>> p(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 9408])
    >>> p.n_features((96, 96))
    23232
    """
    return _make(loss_network, empty=False)


def empty_loss_network(loss_network: Any) -> FrozenNetwork:
    """Make a loss network without weights, to be loaded from a saved estimator."""
    return _make(loss_network, empty=True)


def _make(loss_network: Any, *, empty: bool) -> FrozenNetwork:
    descriptions = describe(loss_network)
    if isinstance(descriptions, FrozenNetwork):
        return copy.deepcopy(descriptions)
    if isinstance(descriptions, LossNetwork):
        return descriptions._make(empty=empty)
    if not descriptions:
        raise ValueError("loss_network is an empty list. Expected at least one network.")
    networks = [description._make(empty=empty) for description in descriptions]
    if len(networks) == 1:
        return networks[0]
    joint = JointNetwork(networks, [float(description.weight) for description in descriptions])
    return FrozenNetwork(joint, name=" + ".join(network.name for network in networks))


def _describe(loss_network: Any) -> LossNetwork:
    if isinstance(loss_network, LossNetwork):
        return LossNetwork(**loss_network.get_params(deep=False))
    if isinstance(loss_network, os.PathLike) or (
        isinstance(loss_network, str) and loss_network.endswith(_WEIGHTS_FILES)
    ):
        return LossNetwork(weights=loss_network)
    if isinstance(loss_network, str) or callable(loss_network):
        return LossNetwork(loss_network)
    raise TypeError(
        "loss_network must be the name of a network, a path to a weights file, a torch.nn.Module, "
        "a function from images to tensors, a skfp.LossNetwork, or a list of these, got "
        f"{loss_network!r}."
    )
