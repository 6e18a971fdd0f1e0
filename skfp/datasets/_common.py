"""What the published data sets share: their folder, their download, and checks of their files."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from sklearn.utils import Bunch

# For `validate_params`.
PARAMETERS: dict[str, list] = {
    "data_home": [str, os.PathLike, None],
    "download": ["boolean"],
    "verify": ["boolean"],
}


def cache_folder(data_home: str | os.PathLike | None, name: str) -> Path:
    """Return the folder of a data set in `data_home`, as scikit-learn finds it.

    Unlike `sklearn.datasets.get_data_home` this creates nothing, so a read-only home can be read.
    """
    if data_home is None:
        data_home = os.environ.get("SCIKIT_LEARN_DATA", "~/scikit_learn_data")
    return Path(data_home).expanduser() / "skfp" / name


def load_published(
    name: str,
    *,
    title: str,
    subset: str,
    description: str,
    checksums: dict[str, str],
    resources: Sequence[tuple[str, str]],
    read: Callable[[Path], tuple[np.ndarray, np.ndarray | None]],
    target_names: Sequence[str],
    data_home: str | os.PathLike | None,
    download: bool,
    verify: bool,
    elsewhere: Iterable[str | Path] = (),
    enough: Callable[[Iterable[bool]], bool] = all,
    hint: str = "",
) -> Bunch:
    """Find or download the files of a data set, check them, and read them.

    `checksums` are of the files, unpacked where they end in .gz; `resources` are addresses and MD5
    checksums of what is downloaded. Files are also looked for in the home itself and in the
    folders `elsewhere`, relative to it. `enough` decides by which of them exist.
    """
    own = cache_folder(data_home, name)
    home = own.parents[1]
    for folder in (own, home, *(home / other for other in elsewhere)):
        if enough((folder / file).is_file() for file in checksums):
            break
    else:
        folder = own
        advice = f"Put {' and '.join(checksums)}, as published, into {own}.{hint}"
        if not download:
            raise FileNotFoundError(
                f"{title} is not there and download=False. {advice} Or set download=True."
            )
        try:
            _download(resources, own)
        except (OSError, RuntimeError, tarfile.TarError) as error:
            raise FileNotFoundError(
                f"{title} is not there and could not be downloaded ({error}). {advice}"
            ) from error
    if verify:
        for file, checksum in checksums.items():
            _verify(folder / file, checksum)
    try:
        images, target = read(folder)
        _check_content(images, target, len(target_names))
    except MemoryError:
        raise
    except Exception as error:  # readers fail in many ways on other content
        raise ValueError(
            f"{' and '.join(checksums)} in {folder} cannot be read ({error}): truncated, altered, "
            "or not of the published format. Remove and fetch again."
        ) from error
    heading = f"{title}, {subset} part"
    return Bunch(
        images=images,
        target=target,
        target_names=list(target_names),
        DESCR=f"{heading}\n{'-' * len(heading)}\n\n{len(images)} {description}",
    )


@contextlib.contextmanager
def importing_torchvision() -> Iterator[None]:
    """Say which extra brings torchvision, if it is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError("This data set needs torchvision: pip install 'skfp[train]'.") from error


def _download(resources: Sequence[tuple[str, str]], folder: Path) -> None:
    """Download and unpack into a folder, where files appear only when all are complete."""
    with importing_torchvision():
        from torchvision.datasets.utils import download_url

    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as part:
        for url, md5 in resources:
            file = Path(part, url.rpartition("/")[2])
            download_url(url, part, file.name, md5)
            if file.name.endswith(".tar.gz"):
                # The filter refuses paths outside of the folder.
                shutil.unpack_archive(file, part, filter="data")
                file.unlink()
        for file in Path(part).rglob("*"):
            if file.is_file() and not file.is_symlink():
                os.replace(file, folder / file.name)


def _verify(path: Path, expected: str) -> None:
    """Refuse a file whose content, unpacked, has another checksum: MD5, or SHA-1 if longer."""
    algorithm = "md5" if len(expected) == 32 else "sha1"
    new_hash = functools.partial(hashlib.new, algorithm, usedforsecurity=False)
    unpack: Any = gzip.open if path.suffix == ".gz" else open
    with unpack(path, "rb") as content:
        digest = hashlib.file_digest(content, new_hash).hexdigest()
    if digest != expected:
        raise ValueError(
            f"{path} is truncated or altered: the {algorithm.upper()} checksum of its content is "
            f"{digest}, of the published content {expected}. Remove it and fetch it again, or pass "
            "verify=False if it is a file of your own in the same format."
        )


def _check_content(images: np.ndarray, target: np.ndarray | None, n_classes: int) -> None:
    """Refuse content that a reader accepts though it is truncated or of another data set."""
    if len(images) == 0:
        raise ValueError("there is no image")
    if target is not None and len(target) != len(images):
        raise ValueError(f"{len(images)} images but {len(target)} labels")
    if target is not None and (target.min() < 0 or target.max() >= n_classes):
        raise ValueError(f"labels outside of {n_classes} classes")
