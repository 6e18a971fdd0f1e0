"""Weights of pretrained networks: files of tensors, read without running code, and checked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.hub import download_url_to_file


def fill(
    network: nn.Module, file: Path, name: str, rename: Callable[[str], str] = lambda name: name
) -> None:
    """Load the tensors of a network from a safetensors file or a state dict.

    The file may hold more than the network needs; `rename` maps its names to the network's.
    """
    needed = {
        key: tensor
        for key, tensor in network.state_dict().items()
        if not key.startswith("_tensor_constant")  # of a traced graph; no file holds it
    }
    shapes = {key: tuple(tensor.shape) for key, tensor in needed.items()}
    expected = "expected a safetensors file or a state dict with the tensors " + _enumerate(
        [f"{key} of shape {shape}" for key, shape in shapes.items()]
    )
    if not file.is_file():
        raise ValueError(f"There is no weights file {str(file)!r} for {name!r}: {expected}.")
    try:
        tensors = {rename(key): tensor for key, tensor in _read(file).items()}
    except Exception as error:  # other files fail in many ways
        raise ValueError(
            f"Cannot read the weights file {str(file)!r} for {name!r} ({error}): {expected}."
        ) from error
    found = {key: tuple(getattr(tensor, "shape", ())) for key, tensor in tensors.items()}
    wrong = [
        f"{key} is {found.get(key, 'missing')}"
        for key, shape in shapes.items()
        if found.get(key) != shape
    ]
    if wrong:
        raise ValueError(
            f"Wrong weights for {name!r} in {str(file)!r} ({_enumerate(wrong)}): {expected}."
        )
    state = {}
    for key, empty in needed.items():
        tensor = tensors[key]
        if empty.is_floating_point() and not (
            tensor.is_floating_point() and tensor.isfinite().all()
        ):
            raise ValueError(
                f"Wrong weights for {name!r} in {str(file)!r}: {key} must hold finite "
                f"floating-point numbers, got NaN, infinity or {tensor.dtype}."
            )
        # A copy, as the tensor may be a view of the file.
        state[key] = tensor.to(empty.dtype, copy=True)
    network.load_state_dict(state, strict=False, assign=True)


def _read(file: Path) -> dict[str, torch.Tensor]:
    if file.suffix == ".safetensors":
        return load_file(file)
    state: Any = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise RuntimeError(f"it holds a {type(state).__name__} in place of a state dict")
    return state


def _enumerate(items: list[str], most: int = 4) -> str:
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return ", ".join(items[:most] + more)


def download(url: str, name: str) -> Path:
    """Find published weights in torch's cache, or download them to it; check their SHA-256."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(url)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            download_url_to_file(url, str(file), file.stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"The weights of {name!r} are not there and could not be downloaded ({error}). "
                f"Get {url} elsewhere and put it where torch looks for it, as {str(file)!r}, or "
                f"name a file of your own: LossNetwork({name!r}, weights=...)."
            ) from error
    return file
