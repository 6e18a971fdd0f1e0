"""What torchvision knows of published data sets: files, checksums, addresses, formats.

Importing torchvision takes seconds, so the public functions import this module when called:
workers that generate LunarLander frames do without it.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from torchvision.datasets import STL10, SVHN, FashionMNIST
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import download_url

# Of the unpacked files. torchvision's checksums are of the packed ones, which differ where the
# same content was packed again, as Debian did.
_FASHION_MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte.gz": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte.gz": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte.gz": "15d484375f8d13e6eb1aabb0c3f46965",
}


class Source(NamedTuple):
    """One part of a published data set."""

    checksums: dict[str, str]
    """MD5 of each file by its name; of a ``.gz`` file, that of its content."""
    download: Callable[[Path], None]
    """Write the files into a folder, or below it."""
    read: Callable[[Path], tuple[np.ndarray, np.ndarray | None]]
    """Return images (n, h, w, c) or (n, h, w), and labels from 0, of the files in a folder."""
    classes: list[str]


def stl10(subset: str) -> Source:
    """Return the source of STL-10; all parts are published in one archive."""

    class Reader(STL10):
        # torchvision would ask for the files of all parts, and read 3 GB to check them.
        base_folder = ""

        def _check_integrity(self) -> bool:
            return True

    def download(folder: Path) -> None:
        download_url(STL10.url, folder, STL10.filename, STL10.tgz_md5)
        archive = folder / STL10.filename
        with tarfile.open(archive) as members:
            for member in members:
                # Whatever path an archive names, only files of known names are written, and here.
                name = PurePosixPath(member.name).name
                packed = members.extractfile(member) if member.isfile() else None
                if packed is not None and name in dict(files):
                    with packed, Path(folder, name).open("wb") as file:
                        shutil.copyfileobj(packed, file)
        archive.unlink()

    def read(folder: Path) -> tuple[np.ndarray, np.ndarray | None]:
        stored = Reader(folder, split=subset)
        target = None if subset == "unlabeled" else stored.labels.astype(np.int64)
        return stored.data.transpose(0, 2, 3, 1), target

    files = STL10.train_list + STL10.test_list
    names = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    return Source(
        checksums={name: md5 for name, md5 in files if name.startswith(subset)},
        download=download,
        read=read,
        classes=names,
    )


def svhn(subset: str) -> Source:
    """Return the source of SVHN, one file a part."""
    url, name, md5 = SVHN.split_list[subset]

    class Reader(SVHN):
        def _check_integrity(self) -> bool:
            return True

    def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
        stored = Reader(folder, split=subset)
        if stored.data.shape[1:] != (3, 32, 32) or stored.data.dtype != np.uint8:
            raise ValueError("X is not of 32 x 32 x 3 x n bytes")
        return stored.data.transpose(0, 2, 3, 1), stored.labels.reshape(-1)

    return Source(
        checksums={name: md5},
        download=lambda folder: download_url(url, folder, name, md5),
        read=read,
        classes=[str(digit) for digit in range(10)],
    )


def fashion_mnist(subset: str) -> Source:
    """Return the source of Fashion-MNIST, two packed files a part."""
    part = {"train": "train", "test": "t10k"}[subset]
    images, labels = f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz"

    def download(folder: Path) -> None:
        for name, md5 in FashionMNIST.resources:
            if name in (images, labels):
                download_url(FashionMNIST.mirrors[0] + name, folder, name, md5)

    def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
        with TemporaryDirectory() as unpacked:
            for name in (images, labels):
                with gzip.open(folder / name) as packed, Path(unpacked, name).open("wb") as file:
                    shutil.copyfileobj(packed, file)
            return (
                read_image_file(f"{unpacked}/{images}").numpy(),
                read_label_file(f"{unpacked}/{labels}").numpy(),
            )

    return Source(
        checksums={name: _FASHION_MNIST_MD5[name] for name in (images, labels)},
        download=download,
        read=read,
        classes=list(FashionMNIST.classes),
    )
