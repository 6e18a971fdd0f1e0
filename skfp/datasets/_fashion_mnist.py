"""Fashion-MNIST: grey images of clothes, 28 by 28 pixels."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from ._common import PARAMETERS, importing_torchvision, load_published

_DESCR = """\
grey images of 28 x 28 pixels, of Zalando's articles in 10 classes.

Published at https://github.com/zalandoresearch/fashion-mnist

.. [1] H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
   Machine Learning Algorithms", arXiv 1708.07747, 2017.
"""
# Of the unpacked files: torchvision's checksums are of the packed ones, and Debian packs them anew.
_MD5 = {
    "train-images-idx3-ubyte.gz": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte.gz": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte.gz": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte.gz": "15d484375f8d13e6eb1aabb0c3f46965",
}
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@validate_params(
    {"subset": [StrOptions({"train", "test"})], **PARAMETERS},
    prefer_skip_nested_validation=True,
)
def fetch_fashion_mnist(
    *,
    subset: str = "train",
    data_home: str | os.PathLike | None = None,
    download: bool = True,
    verify: bool = True,
) -> Bunch:
    """Load Fashion-MNIST: 28 x 28 grey images of clothes.

    Debian and its relatives have the files in the package ``dataset-fashion-mnist``; once it is
    installed, nothing is downloaded. The images are returned as published: the estimators accept
    grey and small images.

    Parameters
    ----------
    subset : {"train", "test"}, default="train"
        The part: 60,000 and 10,000 images.
    data_home : str or path-like, default=None
        Either the folder that holds the files themselves (``train-images-idx3-ubyte.gz``,
        ``train-labels-idx1-ubyte.gz``, ...), or a home for data sets as in
        :func:`sklearn.datasets.get_data_home`, where they are kept in ``skfp/fashion_mnist``.
        With None, the files of the Debian package are found too.
    download : bool, default=True
        Whether to download missing files: 31 MB.
    verify : bool, default=True
        Whether to require the MD5 checksums of the published content. Turn this off for files of
        your own in the same format.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        images : ndarray of shape (n_images, 28, 28), uint8
            Grey images.
        target : ndarray of shape (n_images,), int64
            Classes 0 to 9.
        target_names : list of str
            Names of the classes.
        DESCR : str
            Description of the data set.

    Examples
    --------
    >>> from skfp.datasets import fetch_fashion_mnist
    >>> data = fetch_fashion_mnist(subset="test")  # doctest: +SKIP
    >>> data.images.shape  # doctest: +SKIP
    (10000, 28, 28)
    """
    with importing_torchvision():
        from torchvision.datasets import FashionMNIST

    prefix = {"train": "train", "test": "t10k"}[subset]
    checksums = {name: md5 for name, md5 in _MD5.items() if name.startswith(prefix)}

    def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
        images, labels = (_read_idx(folder / name) for name in checksums)
        if images.shape[1:] != (28, 28) or labels.ndim != 1:
            raise ValueError(f"images and labels of shapes {images.shape} and {labels.shape}")
        return images, labels.astype(np.int64)

    return load_published(
        "fashion_mnist",
        title="Fashion-MNIST",
        subset=subset,
        description=_DESCR,
        checksums=checksums,
        resources=[
            (FashionMNIST.mirrors[0] + name, md5)
            for name, md5 in FashionMNIST.resources
            if name in checksums
        ],
        read=read,
        target_names=FashionMNIST.classes,
        data_home=data_home,
        download=download,
        verify=verify,
        elsewhere=[_DEBIAN] if data_home is None else [],
        hint=" Debian's package dataset-fashion-mnist holds them too: install it, then leave "
        f"data_home out or set it to {_DEBIAN}.",
    )


def _read_idx(path: Path) -> np.ndarray:
    """Read bytes in the IDX format; torchvision reads unpacked files only."""
    with gzip.open(path) as file:
        content = file.read()
    n_axes = content[3]
    shape = np.frombuffer(content, ">u4", n_axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape).copy()
