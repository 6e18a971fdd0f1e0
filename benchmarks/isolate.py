"""Measure in a process of its own: what ran before leaves it neither memory nor warm caches."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any


def in_new_process(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call a function in a fresh Python process, and return its result."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes, on Linux.

    getrusage would count the memory of the parent from before the process was started too.
    """
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak) * 1024
