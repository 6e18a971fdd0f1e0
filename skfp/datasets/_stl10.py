"""STL-10: colour images of 96 by 96 pixels, most of them without a label."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from ._common import PARAMETERS, importing_torchvision, load_published

_DESCR = """\
colour images of 96 x 96 pixels, cut out of ImageNet. The train and test parts are of 10
classes, the unlabelled part has no labels.

Published at https://cs.stanford.edu/~acoates/stl10/

.. [1] A. Coates, H. Lee, A. Y. Ng, "An Analysis of Single-Layer Networks in Unsupervised Feature
   Learning", AISTATS 2011.
"""
_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


@validate_params(
    {"subset": [StrOptions({"unlabeled", "train", "test"})], **PARAMETERS},
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
        ...) or their ``stl10_binary``, or a home for data sets as in
        :func:`sklearn.datasets.get_data_home`, where they are kept in ``skfp/stl10``.
    download : bool, default=True
        Whether to download missing files: 2.6 GB for all parts together.
    verify : bool, default=True
        Whether to require the publisher's MD5 checksums. Turn this off for files of your own in
        the same format.

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

    Examples
    --------
    >>> from skfp.datasets import fetch_stl10
    >>> data = fetch_stl10(subset="train")  # doctest: +SKIP
    >>> data.images.shape  # doctest: +SKIP
    (5000, 96, 96, 3)
    """
    with importing_torchvision():
        from torchvision.datasets import STL10

    class Part(STL10):
        # torchvision's own check needs the files of all parts, and reads 3 GB.
        base_folder = ""

        def _check_integrity(self) -> bool:
            return True

    def read(folder: Path) -> tuple[np.ndarray, np.ndarray | None]:
        part = Part(folder, split=subset)
        target = None if subset == "unlabeled" else part.labels.astype(np.int64)
        return part.data.transpose(0, 2, 3, 1), target

    files = STL10.train_list + STL10.test_list
    return load_published(
        "stl10",
        title="STL-10",
        subset=subset,
        description=_DESCR,
        checksums={name: md5 for name, md5 in files if name.startswith(subset)},
        resources=[(STL10.url, STL10.tgz_md5)],
        read=read,
        target_names=_CLASSES,
        data_home=data_home,
        download=download,
        verify=verify,
        elsewhere=[STL10.base_folder],
    )
