"""The pretrained networks that are known to do well as loss networks, and their layers."""

from __future__ import annotations

from typing import Any

from .description import LossNetwork, empty_loss_network
from .pretrained import DEFAULT_LAYERS, EMBEDDED_LAYERS

# Names of layers in torchvision's graph, and in the literature.
_LAYERS = {
    "alexnet": {
        "features.1": "relu1",
        "features.4": "relu2",
        "features.7": "relu3",
        "features.9": "relu4",
        "features.11": "relu5",
    },
    "efficientnet_lite0": {"stage3": "stage 3", "stage5": "stage 5", "pooled": "pooled features"},
    "vgg16": {"features.8": "relu2_2", "features.15": "relu3_3", "features.22": "relu4_3"},
    "resnet18": {"layer1": "stage 1", "layer2": "stage 2", "layer3": "stage 3"},
    "resnet50": {"layer1": "stage 1", "layer2": "stage 2", "layer3": "stage 3"},
    "efficientnet_b0": {"features.3": "stage 3", "features.5": "stage 5"},
    "convnext_tiny": {"features.1": "stage 1", "features.3": "stage 2", "features.5": "stage 3"},
}
# Early layers keep edges, textures and their places, late ones what is in a photograph.
_SUITS = {
    "alexnet": "drawings, renderings and simple scenes; the fastest",
    "efficientnet_lite0": "photographs, by what they show",
    "vgg16": "textures and details of photographs",
    "resnet18": "photographs, objects and their places",
    "resnet50": "photographs, objects and their places",
    "efficientnet_b0": "photographs, objects and their places",
    "convnext_tiny": "photographs, objects and their places",
}


def loss_networks() -> list[dict[str, Any]]:
    """List the networks that are known to do well as loss networks.

    Any other model of torchvision or timm, and any module or function, can be one too: see
    :class:`skfp.LossNetwork`.

    Returns
    -------
    table : list of dict
        A row per layer, for `pandas.DataFrame(table)`, with the keys

        - "network" and "layer": the parameters of `LossNetwork`;
        - "known as": the name of the layer in the literature;
        - "default": whether it is the default layer of the network;
        - "suits": which images it is a good teacher for;
        - "features": their number for an image of 64 by 64 pixels;
        - "weights": "embedded" in this package, or "download" from torchvision;
        - "licence": of the weights.

    Notes
    -----
    All weights were trained on ImageNet, whose images have terms of their own. The short name
    "photo" stands for "efficientnet_lite0" with its defaults.

    Examples
    --------
    >>> import skfp
    >>> table = skfp.loss_networks()
    >>> table[1]["network"], table[1]["known as"], table[1]["features"], table[1]["weights"]
    ('alexnet', 'relu2', 9408, 'embedded')
    """
    return [
        {
            "network": name,
            "layer": layer,
            "known as": known_as,
            "default": layer == DEFAULT_LAYERS[name],
            "suits": _SUITS[name],
            "features": empty_loss_network(LossNetwork(name, layer=layer)).n_features((64, 64)),
            "weights": "embedded" if layer in EMBEDDED_LAYERS.get(name, ()) else "download",
            "licence": "Apache-2.0" if name == "efficientnet_lite0" else "BSD-3-Clause",
        }
        for name, layers in _LAYERS.items()
        for layer, known_as in layers.items()
    ]
