"""Files of named tensors with a JSON header: safetensors, which holds no code, written whole."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]


def write_tensors(path: Path, tensors: Tensors, header: dict[str, Any]) -> None:
    """Write a file, or leave the one that is there as it is.

    Parameters
    ----------
    path : Path
        In a folder that is there.
    tensors : dict of str to Tensor
    header : dict
        Plain values that JSON has a form for.

    Raises
    ------
    OSError
        If the file cannot be written: no space, no permission.
    """
    # safetensors takes tensors that share no memory, row by row.
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    metadata = {"skfp": json.dumps(header, allow_nan=False)}
    # Written beside its place and moved there: at no moment is there half a file.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        temporary = Path(folder) / path.name
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            raise OSError(f"Cannot write {str(path)!r}: {error}") from error
        os.replace(temporary, path)


def read_tensors(path: Path) -> tuple[Tensors, Any]:
    """Read what `write_tensors` has written, without running anything in the file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    tensors : dict of str to Tensor
    header : object
        None where the file has none.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("skfp", "null"))
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (OSError, RecursionError, SafetensorError, ValueError) as error:
        raise ValueError(f"it is no whole safetensors file ({error})") from error
