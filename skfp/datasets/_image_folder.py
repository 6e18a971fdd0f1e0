"""A folder of the user's own image files, resized once and kept as one mapped array."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Sequence
from itertools import compress
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image
from sklearn.utils import Bunch, gen_batches
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from .._image_loader import ImageLoader
from ._common import cache_folder

# Raised whenever the same files give other images, so that older caches are not read.
_VERSION = 1
_CHUNK = 1024
_NAMED = 3


@validate_params(
    {
        "path": [str, os.PathLike],
        "size": [Interval(Integral, 1, None, closed="left"), tuple, list],
        "mode": [StrOptions({"RGB", "L"})],
        "data_home": [str, os.PathLike, None],
        "n_jobs": [Integral, None],
    },
    prefer_skip_nested_validation=True,
)
def fetch_image_folder(
    path: str | os.PathLike,
    *,
    size: int | Sequence[int] = (64, 64),
    mode: str = "RGB",
    data_home: str | os.PathLike | None = None,
    n_jobs: int | None = None,
) -> Bunch:
    """Load image files, in a folder for each class, as one array.

    Files are read by an :class:`~skfp.ImageLoader` once, and kept as one file of pixels, which is
    mapped and not read into memory. They are read again when names, sizes or times of the files in
    the folder have changed.

    Parameters
    ----------
    path : str or path-like
        A folder with a folder of images for each class, which may have folders of its own. Images
        in `path` itself have no class. Other files are ignored, and so are hidden ones.
    size : int or tuple of int, default=(64, 64)
        (height, width) that images are stretched to; an int stands for a square.
    mode : {"RGB", "L"}, default="RGB"
        "RGB" reads colours, "L" shades of grey.
    data_home : str or path-like, default=None
        Home for data sets as in :func:`sklearn.datasets.get_data_home`; pixels are kept in its
        folder ``skfp/image_folders``.
    n_jobs : int or None, default=None
        Number of threads that read files.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        images : memmap of shape (n_images, height, width, 3) or (n_images, height, width), uint8
            All images that can be read; a warning names others.
        target : ndarray of shape (n_images,), int64, or None
            Classes in alphabetical order, -1 for images without; None if there are no classes.
        target_names : list of str
            Names of the classes.
        filenames : list of str
            Files of the images.
        DESCR : str
            Description of the data set.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skfp.datasets import fetch_image_folder
    >>> with TemporaryDirectory() as folder:
    ...     for colour in ("red", "blue"):
    ...         Path(folder, "photos", colour).mkdir(parents=True)
    ...         Image.new("RGB", (80, 60), colour).save(Path(folder, "photos", colour, "1.png"))
    ...     data = fetch_image_folder(Path(folder, "photos"), data_home=folder)
    >>> data.images.shape
    (2, 64, 64, 3)
    >>> [data.target_names[label] for label in data.target]
    ['blue', 'red']
    """
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {str(root)!r}.")
    files = _list_images(root)
    if not files:
        raise ValueError(
            f"There is no image in {str(root)!r}. Expected files that Pillow reads, in a folder "
            "for each class."
        )
    loader = ImageLoader(size, mode=mode, on_error="warn", n_jobs=n_jobs)
    loader.fit([root / file for file in files])  # finds the range of images of more than 8 bits
    # One cache for each use of a folder: that of earlier content is replaced.
    use = [_VERSION, str(root.resolve()), loader._height_and_width(), mode]
    cache = cache_folder(data_home, "image_folders") / f"{root.resolve().name}-{_digest(use)}"
    entry = cache / _digest([(str(file), *_size_and_time(root / file)) for file in files])
    if not entry.is_dir():
        _write(entry, root, files, loader)
    index = json.loads((entry / "index.json").read_text())
    names, unreadable = index["files"], index["unreadable"]
    if unreadable:
        more = [f"{len(unreadable) - _NAMED} more"] if len(unreadable) > _NAMED else []
        warnings.warn(
            f"{len(unreadable)} of {len(files)} images in {str(root)!r} cannot be read and are "
            f"left out: {', '.join([*unreadable[:_NAMED], *more])}.",
            UserWarning,
            stacklevel=2,
        )
    images = np.memmap(entry / "images.uint8", np.uint8, "r", shape=tuple(index["shape"]))
    folders = [Path(name).parts[:-1] for name in names]
    classes = sorted({parts[0] for parts in folders if parts})
    target = np.array([classes.index(parts[0]) if parts else -1 for parts in folders])
    heading = f"Images of {root.name}"
    return Bunch(
        images=images,
        target=target.astype(np.int64) if classes else None,
        target_names=classes,
        filenames=[str(root / name) for name in names],
        DESCR=f"{heading}\n{'-' * len(heading)}\n\n{len(images)} images in {len(classes)} classes.",
    )


def _list_images(root: Path) -> list[Path]:
    """List files with endings that Pillow reads, relative to the root, class by class."""
    Image.init()
    endings = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    files = (
        file.relative_to(root)
        for top in root.iterdir()
        for file in (top.rglob("*") if top.is_dir() else [top])
        if file.suffix.lower() in endings and file.is_file()
    )
    return sorted(file for file in files if not any(part.startswith(".") for part in file.parts))


def _write(entry: Path, root: Path, files: Sequence[Path], loader: ImageLoader) -> None:
    """Read all files, chunk by chunk, into a folder that appears when it is complete."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=entry.parent) as temporary:
        part = Path(temporary, "part")
        part.mkdir()
        readable: list[str] = []
        with (part / "images.uint8").open("wb") as pixels:
            for rows in gen_batches(len(files), _CHUNK):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # all files are named at the end
                    images = loader.transform([root / file for file in files[rows]])
                kept = np.ones(len(images), dtype=bool)
                kept[loader.unreadable_rows_] = False
                pixels.write(images[kept].tobytes())
                readable += [file.as_posix() for file in compress(files[rows], kept)]
        if not readable:
            raise ValueError(f"None of the {len(files)} images in {str(root)!r} can be read.")
        index: dict[str, Any] = {
            "shape": [len(readable), *images.shape[1:]],
            "files": readable,
            "unreadable": sorted({file.as_posix() for file in files} - {*readable}),
        }
        (part / "index.json").write_text(json.dumps(index))
        try:
            os.rename(part, entry)
        except OSError:
            if not entry.is_dir():  # not made by another process in the meantime
                raise
    for index_file in entry.parent.glob("*/index.json"):
        if index_file.parent != entry:
            shutil.rmtree(index_file.parent, ignore_errors=True)


def _size_and_time(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
