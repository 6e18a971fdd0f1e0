"""Embed images with ONNX Runtime, without torch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils import gen_batches, metadata_routing

from ._images.formats import ImageFormat
from ._images.matching import read_like
from ._onnx_file import OnnxFile
from ._utils.out import check_out
from ._utils.torch_types import to_numpy

# A processor's cache holds the activations of so many images.
_BATCH_SIZE = 32


class OnnxEncoder(TransformerMixin, BaseEstimator):
    """A fitted encoder that embeds without torch.

    It reads a file that `to_onnx` has written, takes whatever `transform` of the fitted estimator
    takes, and gives the same embedding up to rounding, less than 1e-5. It needs NumPy,
    scikit-learn, Pillow and ONNX Runtime: ``pip install 'skfp[serve]'``.

    Parameters
    ----------
    path : str or path-like
        The file. It is read once, when it is first needed.
    n_jobs : int or None, default=None
        Number of threads. None is all processors, or the number in the environment variable
        OMP_NUM_THREADS, which joblib sets in its worker processes.

    Attributes
    ----------
    image_shape_ : tuple of int
        Shape of an image in fit; height and width are 0 if sizes were mixed.
    n_features_in_ : int
        Number of values of an image in fit.
    feature_names_in_ : ndarray of str
        Names of the columns of flattened images, if they had any in fit.

    See Also
    --------
    FeaturePredictionEncoder : Trains encoders; its `to_onnx` writes the file.
    ImageLoader : Reads image files, also without torch.

    Notes
    -----
    A pickle holds the file, and no code but this class's. ONNX files hold no code either.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from skfp import OnnxEncoder, PixelAutoencoder
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    >>> encoder = PixelAutoencoder(z=2, max_epochs=1).fit(images)
    >>> with TemporaryDirectory() as folder:
    ...     encoder.to_onnx(Path(folder, "encoder.onnx"))
    ...     embedding = OnnxEncoder(Path(folder, "encoder.onnx")).transform(images)
    >>> np.allclose(embedding, encoder.transform(images), rtol=0, atol=1e-5)
    True
    """

    # `transform` takes `out` in the call; meta-estimators never route it.
    __metadata_request__transform: ClassVar[dict[str, str]] = {"out": metadata_routing.UNUSED}
    _parameter_constraints: ClassVar[dict[str, list]] = {
        "path": [str, os.PathLike],
        "n_jobs": [Integral, None],
    }

    def __init__(self, path: str | os.PathLike[str], *, n_jobs: int | None = None) -> None:
        self.path = path
        self.n_jobs = n_jobs

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Read the file; nothing is learned.

        Parameters
        ----------
        X, y : Ignored
            Not used, present by convention.

        Returns
        -------
        self : object

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ImportError
            If onnxruntime is not installed.
        ValueError
            If the file is no ONNX file, or `to_onnx` has not written it.
        """
        self._file = OnnxFile.read(self.path, self.n_jobs)
        self._read_for = self.path, self.n_jobs
        return self

    def transform(self, X: Any, *, out: Any = None) -> np.ndarray:
        """Embed images.

        Parameters
        ----------
        X : array-like
            Images as `transform` of the fitted estimator takes them, read batch by batch.
        out : ndarray of shape (n, z), dtype float32, default=None
            Where to write the embedding, batch by batch: an array, a :class:`numpy.memmap`, or an
            HDF5 or zarr array. None makes an array in memory.

        Returns
        -------
        embedding : ndarray of shape (n, z), dtype float32
            `out` if it is given.

        Raises
        ------
        FileNotFoundError, ImportError
            As in `fit`, if the file was not read before.
        ValueError
            As in `fit`, or if the images are of another size, channel count or value range than
            those that the encoder was fitted on.
        TypeError
            If X does not hold images, or `out` is not an array.
        """
        file = self._loaded()
        fitted = file.notes.format
        array, found = read_like(X, fitted, self)
        shape = (len(array), len(file.notes.feature_names_out))
        rows = np.empty(shape, np.float32) if out is None else check_out(out, shape)
        for batch, parts in read_batches(array, found, fitted, file.takes_uint8):
            rows[batch] = np.concatenate([file.run(part) for part in parts])
        return rows

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Name the numbers of the embedding.

        Parameters
        ----------
        input_features : Ignored
            Not used, present by convention.

        Returns
        -------
        names : ndarray of str of shape (z,)
            Those of the fitted estimator.
        """
        return np.asarray(self._loaded().notes.feature_names_out, dtype=object)

    @property
    def image_shape_(self) -> tuple[int, ...]:
        return self._loaded().notes.format.image_shape

    @property
    def n_features_in_(self) -> int:
        return math.prod(self._loaded().notes.format.shape)

    @property
    def feature_names_in_(self) -> np.ndarray:
        names = self._loaded().notes.feature_names_in
        if names is None:
            raise AttributeError(f"This {type(self).__name__} has no feature_names_in_.")
        return np.asarray(names, dtype=object)

    def _loaded(self) -> OnnxFile:
        if getattr(self, "_read_for", None) != (self.path, self.n_jobs):
            self.fit()
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        self._loaded()  # a pickle works without the file
        return super().__getstate__()

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def read_batches(
    array: Any, found: ImageFormat, fitted: ImageFormat, takes_uint8: bool
) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """Read images as a graph takes them: a batch is one array, or one for each of mixed sizes."""
    for batch in gen_batches(len(array), _BATCH_SIZE):
        items = array[batch]
        parts = [item[None] for item in items] if isinstance(items, list) else [to_numpy(items)]
        yield batch, [_convert(part, found, fitted, takes_uint8) for part in parts]


def _convert(
    items: np.ndarray, found: ImageFormat, fitted: ImageFormat, takes_uint8: bool
) -> np.ndarray:
    """Bring images to the layout, channels and range of those in fit.

    uint8 stays as it is where the encoder takes it so; all others become float32.
    """
    images = items.reshape(-1, *(items.shape[1:] if found.takes_any_size else found.image_shape))
    if (found.layout, found.alpha) != (fitted.layout, fitted.alpha):
        images = _LAST[found.layout](images)
        if fitted.alpha and not found.alpha:  # opaque
            top = np.full_like(images[..., :1], found.value_range[1])
            images = np.concatenate([images, top], axis=-1)
        images = _FIRST[fitted.layout](images)
    if not fitted.takes_any_size:
        images = images.reshape(-1, *fitted.shape)
    (low, high), (fitted_low, fitted_high) = found.value_range, fitted.stored_range
    if (low, high) == (fitted_low, fitted_high):
        is_ready = takes_uint8 and images.dtype == np.uint8
        return images if is_ready else images.astype(np.float32)
    unit = (images.astype(np.float64) - low) / ((high - low) or 1.0)
    return (unit * (fitted_high - fitted_low) + fitted_low).astype(np.float32)


# From and to channels last.
_LAST: dict[str, Any] = {
    "hwc": lambda images: images,
    "chw": lambda images: np.moveaxis(images, 1, -1),
    "hw": lambda images: images[..., None],
}
_FIRST: dict[str, Any] = {
    "hwc": lambda images: images,
    "chw": lambda images: np.moveaxis(images, -1, 1),
    "hw": lambda images: images[..., 0],
}
