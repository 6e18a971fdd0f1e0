"""Memory of activations, kept from one training step to the next."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

# From malloc.h; the value after training is the greatest that glibc would choose by itself.
_M_TRIM_THRESHOLD = -1
_KEEP_ALL = 2**31 - 1
_GLIBC_GREATEST = 2**26


@contextlib.contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep freed memory in the process for a while, and give it back afterwards.

    Every step frees about a hundred megabytes of activations. glibc returns them to the system,
    which must clear each page again when the next step asks for it: a fifth of the time of a step
    on a CPU. Other C libraries are left as they are.
    """
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_ALL)
    try:
        yield
    finally:
        libc.mallopt(_M_TRIM_THRESHOLD, _GLIBC_GREATEST)
        libc.malloc_trim(0)
