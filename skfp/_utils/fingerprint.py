"""Digests of arrays and callables, which say whether what a computation depends on has changed."""

from __future__ import annotations

import functools
import hashlib
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from joblib.hashing import NumpyHasher

from skfp._data.sources import Source, as_source, row_chunks


def fingerprint(array: np.ndarray | Source) -> str:
    """SHA-256 of an array's type, shape and values, read in parts."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    rows = as_source(array if array.ndim else array[None])
    for shard in row_chunks(rows):
        digest.update(np.ascontiguousarray(rows[shard]).data)
    return digest.hexdigest()


def fingerprint_callable(function: Any) -> str:
    """SHA-256 of what a callable computes, as far as it holds that itself.

    Parameters
    ----------
    function : callable
        Of a function, its code counts and what that holds on to: defaults, variables of functions
        around it, the object of a bound method, the arguments of a partial. Of any other object,
        its class by name, and its state. What it calls is not looked into.

    Returns
    -------
    fingerprint : str of 64 hexadecimal digits
        The same in every process, wherever the function stands in its file.

    Raises
    ------
    TypeError
        If it holds something that has no values to compare, such as an open file.
    """
    try:
        return _Hasher("sha256").hash(function)
    except Exception as error:  # objects may fail in any way to say what they hold
        raise TypeError(
            f"Cannot tell whether {function!r} is the one of an earlier fit, as it holds something "
            f"that has no values to compare ({error}). Let it hold numbers, text, arrays and "
            "modules only."
        ) from error


class _Hasher(NumpyHasher):
    """joblib's hash, which knows functions by name and tensors by their address."""

    def __init__(self, hash_name: str) -> None:
        super().__init__(hash_name)
        self._functions: dict[int, list] = {}

    def save(self, obj: Any) -> None:
        if isinstance(obj, FunctionType):
            cells = [cell.cell_contents for cell in obj.__closure__ or ()]
            held = [_spell(obj.__code__), obj.__defaults__, obj.__kwdefaults__, cells]
            # The same list each time, as a function may hold itself.
            obj = self._functions.setdefault(id(obj), held)
        elif isinstance(obj, MethodType):
            obj = ["method", obj.__func__, obj.__self__]
        elif isinstance(obj, functools.partial):
            obj = ["partial", obj.func, obj.args, obj.keywords]
        elif isinstance(obj, torch.Tensor):
            values = obj.detach().cpu().contiguous().flatten().view(torch.uint8)
            obj = ["tensor", str(obj.dtype), tuple(obj.shape), fingerprint(values.numpy())]
        elif isinstance(obj, set | frozenset):
            obj = ["set", sorted(_Hasher("sha256").hash(item) for item in obj)]
        elif isinstance(obj, type):
            obj = f"{obj.__module__}.{obj.__qualname__}"
        elif isinstance(obj, ModuleType):
            obj = obj.__name__
        super().save(obj)


def _spell(constant: Any) -> str:
    """Write code, or a constant in it, so that it reads alike after lines have moved."""
    if isinstance(constant, CodeType):
        code = constant
        names = (code.co_names, code.co_varnames, code.co_freevars)
        return f"{code.co_code!r} {[_spell(one) for one in code.co_consts]} {names}"
    if isinstance(constant, frozenset):
        return f"frozenset {sorted(map(_spell, constant))}"  # in no order of its own
    return repr(constant)
