"""Several processes that train one encoder together, each on its shard of every batch.

`accelerate launch` and `torchrun` start a script several times, and `accelerate.Accelerator()`
makes these processes a group of torch. In a process without a group, everything here does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


def world_size() -> int:
    """Return the number of processes in the group, 1 if there is no group."""
    in_group = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if in_group else 1


def is_main() -> bool:
    """Tell whether this process prints and writes for the group."""
    return _rank() == 0


def shard(batch: Any) -> Any:
    """Return this process's rows of a batch that all processes have; there may be none."""
    return batch[_rank() :: world_size()]


def broadcast(value: Any) -> Any:
    """Return the main process's value in all processes."""
    if world_size() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def all_reduce(numbers: Sequence[float], device: Any) -> list[float]:
    """Sum each number over all processes."""
    if world_size() == 1:
        return list(numbers)
    return _sum(torch.tensor(numbers, dtype=torch.float64, device=device)).tolist()


def compute_sharded(function: Callable) -> Callable:
    """Let each process compute its shard of the rows of a batch, and return all rows in all."""
    if world_size() == 1:
        return function

    def compute(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) < world_size():
            return function(batch)
        rows = function(shard(batch))
        gathered = rows.new_zeros(len(batch), *rows.shape[1:])
        shard(gathered)[:] = rows
        return _sum(gathered)

    return compute


def data_parallel(module: nn.Module) -> Callable:
    """Return the forward of a module that averages gradients over processes in each step.

    BatchNorm normalises each shard by itself, as usual with torch's DistributedDataParallel; its
    running statistics are those of the main process.
    """
    return DistributedDataParallel(module).__call__


def synchronise_buffers(module: nn.Module) -> None:
    """Give all processes the main one's buffers, such as running statistics."""
    for buffer in module.buffers():
        distributed.broadcast(buffer, src=0)


def weight_gradient(loss: torch.Tensor, n_images: int) -> None:
    """Make the mean of the processes' gradients that of the whole batch: shards differ in size."""
    if world_size() > 1:
        (n_all,) = all_reduce([n_images], loss.device)
        weight = n_images * world_size() / n_all
        loss.register_hook(lambda gradient: gradient * weight)


def _sum(values: torch.Tensor) -> torch.Tensor:
    distributed.all_reduce(values)
    return values


def _rank() -> int:
    return distributed.get_rank() if world_size() > 1 else 0
