"""Where to compute."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def choose_device(device: str | torch.device) -> torch.device:
    """Turn an estimator's `device` parameter into a device that torch can use here.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
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


def on_device(module: Module, device: torch.device) -> Module:
    """Return a module on a device: itself if it is on the CPU and stays there, else a copy."""
    return module if device.type == "cpu" else copy.deepcopy(module).to(device)
