"""Files of named tensors with a JSON header: safetensors, which holds no code."""

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
    """Write a file whole, or leave the one that is there as it is.

    Raises
    ------
    OSError
        If the file cannot be written: no space, no permission.
    """
    # safetensors takes only tensors that share no memory, as tied weights do, and are contiguous.
    tensors = {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    metadata = {"skfp": json.dumps(header, allow_nan=False)}
    # Written beside its place and moved there: at no moment is there half a file.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        temporary = Path(folder) / path.name
        temporary.touch()  # with the permissions of any new file: safetensors grants its owner only
        mode = temporary.stat().st_mode
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            raise OSError(f"Cannot write {str(path)!r}: {error}") from error
        temporary.chmod(mode)
        os.replace(temporary, path)


def read_tensors(path: Path) -> tuple[Tensors, Any]:
    """Read tensors and header (None if there is none); nothing in the file is run.

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
        raise ValueError(f"it is not a complete safetensors file ({error})") from error


def flatten_tensors(groups: Mapping[Any, Mapping[Any, torch.Tensor]]) -> Tensors:
    """Name the tensors of several groups "group.name"."""
    return {
        f"{group}.{name}": tensor
        for group, named in groups.items()
        for name, tensor in named.items()
    }


def nest_tensors(tensors: Tensors) -> defaultdict[str, Tensors]:
    """Undo `flatten_tensors`; a group that is not there is empty."""
    groups: defaultdict[str, Tensors] = defaultdict(dict)
    for path, tensor in tensors.items():
        group, _, name = path.partition(".")
        groups[group][name] = tensor
    return groups


def to_jsonable(value: Any) -> Any:
    """Turn arrays, paths and devices into what JSON can hold; other values stay as they are."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return str(value) if isinstance(value, torch.device) else value


def lists_to_tuples(value: Any) -> Any:
    """Make a tuple of a list, also in a dict: JSON makes lists of tuples."""
    if isinstance(value, dict):
        return {key: lists_to_tuples(one) for key, one in value.items()}
    return tuple(value) if isinstance(value, list) else value


def nan_to_none(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Replace losses that are not finite by None: JSON cannot hold them."""
    return [
        {
            key: None if isinstance(number, float) and not math.isfinite(number) else number
            for key, number in row.items()
        }
        for row in rows
    ]


def none_to_nan(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Undo `nan_to_none`."""
    return [
        {key: math.nan if number is None else number for key, number in row.items()} for row in rows
    ]
