"""Image files of any size and kind as one array of images."""

from __future__ import annotations

import contextlib
import operator
import os
import reprlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from joblib import Parallel, delayed
from PIL import Image, ImageColor
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils import gen_batches
from sklearn.utils._param_validation import Interval, StrOptions

from ._images.image_files import deep_pixels, load
from ._images.pil import advice
from ._images.sources import as_cells, encoded_image
from ._images.value_range import check_value_range
from ._utils.sampling import evenly_spaced
from ._utils.torch_types import is_torch

_CHUNK = 64
_NAMED = 3
_SAMPLE = 256
# The greatest values of pixels of usual bit depths.
_USUAL_TOPS = (1, 255, 1023, 4095, 16383, 65535)


class ImageLoader(  # type: ignore[call-arg]
    TransformerMixin, BaseEstimator, auto_wrap_output_keys=None
):
    """Read image files into one array that the encoders take.

    Files are read with Pillow, turned upright as their EXIF orientation says, converted to `mode`
    and stretched to `size`. The loader needs no fit, unless images of more than 8 bits are to be
    read with the range of a training set.

    Parameters
    ----------
    size : int, tuple of int or None, default=(64, 64)
        (height, width) of the images in pixels; an int stands for a square. The aspect ratio is
        not kept. None takes images as they are, and any that is not of the size of the first counts
        as unreadable.
    mode : {"RGB", "L"}, default="RGB"
        "RGB" reads colours, "L" shades of grey.
    value_range : "auto" or tuple of float, default="auto"
        (low, high), the values that are read as black and white; others are clipped. "auto" is 0
        to 255 for 8-bit images. For all others (16-bit, 32-bit and float pixels) it is found by
        `fit` from at most 256 of the images: 0 to 1 if they fit into that, else 0 to the least of
        1023, 4095, 16383 and 65535 that holds them, else their own range. Without `fit`, each
        `transform` finds it anew, and warns.
    background : str, default="white"
        Colour that shows through transparent pixels, as Pillow names colours.
    on_error : {"raise", "warn"}, default="raise"
        What to do if an image is unreadable: missing, broken or not an image. "raise" stops there;
        "warn" puts a black image in its place and warns at the end. `unreadable_rows_` holds all
        such rows.
    n_jobs : int or None, default=None
        Number of threads that read. None means 1, or what `joblib.parallel_config` says, and -1
        all processors.

    Attributes
    ----------
    value_range_ : tuple of float
        The range found by fit; missing if all images have 8 bits.
    unreadable_rows_ : ndarray of int
        Rows of the last transform that could not be read, to drop their labels. Only with
        ``on_error="warn"``.

    See Also
    --------
    FeaturePredictionEncoder : Turns the images into embeddings.

    Notes
    -----
    - Of an animation the first frame is read.
    - Resizing is antialiased bicubic. JPEG files of at least four times `size` are decoded at a
      half, a quarter or an eighth of their size first, never under twice `size`, which is several
      times faster.
    - Pillow refuses files of far too many pixels (see `PIL.Image.MAX_IMAGE_PIXELS`), which might
      be decompression bombs; they count as broken.
    - HEIC files are read if pillow-heif is installed.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skfp import ImageLoader
    >>> with TemporaryDirectory() as folder:
    ...     paths = [Path(folder, "red.png"), Path(folder, "blue.png")]
    ...     Image.new("RGB", (40, 30), "red").save(paths[0])
    ...     Image.new("RGB", (80, 80), "blue").save(paths[1])
    ...     images = ImageLoader(size=(32, 64)).transform(paths)
    >>> images.shape
    (2, 32, 64, 3)
    >>> images[:, 0, 0]
    array([[255,   0,   0],
           [  0,   0, 255]], dtype=uint8)
    """

    _parameter_constraints: ClassVar[dict[str, list]] = {
        "size": [Interval(Integral, 1, None, closed="left"), tuple, list, None],
        "mode": [StrOptions({"RGB", "L"})],
        "value_range": [StrOptions({"auto"}), tuple, list],
        "background": [str],
        "on_error": [StrOptions({"raise", "warn"})],
        "n_jobs": [Integral, None],
    }

    value_range_: tuple[float, float]

    def __init__(
        self,
        size: int | Sequence[int] | None = (64, 64),
        *,
        mode: str = "RGB",
        value_range: str | Sequence[float] = "auto",
        background: str = "white",
        on_error: str = "raise",
        n_jobs: int | None = None,
    ) -> None:
        self.size = size
        self.mode = mode
        self.value_range = value_range
        self.background = background
        self.on_error = on_error
        self.n_jobs = n_jobs

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the value range of images of more than 8 bits.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Images as in `transform`; at most 256 of them are looked at.
        y : Ignored
            Not used, present by convention.

        Returns
        -------
        self : object
        """
        self._height_and_width()
        if hasattr(self, "value_range_"):
            del self.value_range_
        found = self._find_range(_as_items(X))
        if found is not None:
            self.value_range_ = found
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Read images.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths (str or path-like), PIL images, arrays or tensors of shape (height, width) or
            (height, width, channels) with 1, 3 or 4 (RGBA) channels, bytes of image files, open
            files, cells {"bytes", "path"}, or tuples that begin with one of these, also mixed: a
            list, an array, a series, a data frame of one column, a torch or Hugging Face data set,
            or anything else that yields them.

        Returns
        -------
        images : ndarray of shape (n, height, width, 3) or, in mode "L", (n, height, width)
            uint8.

        Raises
        ------
        ValueError
            If X is empty or has several columns, if an image is unreadable and `on_error` is
            "raise", or if none is readable and `size` is None.
        """
        self._validate_params()
        size = self._height_and_width()
        ImageColor.getrgb(self.background)  # refuses unknown colours
        items = _as_items(X)
        height, width = size or self._size_of_first(items)
        channels = (3,) if self.mode == "RGB" else ()
        images = np.zeros((len(items), height, width, *channels), dtype=np.uint8)
        read = self._reader(items)
        failures: list[tuple[int, Exception | None]] = []
        # Threads by requirement: processes would each fill a copy of `images`.
        Parallel(n_jobs=self.n_jobs, require="sharedmem")(
            delayed(self._fill)(images, items, read, rows, failures)
            for rows in gen_batches(len(items), _CHUNK)
        )
        failures.sort(key=operator.itemgetter(0))
        if self.on_error == "warn":
            self.unreadable_rows_ = np.array([row for row, _ in failures], dtype=np.intp)
        if failures:
            if self.on_error == "raise":
                row, error = failures[0]
                raise ValueError(_refusal(row, items[row], error)) from error
            names = [f"row {row} ({_name(items[row])})" for row, _ in failures[:_NAMED]]
            if len(failures) > _NAMED:
                names.append(f"{len(failures) - _NAMED} more (see unreadable_rows_)")
            warnings.warn(
                f"{len(failures)} of {len(items)} images cannot be read and are black: "
                f'{", ".join(names)}. Pass on_error="raise" for the reason.',
                UserWarning,
                stacklevel=2,
            )
        return images

    def get_feature_names_out(self, input_features: Any = None) -> None:
        """Return None: an image has no named features, and what comes after it names its own.

        Parameters
        ----------
        input_features : Ignored
            Not used, present so that a pipeline can ask.

        Returns
        -------
        None
        """

    def set_output(self, *, transform: str | None = None) -> Self:
        """Do nothing: images are no table, and stay an array whatever a pipeline is told.

        Parameters
        ----------
        transform : Ignored
            Not used, present so that a pipeline can pass its choice on.

        Returns
        -------
        self : object
        """
        return self

    def _height_and_width(self) -> tuple[int, int] | None:
        if self.size is None:
            return None
        sides = self.size if isinstance(self.size, Sequence) else (self.size, self.size)
        if len(sides) != 2 or not all(isinstance(side, Integral) and side > 0 for side in sides):
            raise ValueError(
                f"size is {self.size!r}. Expected (height, width) in pixels, one int for a "
                "square, or None to keep the size of the images."
            )
        return int(sides[0]), int(sides[1])

    def _size_of_first(self, items: Sequence[Any]) -> tuple[int, int]:
        """Height and width of the first image that can be read."""
        for row, item in enumerate(items):
            try:
                height, width = load(item, None, "L", self.background).shape
            except Exception as error:
                if self.on_error == "raise":
                    raise ValueError(_refusal(row, item, error)) from error
                continue
            return height, width
        raise ValueError(
            f"None of the {len(items)} images can be read, so there is no size to keep. Check the "
            "paths, or pass a size."
        )

    def _find_range(self, items: Sequence[Any]) -> tuple[float, float] | None:
        """Find the range of images of more than 8 bits; None if there are none."""
        given = check_value_range(self.value_range)
        if given is not None:
            return given
        ranges = []
        for row in evenly_spaced(len(items), _SAMPLE):
            with contextlib.suppress(Exception):  # transform names what is unreadable
                if (pixels := deep_pixels(items[row])) is not None:
                    ranges.append((float(pixels.min()), float(pixels.max())))
        if not ranges:
            return None
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        usual = next((top for top in _USUAL_TOPS if high <= top), None)
        return (0.0, float(usual)) if low >= 0 and usual is not None else (low, high)

    def _reader(self, items: Sequence[Any]) -> Callable[[Any], np.ndarray]:
        """Return a function that reads an item with this loader's parameters."""
        given = check_value_range(self.value_range)
        deep = getattr(self, "value_range_", None) or self._find_range(items)
        if deep and self.value_range == "auto" and not hasattr(self, "value_range_"):
            warnings.warn(
                f"Images of more than 8 bits are read with the range {deep}, found in this "
                "call. Call fit on the training images first, or pass value_range, so that other "
                "images are read alike.",
                UserWarning,
                stacklevel=3,
            )
        size = self._height_and_width()
        return lambda item: load(item, size, self.mode, self.background, given, deep)

    def _fill(
        self,
        images: np.ndarray,
        items: Sequence[Any],
        read: Callable[[Any], np.ndarray],
        rows: slice,
        failures: list[tuple[int, Exception | None]],
    ) -> None:
        """Read some rows into `images`, and add those that cannot be read to `failures`."""
        stop = self.on_error == "raise"
        if stop and any(row < rows.start for row, _ in failures):
            return
        for row in range(rows.start, rows.stop):
            try:
                image = read(items[row])
                if image.shape != images.shape[1:]:
                    raise ValueError(
                        "it is {} by {} pixels, unlike the first image of {} by {}; pass a size to "
                        "which all are resized".format(*image.shape[:2], *images.shape[1:3])
                    )
                images[row] = image
            except Exception as error:  # Pillow's readers raise almost anything on a broken file.
                # Errors keep the half-read image in memory, so only one that is raised is kept.
                failures.append((row, error if stop else None))
                if stop:
                    return

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _as_items(X: Any) -> Sequence[Any]:
    """Paths and images as a sequence, out of any container."""
    if is_torch(X, "utils.data.DataLoader"):
        raise TypeError("X is a DataLoader. Pass its data set: X.dataset.")
    if isinstance(X, str | os.PathLike | Image.Image) or encoded_image(X) is not None:
        raise ValueError(
            f"X is one path or image ({_name(X)}). Pass a list: [X], or the files of a folder as "
            "sorted(pathlib.Path(X).rglob('*.png'))."
        )
    if isinstance(X, Iterable) and not hasattr(X, "__array__") and not hasattr(X, "__getitem__"):
        X = list(X)  # a generator, or the values of a dict
    X = as_cells(X)
    if hasattr(X, "dtype") or hasattr(X, "columns") or not hasattr(X, "__len__"):
        X = np.asarray(X)
        if X.ndim == 2 and X.shape[1] == 1:
            X = X[:, 0]
        if X.ndim in (0, 2):
            raise ValueError(
                f"X has shape {X.shape}. Expected one path or image a row, of shape (n,) or "
                "(n, 1); choose the column that holds them."
            )
    if len(X) == 0:
        raise ValueError("Found array with 0 sample(s), while a minimum of 1 is required.")
    return X


def _refusal(row: int, item: Any, error: Exception | None) -> str:
    cure = "" if error is None else advice(item, error)
    return (
        f"Row {row} of X ({_name(item)}) cannot be read as an image: {type(error).__name__}: "
        f'{str(error).rstrip(".")}.{cure} Leave it out, or pass on_error="warn" for a black image '
        "in its place."
    )


def _name(item: Any) -> str:
    if isinstance(item, str | os.PathLike):
        return repr(str(item))
    return reprlib.repr(item)
