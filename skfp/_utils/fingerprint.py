"""Digests of arrays and callables: they differ where a computation would give another result."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from joblib.hashing import NumpyHasher


def fingerprint(array: Any, row_slices: Iterable[slice] = (slice(None),)) -> str:
    """SHA-256 of an array's dtype, shape and values, read slice by slice."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    rows = array if array.ndim else array[None]
    for chunk in row_slices:
        digest.update(np.ascontiguousarray(rows[chunk]).data)
    return digest.hexdigest()


def fingerprint_callable(function: Any) -> str:
    """SHA-256 of what a callable computes, as far as it holds that itself.

    Of a function, this covers its code and what it holds: defaults, closure variables, the object
    of a bound method, the arguments of a partial. Of any other object, it covers the name of its
    class and its state. Functions that it calls are not covered. The digest is the same in every
    process, wherever the function stands in its file.

    Raises
    ------
    TypeError
        If the callable holds something without comparable values, such as an open file.
    """
    try:
        return _Hasher("sha256").hash(function)
    except Exception as error:  # objects may fail in any way to give their state
        raise TypeError(
            f"Cannot compare {function!r} with that of an earlier fit, as it holds something "
            f"without comparable values ({error}). Let it hold numbers, text, arrays and modules "
            "only."
        ) from error


class _Hasher(NumpyHasher):
    """joblib's hasher, which by itself knows functions by name and tensors by their address."""

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
        names = (constant.co_names, constant.co_varnames, constant.co_freevars)
        return f"{constant.co_code!r} {[_spell(one) for one in constant.co_consts]} {names}"
    if isinstance(constant, frozenset):
        return f"frozenset {sorted(map(_spell, constant))}"  # a set has no order
    return repr(constant)
