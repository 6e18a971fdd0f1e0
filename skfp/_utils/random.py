"""Random numbers of a fit, without a change to those of the user or of fits in other threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# torch draws initial weights from one generator for the whole process.
_LOCK = threading.RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from a seed, one thread at a time, and restore its generator."""
    with _LOCK, torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def training_generator(device: torch.device, *, copy: bool) -> torch.Generator:
    """Return torch's generator of a device, or a copy of it that other threads cannot draw from."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        shared = torch.cuda.default_generators[index]
    elif device.type == "cpu":
        shared = torch.default_generator
    else:
        return torch.Generator(device).manual_seed(torch.initial_seed())
    return torch.Generator(shared.device).set_state(shared.get_state()) if copy else shared
