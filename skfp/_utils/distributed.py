"""Several processes that train one encoder together, each on its part of every batch.

`accelerate launch` and `torchrun` start a script several times, and `accelerate.Accelerator()` in
it makes these processes a group of torch. In a group, `fit` trains one encoder: everything here
does nothing in a process that is alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel


def count() -> int:
    """Return the number of processes in the group, 1 where there is no group."""
    together = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


def is_main() -> bool:
    """Tell whether this process is the one that speaks and writes for all."""
    return _rank() == 0


def shard(batch: Any) -> Any:
    """Take this process's part of a batch, which may be empty.

    Parameters
    ----------
    batch : ndarray or Tensor of shape (b, ...)
        The same in every process.

    Returns
    -------
    part : ndarray or Tensor
    """
    return batch[_rank() :: count()]


def broadcast(value: Any) -> Any:
    """Return the main process's value in all of them."""
    if count() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def all_reduce(numbers: Sequence[float], device: Any) -> list[float]:
    """Add numbers up over all processes, one by one; `device` is where the group sends from."""
    if count() == 1:
        return list(numbers)
    return _sum(torch.tensor(numbers, dtype=torch.float64, device=device)).tolist()


def sharded(function: Callable) -> Callable:
    """Let each process do its part of the work on a batch, and have the whole result.

    Parameters
    ----------
    function : callable
        Maps a batch (b, ...) to rows (b, n_values), each image by itself.

    Returns
    -------
    divided : callable
        Does the same, where all processes call it with the same batch.
    """
    if count() == 1:
        return function

    def sharded(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) < count():
            return function(batch)
        rows = function(shard(batch))
        whole = rows.new_zeros(len(batch), *rows.shape[1:])
        shard(whole)[:] = rows
        return _sum(whole)

    return sharded


def data_parallel(module: nn.Module) -> Callable:
    """Give all processes the main one's weights, and the mean of their gradients in each step.

    Parameters
    ----------
    module : nn.Module
        Not wrapped, so that its weights keep their names. Its BatchNorm layers normalise by the
        whole batch until `end_data_parallel`.

    Returns
    -------
    forward : callable
        What to call in place of the module, in a group.

    Raises
    ------
    ValueError
        If the module has BatchNorm layers of another kind, which would see a part of each batch.
    """
    layers = [layer for layer in module.modules() if _can_be_shared(layer)]
    for name, layer in module.named_modules():
        by_itself = isinstance(layer, nn.SyncBatchNorm)
        if isinstance(layer, _BatchNorm) and not (by_itself or layer in layers):
            raise ValueError(
                f"Several processes cannot train {name}, which is {layer}: each would normalise by "
                "its part of a batch. Expected BatchNorm2d with its default affine=True, "
                "track_running_stats=True and a momentum, or a layer that sees one image at a "
                "time, such as GroupNorm."
            )
    for layer in layers:
        layer.__class__ = SharedBatchNorm2d  # the two have the same state
    return DistributedDataParallel(module).__call__


def end_data_parallel(module: nn.Module) -> None:
    """Leave nothing in a module that needs a group."""
    layers: list[Any] = [one for one in module.modules() if type(one) is SharedBatchNorm2d]
    for layer in layers:
        layer.__class__ = nn.BatchNorm2d


def _can_be_shared(layer: nn.Module) -> bool:
    # Not a subclass, which may do more than that.
    return (
        type(layer) is nn.BatchNorm2d
        and layer.affine
        and layer.track_running_stats
        and layer.momentum is not None
    )


def weigh_gradient(loss: torch.Tensor, n_images: int) -> None:
    """Let the mean of the processes' gradients be that of the whole batch.

    Parameters
    ----------
    loss : Tensor of shape ()
        The mean over this process's part of a batch; its value stays as it is.
    n_images : int
        Size of the part.
    """
    if count() > 1:
        (n_all,) = all_reduce([n_images], loss.device)
        weight = n_images * count() / n_all
        loss.register_hook(lambda gradient: gradient * weight)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the whole batch, of which each process has a part.

    torch's `SyncBatchNorm` does that on GPUs only. The gradient passes through the statistics as
    it does in one process.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor
    momentum: float

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Normalise feature maps (b, channels, height, width)."""
        if not self.training:
            return super().forward(maps)
        axes = (0, 2, 3)
        (n_values,) = all_reduce([maps.numel() / self.num_features], maps.device)
        wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
        mean = _Sum.apply(wide.sum(axes)) / n_values
        centred = wide - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum(axes)) / n_values
        with torch.no_grad():
            unbiased = variance * n_values / (n_values - 1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(maps.dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes, each of which uses it: so the gradient is summed as well."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        return _sum(values.clone())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _sum(gradient.clone())


def _sum(values: torch.Tensor) -> torch.Tensor:
    distributed.all_reduce(values)
    return values


def _rank() -> int:
    return distributed.get_rank() if count() > 1 else 0
