"""The table of loss networks that are offered."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from .description import LossNetwork, empty_loss_network
from .frozen import FrozenNetwork
from .offered import OFFERED
from .pretrained import EMBEDDED_LAYERS

_IMAGE_SIZE = (64, 64)
_BATCH = 16
_LICENCE = "BSD-3-Clause"


class Table(list):
    """A list of rows, each a dict with the same keys, that prints as a table.

    Examples
    --------
    >>> Table([{"name": "alexnet", "features": 9408}, {"name": "vgg16", "features": 32768}])
    name     features
    alexnet     9,408
    vgg16      32,768
    """

    def __repr__(self) -> str:
        rows = [dict.fromkeys(self[0]), *self] if self else []
        texts = [[_text(row[key]) if i else key for key in row] for i, row in enumerate(rows)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        is_number = [isinstance(value, int | float) for value in self[0].values()] if self else []
        return "\n".join(
            "  ".join(
                f"{text:{'>' if number else '<'}{width}}"
                for text, width, number in zip(line, widths, is_number, strict=True)
            ).rstrip()
            for line in texts
        )


def _text(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, float | int) else str(value)


def loss_networks(*, measure: bool = True) -> Table:
    """List the networks that are known to do well as loss networks.

    Any other model of torchvision or timm, and any module or function, can be one too: see
    :class:`skfp.LossNetwork`.

    Parameters
    ----------
    measure : bool, default=True
        Whether to measure speed, which takes some seconds.

    Returns
    -------
    table : list of dict
        Prints as a table; `pandas.DataFrame(table)` makes one of it. A row per layer, with the
        keys

        - "network" and "layer": the parameters of `LossNetwork`;
        - "known as": what the literature calls the layer;
        - "default": "yes" where it is taken if no layer is named;
        - "features": how many there are of an image of 64 by 64 pixels;
        - "weights": "embedded" in this package, or "download" from torchvision;
        - "licence": of the weights;
        - "images/s": images of 64 by 64 pixels per second that the network looks at, here and
          now on the CPU with torch's number of threads. Left out unless measured.

    Notes
    -----
    The licence is torchvision's. Its weights were trained on ImageNet, whose images have terms of
    their own.

    Examples
    --------
    >>> import skfp
    >>> table = skfp.loss_networks(measure=False)
    >>> table[1]["network"], table[1]["known as"], table[1]["features"], table[1]["weights"]
    ('alexnet', 'relu2', 9408, 'embedded')
    """
    rows = Table()
    for name, offered in OFFERED.items():
        for layer, known_as in offered.nodes.items():
            network = empty_loss_network(LossNetwork(name, layer=layer))
            row: dict[str, Any] = {
                "network": name,
                "layer": layer,
                "known as": known_as,
                "default": "yes" if layer == offered.default else "",
                "features": network.n_features(_IMAGE_SIZE),
                "weights": "embedded" if _is_embedded(name, layer) else "download",
                "licence": _LICENCE,
            }
            if measure:
                row["images/s"] = _images_per_second(network)
            rows.append(row)
    return rows


def _is_embedded(name: str, layer: str) -> bool:
    return name == "alexnet" and layer in EMBEDDED_LAYERS


@torch.inference_mode()
def _images_per_second(network: FrozenNetwork) -> float:
    """Time a network without its weights, as their values do not matter."""
    network = network.to_empty(device="cpu").to(memory_format=torch.channels_last)
    for tensor in network.state_dict().values():
        tensor.fill_(0.5)
    images = torch.rand(_BATCH, 3, *_IMAGE_SIZE).to(memory_format=torch.channels_last)
    seconds = math.inf
    for _ in range(3):
        start = time.perf_counter()
        network(images)
        seconds = min(seconds, time.perf_counter() - start)
    return _BATCH / seconds
