"""Where data sets live on disk."""

from __future__ import annotations

import os
from pathlib import Path


def home_folder(data_home: str | os.PathLike | None) -> Path:
    """Return `data_home`, or the folder of :func:`sklearn.datasets.get_data_home`.

    Unlike scikit-learn's function it creates nothing, so that a home which
    cannot be written stays readable.
    """
    if data_home is None:
        data_home = os.environ.get("SCIKIT_LEARN_DATA", "~/scikit_learn_data")
    return Path(data_home).expanduser()


def own_folder(data_home: str | os.PathLike | None, name: str) -> Path:
    """Return the folder of the data set `name`, which need not exist yet."""
    return home_folder(data_home) / "skfp" / name
