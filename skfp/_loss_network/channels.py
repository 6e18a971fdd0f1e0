"""Images of any number of channels for loss networks, which take three."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from .frozen import FrozenNetwork

_SAMPLE = 100_000


class ChannelSelection(nn.Module):
    """Map images of n channels linearly to three, clipped to [0, 1]."""

    matrix: Tensor
    offset: Tensor

    def __init__(self, matrix: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.register_buffer("offset", offset)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (b, n, height, width) to (b, 3, height, width)."""
        mapped = nn.functional.conv2d(images, self.matrix[:, :, None, None], self.offset)
        return mapped.clamp(0, 1)


def select_channels(
    network: FrozenNetwork, channels: Any, n_channels: int, images: Tensor | None = None
) -> FrozenNetwork:
    """Put before a loss network what makes three channels of `n_channels`.

    Parameters
    ----------
    network : FrozenNetwork
    channels : "auto", "rgba", "mean", "pca" or three ints
        As in the estimators.
    n_channels : int
        Number of channels of images; 1 was repeated to 3 before.
    images : Tensor of shape (b, n_channels, height, width), default=None
        A sample, of which "pca" finds its components; None leaves them to be loaded.

    Raises
    ------
    ValueError
        If there are no such channels.
    """
    selected = [] if isinstance(channels, str) else [*channels]
    if n_channels in (1, 3) and not selected:
        return network
    if selected and not (len(selected) == 3 and set(selected) <= set(range(n_channels))):
        raise ValueError(
            f"channels is {channels!r}, but images have {n_channels} channels. Expected three "
            f'numbers from 0 to {n_channels - 1}, "mean" or "pca".'
        )
    matrix, offset = torch.zeros(3, n_channels), torch.zeros(3)
    if channels == "pca":
        if images is not None:
            matrix, offset = _principal_channels(images)
    elif channels == "mean" or n_channels == 2:
        matrix += 1 / n_channels
    else:
        for row, channel in enumerate(selected or (0, 1, 2)):
            matrix[row, int(channel)] = 1
    selection = ChannelSelection(matrix, offset)
    network = FrozenNetwork(nn.Sequential(selection, network.network), network.name)
    network.in_channels = n_channels
    return network


def _principal_channels(images: Tensor) -> tuple[Tensor, Tensor]:
    """Find three components of the channels, scaled so that most of their values fill [0, 1]."""
    pixels = images.permute(0, 2, 3, 1).flatten(0, 2).numpy()
    pixels = pixels[:: max(len(pixels) // _SAMPLE, 1)]
    components = PCA(min(3, pixels.shape[1]), random_state=0).fit(pixels).components_
    low, high = np.percentile(pixels @ components.T, (1, 99), axis=0)
    scale = 1 / np.maximum(high - low, 1e-6)
    matrix, offset = np.zeros((3, pixels.shape[1])), np.full(3, 0.5)
    matrix[: len(components)] = components * scale[:, None]
    offset[: len(components)] = -low * scale
    return torch.from_numpy(matrix).float(), torch.from_numpy(offset).float()
