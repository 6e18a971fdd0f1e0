"""CIFAR-10: colour images of 32 by 32 pixels, in the binary format."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from ._common import PARAMETERS, load_published

_DESCR = """\
colour images of 32 x 32 pixels, in 10 classes.

Published at https://www.cs.toronto.edu/~kriz/cifar.html

.. [1] A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""
# torchvision reads pickles, so the binary files have no checksums there.
_ARCHIVE = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
)
_SHA1 = {
    "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
}
_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


@validate_params(
    {"subset": [StrOptions({"train", "test"})], **PARAMETERS},
    prefer_skip_nested_validation=True,
)
def fetch_cifar10(
    *,
    subset: str = "train",
    data_home: str | os.PathLike | None = None,
    download: bool = True,
    verify: bool = True,
) -> Bunch:
    """Load CIFAR-10: 32 x 32 colour images of animals and vehicles.

    Parameters
    ----------
    subset : {"train", "test"}, default="train"
        The part: 50,000 and 10,000 images.
    data_home : str or path-like, default=None
        Either the folder that holds the files themselves (``data_batch_1.bin``, ...,
        ``test_batch.bin``) or their ``cifar-10-batches-bin``, or a home for data sets as in
        :func:`sklearn.datasets.get_data_home`, where they are kept in ``skfp/cifar10``.
    download : bool, default=True
        Whether to download missing files: 170 MB.
    verify : bool, default=True
        Whether to require all files, with the SHA-1 checksums of the published ones. Turn this
        off for files of your own in the same format, or to read only some training batches.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        images : ndarray of shape (n_images, 32, 32, 3), uint8
            RGB images; a view of the files' content, channels first in memory.
        target : ndarray of shape (n_images,), int64
            Classes 0 to 9.
        target_names : list of str
            Names of the classes.
        DESCR : str
            Description of the data set.

    Examples
    --------
    >>> from skfp.datasets import fetch_cifar10
    >>> data = fetch_cifar10(subset="test")  # doctest: +SKIP
    >>> data.images.shape  # doctest: +SKIP
    (10000, 32, 32, 3)
    """
    prefix = {"train": "data_batch", "test": "test_batch"}[subset]
    checksums = {name: sha1 for name, sha1 in _SHA1.items() if name.startswith(prefix)}

    def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
        files = [folder / name for name in checksums if (folder / name).is_file()]
        records = np.concatenate([_read_batch(file) for file in files])
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return images, records[:, 0].astype(np.int64)

    return load_published(
        "cifar10",
        title="CIFAR-10",
        subset=subset,
        description=_DESCR,
        checksums=checksums,
        resources=[_ARCHIVE],
        read=read,
        target_names=_CLASSES,
        data_home=data_home,
        download=download,
        verify=verify,
        elsewhere=["cifar-10-batches-bin"],
        enough=all if verify else any,
    )


def _read_batch(file: Path) -> np.ndarray:
    """Read records of a label and the planes of red, green and blue."""
    content = np.fromfile(file, np.uint8)
    if content.size == 0:
        raise ValueError(f"{file.name} is empty")
    return content.reshape(-1, 1 + 3 * 32 * 32)
