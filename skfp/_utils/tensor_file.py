"""Files of named tensors with a JSON header: safetensors, which holds no code, written whole.

Names of tensors are paths, "part.name"; values that JSON has no form for take one and come back.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
    # safetensors takes tensors that share no memory, as tied weights do, row by row.
    tensors = {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
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


def flatten_tensors(parts: Mapping[Any, Mapping[Any, torch.Tensor]]) -> Tensors:
    """Name the tensors of several parts "part.name"."""
    return {
        f"{group}.{name}": tensor
        for group, named in parts.items()
        for name, tensor in named.items()
    }


def nest_tensors(tensors: Tensors) -> defaultdict[str, Tensors]:
    """Take apart again what `join_parts` has joined; a part that is not there is empty."""
    parts: defaultdict[str, Tensors] = defaultdict(dict)
    for path, tensor in tensors.items():
        shard, _, name = path.partition(".")
        parts[shard][name] = tensor
    return parts


def to_jsonable(value: Any) -> Any:
    """Give a value the form that JSON has for it, or leave it as it is where there is none."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return str(value) if isinstance(value, torch.device) else value


def lists_to_tuples(value: Any) -> Any:
    """Make a tuple of a list, also in a dict: JSON has made lists of tuples."""
    if isinstance(value, dict):
        return {key: lists_to_tuples(one) for key, one in value.items()}
    return tuple(value) if isinstance(value, list) else value


def nan_to_none(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Write null for losses that are not finite, which JSON has no form for."""
    return [
        {
            key: None if isinstance(number, float) and not math.isfinite(number) else number
            for key, number in row.items()
        }
        for row in rows
    ]


def none_to_nan(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Read what `without_nan` has written."""
    return [
        {key: math.nan if number is None else number for key, number in row.items()} for row in rows
    ]
