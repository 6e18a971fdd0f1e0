"""The loss network p: a frozen, pretrained network whose features say what matters in an image.

`LossNetwork` describes one by plain values, `load_loss_network` makes it from the description.
"""

from ._catalogue import loss_networks
from ._description import LossNetwork, describe, empty_loss_network, load_loss_network
from ._frozen import FrozenNetwork, JointNetwork, check_features

__all__ = [
    "FrozenNetwork",
    "JointNetwork",
    "LossNetwork",
    "check_features",
    "describe",
    "empty_loss_network",
    "load_loss_network",
    "loss_networks",
]
