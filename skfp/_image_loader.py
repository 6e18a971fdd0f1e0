"""From files of any size and kind to one array of images."""

from __future__ import annotations

import operator
import os
import reprlib
import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from joblib import Parallel, delayed
from PIL import Image, ImageOps
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils import gen_batches
from sklearn.utils._param_validation import Interval, StrOptions

_CHUNK = 64
_NAMED = 3


class ImageLoader(  # type: ignore[call-arg]
    TransformerMixin, BaseEstimator, auto_wrap_output_keys=None
):
    """Read image files into one array that the encoders take.

    Files are read with Pillow, turned upright as their EXIF orientation says, converted to `mode`
    and stretched to `size`. The loader is stateless: it needs no fit.

    Parameters
    ----------
    size : int, tuple of int or None, default=(64, 64)
        (height, width) of the images in pixels; an int stands for a square. The aspect ratio is
        not kept. None takes images as they are, and any that is not of the size of the first counts
        as unreadable.
    mode : {"RGB", "L"}, default="RGB"
        "RGB" reads colours, "L" shades of grey.
    on_error : {"raise", "warn"}, default="raise"
        What to do where an image is unreadable: missing, broken or no image at all. "raise" stops
        there; "warn" puts a black image in its place, and names the first such files in one
        warning at the end.
    n_jobs : int or None, default=None
        Number of threads that read. None means 1, or what `joblib.parallel_config` says, and -1
        all processors.

    See Also
    --------
    FeaturePredictionEncoder : Turns the images into embeddings.

    Notes
    -----
    - Alpha is dropped, as it is by the encoders: a transparent pixel shows the colour stored there.
    - 16-bit grey is divided by 256. Float pixels are refused, as their range is not known.
    - Of an animation the first frame is read.
    - Resizing is antialiased bicubic. JPEG files of at least four times `size` are decoded at a
      half, a quarter or an eighth of their size first, never under twice `size`, which is several
      times faster.
    - Pillow refuses files of far too many pixels (see `PIL.Image.MAX_IMAGE_PIXELS`), which might
      be decompression bombs; they count as broken.

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
        "on_error": [StrOptions({"raise", "warn"})],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        size: int | Sequence[int] | None = (64, 64),
        *,
        mode: str = "RGB",
        on_error: str = "raise",
        n_jobs: int | None = None,
    ) -> None:
        self.size = size
        self.mode = mode
        self.on_error = on_error
        self.n_jobs = n_jobs

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameters; nothing is learned and no file is read.

        Parameters
        ----------
        X : Ignored
            Not used, present by convention.
        y : Ignored
            Not used, present by convention.

        Returns
        -------
        self : object
        """
        self._height_and_width()
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Read images.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths (str or path-like), PIL images, or uint8 arrays of shape (height, width) or
            (height, width, 3 or 4), also mixed: a list, an array, a series or a data frame of one
            column.

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
        items = _as_items(X)
        images, failures = self._read(items)
        if failures:
            if self.on_error == "raise":
                row, error = failures[0]
                raise ValueError(_refusal(row, items[row], error)) from error
            names = [f"row {row} ({_name(items[row])})" for row, _ in failures[:_NAMED]]
            if len(failures) > _NAMED:
                names.append(f"{len(failures) - _NAMED} more")
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

    def _read(self, items: Sequence[Any]) -> tuple[np.ndarray, list[tuple[int, Exception | None]]]:
        """Read images, and list the rows that cannot be read."""
        size = self._height_and_width()
        height, width = size or self._size_of_first(items)
        channels = (3,) if self.mode == "RGB" else ()
        images = np.zeros((len(items), height, width, *channels), dtype=np.uint8)
        failures: list[tuple[int, Exception | None]] = []
        # Threads by requirement: processes would each fill a copy of `images`.
        Parallel(n_jobs=self.n_jobs, require="sharedmem")(
            delayed(self._fill)(images, items, size, rows, failures)
            for rows in gen_batches(len(items), _CHUNK)
        )
        return images, sorted(failures, key=operator.itemgetter(0))

    def _size_of_first(self, items: Sequence[Any]) -> tuple[int, int]:
        """Height and width of the first image that can be read."""
        for row, item in enumerate(items):
            try:
                height, width = _load(item, None, "L").shape
            except Exception as error:
                if self.on_error == "raise":
                    raise ValueError(_refusal(row, item, error)) from error
                continue
            return height, width
        raise ValueError(
            f"None of the {len(items)} images can be read, so there is no size to keep. Check the "
            "paths, or pass a size."
        )

    def _fill(
        self,
        images: np.ndarray,
        items: Sequence[Any],
        size: tuple[int, int] | None,
        rows: slice,
        failures: list[tuple[int, Exception | None]],
    ) -> None:
        """Read some rows into `images`, and note in `failures` those that cannot be read."""
        stop = self.on_error == "raise"
        if stop and any(row < rows.start for row, _ in failures):
            return
        for row in range(rows.start, rows.stop):
            try:
                image = _load(items[row], size, self.mode)
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
    if isinstance(X, str | os.PathLike | Image.Image):
        raise ValueError(
            f"X is one path or image ({_name(X)}). Pass a list: [X], or the files of a folder as "
            "sorted(pathlib.Path(X).rglob('*.png'))."
        )
    if not isinstance(X, list | tuple):
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


def _load(item: Any, size: tuple[int, int] | None, mode: str) -> np.ndarray:
    if isinstance(item, str | os.PathLike):
        with Image.open(item) as image:
            if size is not None:
                # Square, as the EXIF orientation may yet swap the sides.
                image.draft(mode, (2 * max(size), 2 * max(size)))
            return _to_array(image, size, mode)
    if isinstance(item, np.ndarray) and item.dtype == np.uint8:
        item = Image.fromarray(item)
    if not isinstance(item, Image.Image):
        raise TypeError(f"expected a path, a PIL image or a uint8 array, got {type(item).__name__}")
    return _to_array(item, size, mode)


def _to_array(image: Image.Image, size: tuple[int, int] | None, mode: str) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("float pixels have no known range; save them as 8-bit or 16-bit")
    if image.mode.startswith("I"):
        # Pillow itself clips at 255.
        image = Image.fromarray(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8))
    elif image.mode == "P":
        # By way of RGBA, as Pillow warns of transparent palettes otherwise.
        image = image.convert("RGBA")
    image = image.convert(mode)
    if size is not None:
        image = image.resize(size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(image)


def _refusal(row: int, item: Any, error: Exception | None) -> str:
    return (
        f"Row {row} of X ({_name(item)}) cannot be read as an image: {type(error).__name__}: "
        f'{error}. Leave it out, or pass on_error="warn" for a black image in its place.'
    )


def _name(item: Any) -> str:
    if isinstance(item, str | os.PathLike):
        return repr(str(item))
    return reprlib.repr(item)
