"""Trunks of encoders that pool their maps to a grid, so that larger images need no more weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .._loss_network.pretrained import make_pretrained


def residual_trunk(in_channels: int = 3) -> tuple[nn.Module, int]:
    """Make a small residual network and give its width: 3x3 convolutions, no pretrained weights.

    Images of 64 pixels become maps of 16, 8 and 4 pixels.
    """
    stem = nn.Conv2d(in_channels, 32, 7, stride=4, padding=3, bias=False)
    trunk = nn.Sequential(
        *(stem, nn.BatchNorm2d(32), nn.ReLU(inplace=True)),
        *(ResidualBlock(32, 32), ResidualBlock(32, 64, stride=2), ResidualBlock(64, 192, stride=2)),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten()),
    )
    return trunk, 192 * 2**2


class ResidualBlock(nn.Module):
    """Two convolutions whose output is added to their input."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(n_out)),
            nn.ReLU(inplace=True),
            *(nn.Conv2d(n_out, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out)),
        )
        self.shortcut: nn.Module = nn.Identity()
        if n_in != n_out:
            shortcut = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(n_out))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (b, n_in, height, width) to (b, n_out, height / stride, width / stride)."""
        return torch.relu(self.layers(maps) + self.shortcut(maps))


def pretrained_trunk(in_channels: int = 3) -> tuple[nn.Module, int]:
    """Make a network that begins with AlexNet's first two convolutions, and give its width.

    They are the layers of the paper's loss network, with its weights, which are trained on. Images
    of 64 pixels become maps of 15, 7 and 4 pixels.
    """
    first, *others = make_pretrained("alexnet", "features.4", "default").layers
    trunk = nn.Sequential(
        *(_adapt_channels(first, in_channels), *others, nn.BatchNorm2d(192)),
        *(nn.Conv2d(192, 256, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(256)),
        *(nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(4), nn.Flatten()),
    )
    return trunk, 256 * 4**2


def _adapt_channels(convolution: Any, in_channels: int) -> nn.Module:
    """Give a convolution of RGB images weights for other channels; grey images keep its output.

    The weights of each colour go in equal shares to every third channel, which begin with red.
    """
    if in_channels == 3:
        return convolution
    channels, colours = torch.arange(in_channels), torch.arange(3)
    shares = (channels % 3 == colours[:, None] % in_channels).float()
    shares /= shares.sum(dim=1, keepdim=True)
    convolution.weight = nn.Parameter(
        torch.einsum("ocij,cn->onij", convolution.weight.detach(), shares)
    )
    convolution.in_channels = in_channels
    return convolution


# By the name of the encoder; each makes a trunk for a number of channels.
TRUNKS: dict[str, Callable[[int], tuple[nn.Module, int]]] = {
    "residual": residual_trunk,
    "pretrained": pretrained_trunk,
}
