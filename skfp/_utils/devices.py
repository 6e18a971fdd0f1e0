"""Where to compute."""

from __future__ import annotations

import warnings

import torch
from torch import nn


def choose_device(device: str | torch.device) -> torch.device:
    """Turn an estimator's `device` parameter into a device that is there.

    Parameters
    ----------
    device : str or torch.device
        "auto" is a CUDA device if there is one, else the CPU.

    Returns
    -------
    device : torch.device

    Raises
    ------
    ValueError
        If torch knows no such device, or there is none here.

    Examples
    --------
    >>> choose_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f'device is {device!r}. Expected "auto" or a torch device such as "cpu" or "cuda".'
        ) from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f'device is {device!r}, but torch finds no CUDA device here. Use "auto" or "cpu", or '
            "install a build of torch with CUDA and a driver for the GPU."
        )
    try:
        torch.empty(0, device=chosen)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f'device is {device!r}, which torch cannot use here. Use "auto" or "cpu". ({error})'
        ) from error
    return chosen


class OnDevice(nn.Module):
    """Move a batch to a device before a module sees it, in halves where it has no room for all.

    Parameters
    ----------
    module : nn.Module
        Moved to the device with its weights.
    device : torch.device
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.module = module.to(device)
        self.device = device

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Move the batch and pass it to the module."""
        try:
            return self.module(batch.to(self.device, non_blocking=True))
        except torch.OutOfMemoryError:
            if len(batch) < 2:
                raise
        # Past the handler, which would keep the tensors of the failed pass alive.
        torch.cuda.empty_cache()
        warnings.warn(
            f"The device is out of memory for {len(batch)} images at a time: they pass through in "
            "halves.",
            RuntimeWarning,
            stacklevel=2,
        )
        return torch.cat([self(half) for half in batch.tensor_split(2)])
