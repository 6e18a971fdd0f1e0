"""Published data sets, read and downloaded by torchvision."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params
from torchvision.datasets import STL10, SVHN, FashionMNIST
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import download_and_extract_archive, download_url

from ._home import home_folder, own_folder

_STL10_CLASSES = (
    "airplane",
    "bird",
    "car",
    "cat",
    "deer",
    "dog",
    "horse",
    "monkey",
    "ship",
    "truck",
)

_STL10_DESCR = """\
STL-10, {subset} part
---------------------

{n_images} colour images of 96 x 96 pixels, cut out of ImageNet. {labels}

Published at https://cs.stanford.edu/~acoates/stl10/

.. [1] A. Coates, H. Lee, A. Y. Ng, "An Analysis of Single-Layer Networks in Unsupervised Feature
   Learning", AISTATS 2011.
"""

_SVHN_DESCR = """\
Street View House Numbers, {subset} part
-----------------------------------------

{n_images} colour images of 32 x 32 pixels, each centred on one digit of a house number. Targets
are the digits 0 to 9.

Published at http://ufldl.stanford.edu/housenumbers/

.. [1] Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu, A. Y. Ng, "Reading Digits in Natural
   Images with Unsupervised Feature Learning", NIPS Workshop on Deep Learning and Unsupervised
   Feature Learning 2011.
"""

_FASHION_MNIST_DESCR = """\
Fashion-MNIST, {subset} part
----------------------------

{n_images} grey images of 28 x 28 pixels, of Zalando's articles in 10 classes.

Published at https://github.com/zalandoresearch/fashion-mnist

.. [1] H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
   Machine Learning Algorithms", arXiv 1708.07747, 2017.
"""

# MD5 of the unpacked files. torchvision's are of the packed ones, which differ where the same
# content was packed again, as Debian did.
_FASHION_MNIST_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}

# Installed by Debian's package dataset-fashion-mnist.
_DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

_PARAMETERS = {
    "data_home": [str, os.PathLike, None],
    "download": ["boolean"],
    "verify": ["boolean"],
}


@validate_params(
    {"subset": [StrOptions({"unlabeled", "train", "test"})], **_PARAMETERS},
    prefer_skip_nested_validation=True,
)
def fetch_stl10(
    *,
    subset: str = "unlabeled",
    data_home: str | os.PathLike | None = None,
    download: bool = True,
    verify: bool = True,
) -> Bunch:
    """Load STL-10: 96 x 96 colour images, most of them without a label.

    In the paper the unlabelled part trains the autoencoders, the train part the probes.

    Parameters
    ----------
    subset : {"unlabeled", "train", "test"}, default="unlabeled"
        The part: 100,000, 5,000 and 8,000 images.
    data_home : str or path-like, default=None
        Either the folder that holds the files themselves (``train_X.bin``, ``train_y.bin``,
        ...), or a home for data sets as in :func:`sklearn.datasets.get_data_home`, where they
        are kept in ``skfp/stl10``.
    download : bool, default=True
        Whether missing files are downloaded: 2.6 GB for all parts together.
    verify : bool, default=True
        Whether files must have the publisher's MD5 checksums. Turn this off for files of your
        own in the same format.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        images : ndarray of shape (n_images, 96, 96, 3), uint8
            RGB images; a view of the file's content, columns first in memory.
        target : ndarray of shape (n_images,), int64, or None
            Classes 0 to 9; None in the unlabelled part.
        target_names : list of str
            Names of the classes.
        DESCR : str
            Description of the data set.

    Raises
    ------
    FileNotFoundError
        If files are missing and were not, or could not be, downloaded.
    ValueError
        If a file is truncated or altered, or a parameter is wrong.

    Examples
    --------
    Two images of one's own in the same format:

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from skfp.datasets import fetch_stl10
    >>> with TemporaryDirectory() as folder:
    ...     np.zeros((2, 3, 96, 96), np.uint8).tofile(Path(folder) / "unlabeled_X.bin")
    ...     data = fetch_stl10(data_home=folder, verify=False)
    >>> data.images.shape
    (2, 96, 96, 3)
    """
    checksums = {
        name: md5 for name, md5 in STL10.train_list + STL10.test_list if name.startswith(subset)
    }
    folder = _folder_with(
        "STL-10", "stl10", list(checksums), data_home, _download_stl10 if download else None
    )
    if verify:
        for name, md5 in checksums.items():
            _check_md5(folder / name, md5)
    with _refusing_unreadable(folder, checksums):
        stored = _VerifiedSTL10(folder, split=subset)
        target = None if subset == "unlabeled" else stored.labels.astype(np.int64)
        images = stored.data.transpose(0, 2, 3, 1)
        _check_content(images, target)
    labels = "They have no labels." if target is None else "They are of 10 classes."
    return Bunch(
        images=images,
        target=target,
        target_names=list(_STL10_CLASSES),
        DESCR=_STL10_DESCR.format(subset=subset, n_images=len(images), labels=labels),
    )


@validate_params(
    {"subset": [StrOptions({"extra", "train", "test"})], **_PARAMETERS},
    prefer_skip_nested_validation=True,
)
def fetch_svhn(
    *,
    subset: str = "extra",
    data_home: str | os.PathLike | None = None,
    download: bool = True,
    verify: bool = True,
) -> Bunch:
    """Load Street View House Numbers: 32 x 32 colour images of digits.

    In the paper the extra part trains the autoencoders, the train part the probes.

    Parameters
    ----------
    subset : {"extra", "train", "test"}, default="extra"
        The part: 531,131, 73,257 and 26,032 images. The extra part takes 1.6 GB of memory.
    data_home : str or path-like, default=None
        Either the folder that holds the file itself (``extra_32x32.mat``,
        ``train_32x32.mat`` or ``test_32x32.mat``), or a home for data sets as in
        :func:`sklearn.datasets.get_data_home`, where it is kept in ``skfp/svhn``.
    download : bool, default=True
        Whether a missing file is downloaded: 1.3 GB, 180 MB or 64 MB.
    verify : bool, default=True
        Whether the file must have the publisher's MD5 checksum. Turn this off for a file of
        your own in the same format.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        images : ndarray of shape (n_images, 32, 32, 3), uint8
            RGB images; a view of the file's content, columns first in memory.
        target : ndarray of shape (n_images,), int64
            The digits, 0 to 9.
        target_names : list of str
            Names of the classes.
        DESCR : str
            Description of the data set.

    Raises
    ------
    FileNotFoundError
        If the file is missing and was not, or could not be, downloaded.
    ValueError
        If the file is truncated or altered, or a parameter is wrong.

    Examples
    --------
    Two images of one's own in the same format, where 10 is the label of the digit 0:

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from scipy.io import savemat
    >>> from skfp.datasets import fetch_svhn
    >>> content = {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[7], [10]], np.uint8)}
    >>> with TemporaryDirectory() as folder:
    ...     savemat(Path(folder) / "test_32x32.mat", content)
    ...     data = fetch_svhn(subset="test", data_home=folder, verify=False)
    >>> data.images.shape, data.target
    ((2, 32, 32, 3), array([7, 0]))
    """
    url, name, md5 = SVHN.split_list[subset]

    def from_publisher(folder: Path) -> None:
        download_url(url, folder, name, md5)

    folder = _folder_with("SVHN", "svhn", [name], data_home, from_publisher if download else None)
    if verify:
        _check_md5(folder / name, md5)
    with _refusing_unreadable(folder, [name]):
        stored = _VerifiedSVHN(folder, split=subset)
        images = stored.data.transpose(0, 2, 3, 1)
        target = stored.labels.reshape(-1)
        if images.shape[1:] != (32, 32, 3) or images.dtype != np.uint8:
            raise ValueError(f"X holds {images.dtype} images of shape {images.shape[1:]}")
        _check_content(images, target)
    return Bunch(
        images=images,
        target=target,
        target_names=[str(digit) for digit in range(10)],
        DESCR=_SVHN_DESCR.format(subset=subset, n_images=len(images)),
    )


@validate_params(
    {"subset": [StrOptions({"train", "test"})], **_PARAMETERS},
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
    installed, nothing is downloaded. The images are returned as published; the estimators of
    skfp make RGB of grey images, and tile small ones, themselves.

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
        Whether missing files are downloaded: 31 MB.
    verify : bool, default=True
        Whether the unpacked files must have the MD5 checksums of the published ones. Turn this
        off for files of your own in the same format.

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

    Raises
    ------
    FileNotFoundError
        If files are missing and were not, or could not be, downloaded.
    ValueError
        If a file is truncated or altered, or a parameter is wrong.

    Examples
    --------
    Two images of one's own in the same format:

    >>> import gzip
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from skfp.datasets import fetch_fashion_mnist
    >>> images = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28]) + bytes(2 * 28 * 28)
    >>> labels = bytes([0, 0, 8, 1, 0, 0, 0, 2]) + bytes([9, 4])
    >>> with TemporaryDirectory() as folder:
    ...     for name, content in ("images-idx3", images), ("labels-idx1", labels):
    ...         path = Path(folder) / f"t10k-{name}-ubyte.gz"
    ...         _ = path.write_bytes(gzip.compress(content))
    ...     data = fetch_fashion_mnist(subset="test", data_home=folder, verify=False)
    >>> data.images.shape, data.target
    ((2, 28, 28), array([9, 4]))
    """
    prefix = "train" if subset == "train" else "t10k"
    resources = {name: md5 for name, md5 in FashionMNIST.resources if name.startswith(prefix)}

    def from_publisher(folder: Path) -> None:
        for name, md5 in resources.items():
            download_url(FashionMNIST.mirrors[0] + name, folder, name, md5)

    folder = _folder_with(
        "Fashion-MNIST",
        "fashion_mnist",
        list(resources),
        data_home,
        from_publisher if download else None,
        elsewhere=[_DEBIAN_FASHION_MNIST] if data_home is None else [],
        hint=" Debian's package dataset-fashion-mnist holds them too; with it installed, leave "
        f"data_home out or set it to {_DEBIAN_FASHION_MNIST}.",
    )
    with TemporaryDirectory() as unpacked, _refusing_unreadable(folder, resources):
        for name in resources:
            content = Path(unpacked) / name.removesuffix(".gz")
            with gzip.open(folder / name) as packed, content.open("wb") as file:
                shutil.copyfileobj(packed, file)
            if verify:
                _check_md5(content, _FASHION_MNIST_MD5[content.name], path=folder / name)
        images = read_image_file(f"{unpacked}/{prefix}-images-idx3-ubyte").numpy()
        target = read_label_file(f"{unpacked}/{prefix}-labels-idx1-ubyte").numpy()
        _check_content(images, target)
    return Bunch(
        images=images,
        target=target,
        target_names=list(FashionMNIST.classes),
        DESCR=_FASHION_MNIST_DESCR.format(subset=subset, n_images=len(images)),
    )


class _VerifiedSTL10(STL10):
    """torchvision's reader of files that lie in `root` itself and were checked before.

    torchvision would ask for the files of all parts, and read 2.7 GB more to check them.
    """

    base_folder = ""

    def _check_integrity(self) -> bool:
        return True


class _VerifiedSVHN(SVHN):
    """torchvision's reader of a file that was checked before."""

    def _check_integrity(self) -> bool:
        return True


def _download_stl10(folder: Path) -> None:
    download_and_extract_archive(
        STL10.url, folder, filename=STL10.filename, md5=STL10.tgz_md5, remove_finished=True
    )


def _folder_with(
    title: str,
    name: str,
    files: Sequence[str],
    data_home: str | os.PathLike | None,
    download: Callable[[Path], None] | None,
    *,
    elsewhere: Sequence[Path] = (),
    hint: str = "",
) -> Path:
    """Return a folder that holds all of `files`, after downloading them if need be.

    A download appears in the data set's own folder only when it is complete.
    """
    own = own_folder(data_home, name)
    for folder in (own, home_folder(data_home), *elsewhere):
        if all((folder / file).is_file() for file in files):
            return folder
    help_yourself = f"Put {' and '.join(files)}, as published, into {own}.{hint}"
    if download is None:
        raise FileNotFoundError(
            f"{title} is not there and download=False. {help_yourself} Or set download=True."
        )
    try:
        own.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=own) as part:
            download(Path(part))
            for path in Path(part).rglob("*"):
                if path.is_file():
                    os.replace(path, own / path.name)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"{title} is not there and could not be downloaded ({error}). {help_yourself}"
        ) from error
    return own


class _AlteredFileError(ValueError):
    """A file has not the content that its publisher gave it."""


def _check_md5(content: Path, expected: str, path: Path | None = None) -> None:
    """Refuse `content`, which came from the file `path`, with another checksum."""
    with content.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != expected:
        raise _AlteredFileError(
            f"{path or content} is truncated or altered: its content has the MD5 checksum "
            f"{found}, the published file has {expected}. Remove it and fetch it again, or pass "
            "verify=False if it is a file of your own in the same format."
        )


@contextmanager
def _refusing_unreadable(folder: Path, files: Sequence[str]) -> Iterator[None]:
    """Name the files in the error when their content makes no sense to a reader."""
    try:
        yield
    except (_AlteredFileError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"{' and '.join(files)} in {folder} cannot be read: truncated, altered, or not in the "
            f"published format ({error}). Remove and fetch again."
        ) from error


def _check_content(images: np.ndarray, target: np.ndarray | None) -> None:
    if len(images) == 0:
        raise ValueError("there is no image")
    if target is None:
        return
    if len(target) != len(images):
        raise ValueError(f"{len(images)} images but {len(target)} labels")
    if target.min() < 0 or target.max() > 9:
        raise ValueError("labels of more than 10 classes")
