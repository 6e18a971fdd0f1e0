"""Memory of activations, kept from one batch to the next."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Any

# Names from malloc.h. The values left behind are the greatest that glibc would choose by itself.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP_ALL = 2**31 - 1
_GREATEST_TRIM_THRESHOLD, _GREATEST_MMAP_THRESHOLD = 2**26, 2**25


@contextlib.contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep freed memory in the process for a while, and give it back afterwards.

    Every training step frees about a hundred megabytes of activations. glibc returns them to the
    system, which has to clear each page again when the next step asks for it. Other C libraries are
    left as they are.
    """
    libc: Any = ctypes.CDLL(None) if os.name == "posix" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(_M_MMAP_THRESHOLD, _GREATEST_MMAP_THRESHOLD)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_ALL)
    try:
        yield
    finally:
        libc.mallopt(_M_TRIM_THRESHOLD, _GREATEST_TRIM_THRESHOLD)
        libc.malloc_trim(0)
