"""Loss networks: frozen, pretrained networks whose features are compared or predicted.

`LossNetwork` describes one by plain values, `load_loss_network` makes it from the description.
"""

from .catalogue import loss_networks
from .channels import select_channels
from .description import LossNetwork, describe, empty_loss_network, load_loss_network
from .frozen import FrozenNetwork, JointNetwork, check_features
from .inference import Inference, is_deep

__all__ = [
    "FrozenNetwork",
    "Inference",
    "JointNetwork",
    "LossNetwork",
    "check_features",
    "describe",
    "empty_loss_network",
    "is_deep",
    "load_loss_network",
    "loss_networks",
    "select_channels",
]
