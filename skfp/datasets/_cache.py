"""Arrays kept on disk: written atomically, checked when read, never pickled."""

from __future__ import annotations

import os
import uuid
import warnings
import zipfile
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]


def load(path: Path, names: tuple[str, ...]) -> Arrays | None:
    """Return the arrays `names` of the file at `path`, None without a sound file.

    Every byte counts towards the CRC-32 that the npz format keeps of each
    array, so a damaged file is noticed; a warning then says so.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        warnings.warn(
            f"The cached data in {path} are damaged ({error}); they are generated again.",
            stacklevel=3,
        )
        return None


def store(path: Path, arrays: Arrays) -> None:
    """Write `arrays` to `path` in one step; where that cannot be done, warn."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("xb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(
            f"The data could not be cached in {path.parent} ({error}) and will be generated "
            "again next time. Pass a data_home that can be written.",
            stacklevel=3,
        )
