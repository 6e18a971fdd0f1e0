"""The output of trained networks on the CPU, as fast as it can be had."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from sklearn.utils import gen_batches
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

# A processor's cache holds the activations of a deep network for so many images of 128 pixels.
BATCH_SIZE = 8
# Deep networks have more convolutions and linear maps than this; the paper's AlexNet has two.
_N_SHALLOW = 8
# To prepare ONNX Runtime takes as long as it saves with so many images.
_MIN_IMAGES = 3000
_TOLERANCE = 1e-4


class Inference:
    """Compute what a network makes of many images of one size on the CPU.

    Shallow networks take batches as they are. Deep ones take them in small parts, and ONNX Runtime
    computes these if there are many images and its output for the first part equals torch's.
    Without `n_images`, that is not tried: it gains little with a small network.
    """

    def __init__(self, network: nn.Module, n_images: int = 0, batch_size: int = BATCH_SIZE) -> None:
        self.batch_size = batch_size
        self.deep = is_deep(network)
        self.network: Any = _fold_batch_norm(network) if self.deep else network
        self.try_onnx = self.deep and n_images >= _MIN_IMAGES
        self.compute: Callable[[Tensor], Tensor] = self.network

    def __call__(self, images: Tensor) -> Tensor:
        if not self.deep:
            return self.network(images)
        size = self.batch_size
        parts = [images[rows] for rows in gen_batches(len(images), size)]
        if self.try_onnx and len(parts[0]) == size:
            self.compute, self.try_onnx = _fastest(self.network, parts[0]), False
        # The ONNX graph is for parts of exactly this size.
        return torch.cat([(self.compute if len(p) == size else self.network)(p) for p in parts])


def is_deep(network: nn.Module) -> bool:
    """Whether a network has so many layers that a small batch of images fills the cache."""
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return len(layers) > _N_SHALLOW


def _fold_batch_norm(network: nn.Module) -> nn.Module:
    """Copy a network, each BatchNorm of its graphs folded into the convolution before it."""
    folded = copy.deepcopy(network)
    for parent in [*folded.modules()]:
        for name, child in parent.named_children():
            if isinstance(child, fx.GraphModule):
                setattr(parent, name, fuse(child, inplace=True, no_trace=True))
    return folded.to(memory_format=torch.channels_last)


def _fastest(network: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the network in ONNX Runtime if that gives equal output, else the network."""
    try:
        compute = _in_onnx_runtime(network, images)
        equal = torch.allclose(compute(images), network(images), rtol=_TOLERANCE, atol=_TOLERANCE)
    except Exception:  # not installed, or the exporter cannot translate a layer
        return network
    return compute if equal else network


def _in_onnx_runtime(network: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    file = io.BytesIO()
    disabled = logging.root.manager.disable
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            program: Any = torch.onnx.export(network, (images.clone(),), dynamo=True, verbose=False)
            program.save(file)
        finally:
            logging.disable(disabled)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    (name,) = (given.name for given in session.get_inputs())
    return lambda images: torch.from_numpy(
        session.run(None, {name: images.contiguous().numpy()})[0]
    )
