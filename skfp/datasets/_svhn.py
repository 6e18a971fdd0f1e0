"""Street View House Numbers: colour images of digits, 32 by 32 pixels."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from ._common import PARAMETERS, importing_torchvision, load_published

_DESCR = """\
colour images of 32 x 32 pixels, each centred on one digit of a house number. Targets
are the digits 0 to 9.

Published at http://ufldl.stanford.edu/housenumbers/

.. [1] Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu, A. Y. Ng, "Reading Digits in Natural
   Images with Unsupervised Feature Learning", NIPS Workshop on Deep Learning and Unsupervised
   Feature Learning 2011.
"""


@validate_params(
    {"subset": [StrOptions({"extra", "train", "test"})], **PARAMETERS},
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
        Either the folder that holds the file itself (``extra_32x32.mat``, ``train_32x32.mat`` or
        ``test_32x32.mat``), or a home for data sets as in
        :func:`sklearn.datasets.get_data_home`, where it is kept in ``skfp/svhn``.
    download : bool, default=True
        Whether to download a missing file: 1.3 GB, 180 MB or 64 MB.
    verify : bool, default=True
        Whether to require the publisher's MD5 checksum. Turn this off for a file of your own in
        the same format.

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

    Examples
    --------
    >>> from skfp.datasets import fetch_svhn
    >>> data = fetch_svhn(subset="test")  # doctest: +SKIP
    >>> data.images.shape  # doctest: +SKIP
    (26032, 32, 32, 3)
    """
    with importing_torchvision():
        from torchvision.datasets import SVHN

    class Part(SVHN):
        def _check_integrity(self) -> bool:
            return True

    def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
        part = Part(folder, split=subset)
        if part.data.shape[1:] != (3, 32, 32) or part.data.dtype != np.uint8:
            raise ValueError("X is not of 32 x 32 x 3 x n bytes")
        return part.data.transpose(0, 2, 3, 1), part.labels.reshape(-1)

    url, name, md5 = SVHN.split_list[subset]
    return load_published(
        "svhn",
        title="SVHN",
        subset=subset,
        description=_DESCR,
        checksums={name: md5},
        resources=[(url, md5)],
        read=read,
        target_names=[str(digit) for digit in range(10)],
        data_home=data_home,
        download=download,
        verify=verify,
    )
