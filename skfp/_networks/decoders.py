"""The paper's decoders (section V, figures 3 and 4): of images, and of features."""

from __future__ import annotations

import math

import torch
from torch import nn


class ImageDecoder(nn.Module):
    """A linear map and four transposed convolutions, from the embedding to an image (figure 4).

    The layers give sides of 64 + 16 k pixels; other sizes are cut out of the next larger one.

    >>> import torch
    >>> decoder = ImageDecoder(64, (64, 64))
    >>> sum(p.numel() for p in decoder.parameters())
    3626019
    >>> decoder(torch.zeros(2, 64)).shape
    torch.Size([2, 3, 64, 64])
    """

    WIDTH = 1024

    def __init__(self, z: int, size: tuple[int, int], out_channels: int = 3) -> None:
        super().__init__()
        self.size = size
        self.grid = tuple(max(math.ceil((side - 64) / 16), 0) + 1 for side in size)
        self.linear = nn.Linear(z, self.WIDTH * math.prod(self.grid))
        layers: list[nn.Module] = []
        for n_in, n_out, kernel in ((self.WIDTH, 128, 5), (128, 64, 5), (64, 32, 6)):
            layers += [nn.ConvTranspose2d(n_in, n_out, kernel, stride=2)]
            layers += [nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
        last = nn.ConvTranspose2d(32, out_channels, 6, stride=2)
        self.layers = nn.Sequential(*layers, last, nn.Sigmoid())

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Map embeddings (batch, z) to images (batch, out_channels, height, width) in [0, 1]."""
        grid = torch.relu(self.linear(embedding)).unflatten(1, (self.WIDTH, *self.grid))
        grid = grid.contiguous(memory_format=torch.channels_last)
        return self.layers(grid)[..., : self.size[0], : self.size[1]]


class FeatureDecoder(nn.Sequential):
    """A perceptron with one hidden layer, from the embedding to features or their projection.

    >>> decoder = FeatureDecoder(64, 9408)
    >>> sum(p.numel() for p in decoder.parameters())
    19410112
    """

    def __init__(self, z: int, n_features: int, n_outputs: int | None = None) -> None:
        hidden = hidden_width(n_features)
        super().__init__(
            nn.Linear(z, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, n_features if n_outputs is None else n_outputs),
        )


def hidden_width(n_features: int) -> int:
    """Width of the hidden layer of the feature encoder and decoder."""
    return max(min(n_features // 2, 2048), 1)
