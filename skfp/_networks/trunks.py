"""Trunks of encoders that pool their maps to a grid, so that larger images need no more weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .._loss_network.pretrained import make_pretrained

# The pretrained trunk sees larger images at this shorter side, in pixels.
MAX_SIDE = 96


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
    """Make the first block of each stage of EfficientNet-Lite0, and give its width.

    The weights are those of ImageNet, and are trained on. Without the other blocks, which only add
    to the output of the first, little of the network's sense is lost and most of its cost.
    """
    network: Any = make_pretrained("efficientnet_lite0", "stage6", "default").layers[0]
    stem, *stages = network.children()
    stem[0] = _adapt_channels(stem[0], in_channels)
    blocks = nn.Sequential(stem, *(stage[0] for stage in stages))
    trunk = nn.Sequential(
        *(Shrink(MAX_SIDE), Signed(), blocks),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten()),
    )
    return trunk.requires_grad_(True), 192 * 2**2


class Signed(nn.Module):
    """Moves values from [0, 1] to [-1, 1], as EfficientNet-Lite0 was trained."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images to images of the same shape."""
        return 2 * images - 1


class Shrink(nn.Module):
    """Resizes images whose shorter side is larger than `side` pixels to that side."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (b, channels, height, width) to smaller ones."""
        height, width = images.shape[-2:]
        shorter = min(height, width)
        if shorter <= self.side:
            return images
        size = (round(height * self.side / shorter), round(width * self.side / shorter))
        return F.interpolate(images, size=size, mode="bilinear", antialias=True)


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
