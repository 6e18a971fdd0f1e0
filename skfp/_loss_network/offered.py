"""The pretrained networks that are known to do well as loss networks, and where to cut them."""

from __future__ import annotations

from typing import NamedTuple


class Offered(NamedTuple):
    """A network of torchvision and the nodes of its graph that are worth a try.

    Attributes
    ----------
    nodes : dict of str to str
        Names in torchvision's graph, and what the literature calls them.
    default : str
        The node that is taken where none is named.
    """

    nodes: dict[str, str]
    default: str


OFFERED = {
    "alexnet": Offered(
        {
            "features.1": "relu1",
            "features.4": "relu2",
            "features.7": "relu3",
            "features.9": "relu4",
            "features.11": "relu5",
        },
        default="features.4",
    ),
    "vgg16": Offered(
        {"features.8": "relu2_2", "features.15": "relu3_3", "features.22": "relu4_3"},
        default="features.22",
    ),
    "resnet18": Offered(
        {"layer1": "stage 1", "layer2": "stage 2", "layer3": "stage 3"}, default="layer2"
    ),
    "resnet50": Offered(
        {"layer1": "stage 1", "layer2": "stage 2", "layer3": "stage 3"}, default="layer2"
    ),
    "efficientnet_b0": Offered(
        {"features.3": "stage 3", "features.5": "stage 5"}, default="features.3"
    ),
    "convnext_tiny": Offered(
        {"features.1": "stage 1", "features.3": "stage 2", "features.5": "stage 3"},
        default="features.3",
    ),
}
