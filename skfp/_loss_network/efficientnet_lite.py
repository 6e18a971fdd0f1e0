"""EfficientNet-Lite0, each BatchNorm folded into the convolution before it."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

# Of each stage: expansion, size of kernels, stride, channels, number of blocks.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
LAYERS = ("stem", *(f"stage{i}" for i, _ in enumerate(_STAGES, 1)), "head", "pooled")
N_FEATURES = 1280


def efficientnet_lite0(layer: str = "pooled") -> nn.Sequential:
    """Make the network up to one of `LAYERS`, without its classifier."""
    layers: dict[str, nn.Module] = {"stem": _convolution(3, 32, kernel=3, stride=2)}
    n_channels = 32
    for i, (expansion, kernel, stride, width, n_blocks) in enumerate(_STAGES, 1):
        blocks = nn.Sequential()
        for _ in range(n_blocks):
            blocks.append(_block(n_channels, width, expansion, kernel, stride))
            n_channels, stride = width, 1
        layers[f"stage{i}"] = blocks
    layers["head"] = _convolution(n_channels, N_FEATURES)
    layers["pooled"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    names = LAYERS[: LAYERS.index(layer) + 1]
    return nn.Sequential(OrderedDict((name, layers[name]) for name in names))


class SameConv2d(nn.Conv2d):
    """Convolution padded as in TensorFlow: to size / stride, the odd pixel at the end."""

    def forward(self, images: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        padding = []
        for size in (images.shape[-1], images.shape[-2]):
            missing = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            padding += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(images, padding))


class Residual(nn.Sequential):
    """Layers whose input is added to their output."""

    def forward(self, images: Tensor) -> Tensor:
        return images + super().forward(images)


def _block(n_channels: int, width: int, expansion: int, kernel: int, stride: int) -> nn.Sequential:
    """Make an inverted residual block: expand channels, filter each, combine them."""
    n_expanded = n_channels * expansion
    expand = [] if expansion == 1 else [_convolution(n_channels, n_expanded)]
    kind = Residual if stride == 1 and n_channels == width else nn.Sequential
    return kind(
        *expand,
        _convolution(n_expanded, n_expanded, kernel, stride, groups=n_expanded),
        nn.Conv2d(n_expanded, width, kernel_size=1),
    )


def _convolution(
    n_channels: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    convolution = nn.Conv2d if stride == 1 else SameConv2d
    padding = kernel // 2 if stride == 1 else 0
    return nn.Sequential(
        convolution(n_channels, width, kernel, stride, padding, groups=groups),
        nn.ReLU6(inplace=True),
    )
