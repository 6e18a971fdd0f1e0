"""Published data sets: found or downloaded, checked, and read through torchvision."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from ._home import home_folder, own_folder

if TYPE_CHECKING:
    from ._torchvision import Source

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
    from . import _torchvision

    source = _torchvision.stl10(subset)
    images, target = _load("STL-10", "stl10", source, data_home, download, verify)
    return Bunch(
        images=images,
        target=target,
        target_names=source.classes,
        DESCR=_STL10_DESCR.format(
            subset=subset,
            n_images=len(images),
            labels="They have no labels." if target is None else "They are of 10 classes.",
        ),
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
    from . import _torchvision

    source = _torchvision.svhn(subset)
    images, target = _load("SVHN", "svhn", source, data_home, download, verify)
    return Bunch(
        images=images,
        target=target,
        target_names=source.classes,
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
    from . import _torchvision

    source = _torchvision.fashion_mnist(subset)
    images, target = _load(
        "Fashion-MNIST",
        "fashion_mnist",
        source,
        data_home,
        download,
        verify,
        elsewhere=[_DEBIAN_FASHION_MNIST] if data_home is None else [],
        hint=" Debian's package dataset-fashion-mnist holds them too: install it, then leave "
        f"data_home out or set it to {_DEBIAN_FASHION_MNIST}.",
    )
    return Bunch(
        images=images,
        target=target,
        target_names=source.classes,
        DESCR=_FASHION_MNIST_DESCR.format(subset=subset, n_images=len(images)),
    )


def _load(
    title: str,
    name: str,
    source: Source,
    data_home: str | os.PathLike | None,
    download: bool,
    verify: bool,
    *,
    elsewhere: Sequence[Path] = (),
    hint: str = "",
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the images and labels of `source`, after finding or downloading its files."""
    own = own_folder(data_home, name)
    for folder in (own, home_folder(data_home), *elsewhere):
        if all((folder / file).is_file() for file in source.checksums):
            break
    else:
        folder = own
        help_yourself = f"Put {' and '.join(source.checksums)}, as published, into {own}.{hint}"
        if not download:
            raise FileNotFoundError(
                f"{title} is not there and download=False. {help_yourself} Or set download=True."
            )
        try:
            _download(source, own)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"{title} is not there and could not be downloaded ({error}). {help_yourself}"
            ) from error

    try:
        if verify:
            for file, md5 in source.checksums.items():
                _check_md5(folder / file, md5)
        images, target = source.read(folder)
        _check_content(images, target)
    except (_AlteredFileError, MemoryError):
        raise
    except Exception as error:  # readers fail in many ways on files that are not what they seem
        raise ValueError(
            f"{' and '.join(source.checksums)} in {folder} cannot be read ({error}): truncated, "
            "altered, or not of the published format. Remove and fetch again."
        ) from error
    return images, target


def _download(source: Source, folder: Path) -> None:
    """Download into `folder`, where files appear only when they are complete."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as part:
        source.download(Path(part))
        for path in Path(part).rglob("*"):
            if path.is_file():
                os.replace(path, folder / path.name)


class _AlteredFileError(ValueError):
    """A file has not the content that its publisher gave it."""


def _check_md5(path: Path, expected: str) -> None:
    """Refuse a file whose content, unpacked, has another checksum."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != expected:
        raise _AlteredFileError(
            f"{path} is truncated or altered: the MD5 checksum of its content is {found}, of the "
            f"published content {expected}. Remove it and fetch it again, or pass verify=False if "
            "it is a file of your own in the same format."
        )


def _check_content(images: np.ndarray, target: np.ndarray | None) -> None:
    """Refuse what a cut or foreign file looks like to a reader that does not notice."""
    if len(images) == 0:
        raise ValueError("there is no image")
    if target is not None and len(target) != len(images):
        raise ValueError(f"{len(images)} images but {len(target)} labels")
    if target is not None and (target.min() < 0 or target.max() > 9):
        raise ValueError("labels outside of 10 classes")
