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
from .layers import Average, ChannelsFirst, Function, Normalise, Pool, PoolMaps, Resize
from .pretrained import IMAGENET_MEAN, IMAGENET_STD, Pretrained, make_pretrained

_WEIGHTS_FILES = (".safetensors", ".pt", ".pth")
_PRESETS = {"photo": "efficientnet_lite0"}
_TOKENS = {"cls", "avg", "cls+avg"}


class LossNetwork(BaseEstimator):
    """Description of a loss network: a network, a layer of it, and the use of its features.

    Pass one to an encoder as `loss_network`, or a list of them to train against all at once. It
    holds plain values and no weights: `fit` makes the networks.

    Parameters
    ----------
    network : str, torch.nn.Module or callable, default="alexnet"
        - "alexnet": the paper's loss network [1]_, whose weights come with the package up to its
          second ReLU.
        - "efficientnet_lite0" or "photo": EfficientNet-Lite0 [2]_, a deep network to learn from on
          photographs, whose weights come with the package. Its default layer is the average of its
          1,280 last maps, and images are resized to 128 pixels for it.
        - The name of any other classification model of torchvision, such as "vgg16". Weights are
          downloaded to torch's cache at first use.
        - "timm:" and the name of a model of timm, such as "timm:vit_small_patch14_dinov2"; needs
          the extra `timm`.
        - A module or a function from float images (b, 3, height, width) in [0, 1] to a tensor
          (b, ...). A module is copied and frozen.
    layer : str or None, default=None
        The node of the network's graph whose output is taken, named as by torchvision's
        `get_graph_node_names`; a name such as "layer2" means the last node within. None is the
        default that :func:`skfp.loss_networks` shows. For other networks of torchvision it is the
        input of their classifier, for timm's and your own it is their output. Those of
        "efficientnet_lite0" are "stem", "stage1" to "stage7", "head" and "pooled".
    weights : str or path-like, default="default"
        "default" are the best that torchvision or timm publish. Else the name of other weights of
        torchvision, such as "IMAGENET1K_V1", or a file: safetensors, or a state dict saved by
        torch, which is read without running code. It may hold more than is needed.
    preprocess : {"auto", "imagenet"} or None, default="auto"
        How images in [0, 1] are scaled. "imagenet" subtracts ImageNet's mean colour and divides by
        its deviation. "auto" scales images as in the training of the weights, except for
        "alexnet", which takes them unscaled, as in the paper, and so does a network of your own.
    resize : int, "auto" or None, default="auto"
        The shorter side in pixels to which images are resized for the network. None leaves their
        size. "auto" is 128 for "efficientnet_lite0", None for others.
    pool : {"auto", "flatten", "avg", "cls", "cls+avg"} or int, default="auto"
        - "flatten" takes every feature at every place, as the paper does.
        - "avg" averages each channel over all places.
        - An int averages within the fields of a grid of so many rows and columns, where maps are
          larger than that.
        - "auto" averages maps of more than 8 rows or columns to 7, so that large images have about
          as many features as those of 64 pixels; features of a network of your own are left as
          they are.
        - "cls" takes a transformer's first token, its class token, "avg" the average of those of
          places, without class and register tokens, and "cls+avg" both.
    squash : {"auto", "sigmoid"} or None, default="auto"
        "sigmoid" bounds features as in the paper, before they are pooled. "auto" is "sigmoid" where
        the layer of a named network is a ReLU or a max pool of one, as the defaults of "alexnet"
        and "vgg16" are, else None: a sigmoid would make features that are large or negative alike.
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

    Most vision transformers of timm take images of any size: their position embeddings are
    interpolated, and sides that are no multiple of their patches are padded. Features of a network
    of your own may be tokens (b, tokens, channels) too; its attribute `num_prefix_tokens` says how
    many of them "avg" leaves out. A grid needs maps (b, channels, rows, columns).

    On a CPU, `fit` extracts features of deep networks, of more than eight convolutions and linear
    maps, in batches of 8 with BatchNorm folded; for 3,000 or more images by ONNX Runtime, where
    onnxruntime, onnx and onnxscript are installed and its features of the first batch equal torch's
    within 1e-4. Shallow networks such as the default, and gradients, always use torch.

    References
    ----------
    .. [1] G. Grund Pihlgren, F. Sandin, M. Liwicki, "Pretraining Image Encoders without
       Reconstruction via Feature Prediction Loss", ICPR 2020.
    .. [2] M. Tan, Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
       Networks", ICML 2019; the Lite models have no squeeze-and-excitation, and ReLU6.

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
        "resize": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left"), None],
        "pool": [
            StrOptions({"auto", "flatten"} | _TOKENS),
            Interval(Integral, 1, None, closed="left"),
        ],
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
        resize: int | str | None = "auto",
        pool: str | int = "auto",
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
        pretrained = self._pretrained(empty=empty)
        layers, mean, std = pretrained[:3]
        if self.preprocess == "imagenet":
            mean, std = IMAGENET_MEAN, IMAGENET_STD
        before: list[nn.Module] = []
        side: Any = pretrained.side if self.resize == "auto" else self.resize
        if side is not None:
            before.append(Resize(side))
        if self.preprocess is not None and mean is not None and std is not None:
            # Beside the weights, which may be on the meta device.
            device = next((p.device for layer in layers for p in layer.parameters()), "cpu")
            before.append(Normalise(mean, std).to(device))
        after: list[nn.Module] = []
        if self.squash == "sigmoid" or (self.squash == "auto" and pretrained.rectified):
            after.append(nn.Sigmoid())
        if pretrained.channels_last and self.pool != "flatten":
            after.append(ChannelsFirst())
        after += self._pooling(pretrained.n_prefix)
        steps = [*before, *layers, *after]
        own = isinstance(self.network, nn.Module) and len(steps) == 1
        frozen = FrozenNetwork(steps[0] if own else nn.Sequential(*steps), name=self._name)
        if isinstance(self.network, str):
            # Convolutions of few channels run a fifth faster with the channels innermost.
            frozen.network.to(memory_format=torch.channels_last)
        return frozen

    def _pretrained(self, *, empty: bool) -> Pretrained:
        """Make the network itself, up to its layer."""
        if isinstance(self.network, str):
            return make_pretrained(
                self.network, self.layer, self.weights, tokens=self.pool in _TOKENS, empty=empty
            )
        if isinstance(self.network, type):
            raise TypeError(
                f"network is the class {self.network.__name__}. Pass an instance of it."
            )
        if self.layer is not None or self.weights != "default":
            raise ValueError(
                "layer and weights are for networks that are named. Pass a module of your own with "
                "its weights loaded, which returns the features of the layer you want."
            )
        own = self.network if isinstance(self.network, nn.Module) else Function(self.network)
        return Pretrained([own], n_prefix=getattr(own, "num_prefix_tokens", None))

    def _pooling(self, n_prefix: int | None) -> list[nn.Module]:
        """Make the layer that pools features, if there is one."""
        pool: Any = self.pool
        if pool == "flatten" or (pool == "auto" and not isinstance(self.network, str)):
            return []
        if pool == "auto":
            return [PoolMaps(7, largest=8)]
        if pool not in _TOKENS:
            return [Pool(int(pool), largest=int(pool))]
        if "cls" not in pool:
            return [Average(pool, n_prefix or 0)]
        if n_prefix == 0:
            raise ValueError(
                f'{self._name!r} has no class token, which pool={pool!r} takes. Use pool="avg".'
            )
        return [Average(pool, n_prefix or 1)]


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
    >>> p.n_features((224, 224))
    9408
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
        parameters = loss_network.get_params(deep=False)
        if isinstance(parameters["network"], str):
            parameters["network"] = _PRESETS.get(parameters["network"], parameters["network"])
        return LossNetwork(**parameters)
    if isinstance(loss_network, os.PathLike) or (
        isinstance(loss_network, str) and loss_network.endswith(_WEIGHTS_FILES)
    ):
        return LossNetwork(weights=loss_network)
    if isinstance(loss_network, str) or callable(loss_network):
        return _describe(LossNetwork(loss_network))
    raise TypeError(
        "loss_network must be the name of a network, a path to a weights file, a torch.nn.Module, "
        "a function from images to tensors, a skfp.LossNetwork, or a list of these, got "
        f"{loss_network!r}."
    )
