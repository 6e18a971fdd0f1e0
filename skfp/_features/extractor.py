"""What the loss network sees in the images: computed once, compressed, kept.

A fit asks a `View` of its images for the features themselves, or for their coefficients on
leading principal components: as good a target for a fraction of the memory and arithmetic.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.utils import gen_batches
from torch import nn

from skfp._data.image_set import ImageSet
from skfp._data.preprocess import Preprocess
from skfp._data.sources import as_source, release_pages, to_device
from skfp._features.cache import Cache
from skfp._loss_network import FrozenNetwork, JointNetwork, check_features
from skfp._utils import distributed
from skfp._utils.devices import OnDevice
from skfp._utils.fingerprint import fingerprint
from skfp._utils.malloc import keep_freed_memory

# What a processor's cache holds the activations of; larger batches embed more slowly on one.
BATCH_SIZE = 128
MAX_BYTES_IN_MEMORY = 2**28
PROJECTION_SAMPLE = 4096
BALANCING_SAMPLE = 128
MOST_COMPONENTS = 512
EXPLAINED_VARIANCE = 0.98
_COMPONENTS = ("mean", "basis", "explained_variance_ratio")


class FeatureStore:
    """One row of numbers per image, read batch by batch.

    Parameters
    ----------
    array : ndarray or Tensor of shape (n_images, n_values)
        May be memory-mapped.
    """

    def __init__(self, array: Any) -> None:
        self.array = array
        self._rows = as_source(array)

    def __len__(self) -> int:
        return len(self.array)

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take."""
        return int(self.array.nbytes)

    def read(self, indices: Any) -> torch.Tensor:
        """Read some rows as a tensor."""
        rows = self._rows[indices]
        # Copied, since a memory-mapped cache entry must not be written to.
        return torch.from_numpy(np.array(rows)) if isinstance(rows, np.ndarray) else rows

    def to(self, device: torch.device) -> FeatureStore:
        """Hold all rows on a device."""
        return FeatureStore(to_device(self._rows, device))


class PCAProjection(nn.Module):
    """Leading principal components of the features.

    Parameters
    ----------
    mean : Tensor of shape (n_features,)
        Mean features.
    basis : Tensor of shape (k, n_features)
        Orthonormal rows, by falling variance.
    explained_variance_ratio : Tensor of shape ()
        Share of the features' variance along the basis, in [0, 1].
    """

    mean: torch.Tensor
    basis: torch.Tensor
    explained_variance_ratio: torch.Tensor

    def __init__(
        self, mean: torch.Tensor, basis: torch.Tensor, explained_variance_ratio: torch.Tensor
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        self.register_buffer("explained_variance_ratio", explained_variance_ratio)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Coefficients of features (b, n_features), the squared residual in an added column."""
        centred = features - self.mean
        coefficients = centred @ self.basis.T
        residual = centred.square().sum(dim=1) - coefficients.square().sum(dim=1)
        return torch.cat([coefficients, residual.clamp_min(0)[:, None]], dim=1)

    def features(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Features (b, n_features) that coefficients (b, k) stand for."""
        return coefficients @ self.basis + self.mean


class FeatureExtractor:
    """What a loss network sees in a collection of images.

    Parameters
    ----------
    source : Images or Features
        What to read.
    see : callable
        Maps a batch of `source` to features (b, n_features), on whatever device.
    n_features : int
        Number of features of one image.
    cache : Cache
        Keyed by the images and the loss network.
    """

    def __init__(
        self, source: ImageSet | FeatureStore, see: Callable, n_features: int, cache: Cache
    ) -> None:
        self.source = source
        self.see = see
        self.n_features = n_features
        self.cache = cache

    def features(self) -> FeatureStore:
        """Return the features of all images."""

        def compute_checked() -> dict[str, np.ndarray]:
            rows = compute_rows(self.source, self.see, self.n_features)
            sample = np.linspace(0, len(rows) - 1, min(len(rows), BATCH_SIZE)).astype(int)
            check_features(torch.from_numpy(rows[sample]), self.source.read(sample))
            return {"rows": rows}

        return FeatureStore(self.cache(compute_checked, "features")["rows"])

    def coefficients(self, components: PCAProjection) -> FeatureStore:
        """Return the rows that `components` makes of the features of all images."""

        def project(batch: torch.Tensor) -> torch.Tensor:
            features = self.see(batch)
            return components.to(features.device)(features)

        n_values = len(components.basis) + 1
        arrays = self.cache(
            lambda: {"rows": compute_rows(self.source, project, n_values)},
            "coefficients",
            # Bases may be equal where means are not.
            *(fingerprint(tensor.cpu().numpy()) for tensor in (components.mean, components.basis)),
        )
        return FeatureStore(arrays["rows"])

    def mean(self) -> torch.Tensor:
        """Return the mean features (n_features,) of a sample of the images."""
        arrays = self.cache(lambda: {"mean": self._sample().mean(axis=0)}, "mean")
        return torch.from_numpy(np.array(arrays["mean"]))

    def components(self, n_components: int | str) -> PCAProjection:
        """Find the leading principal components of the features on a sample of the images.

        Parameters
        ----------
        n_components : int or "auto"
            How many; "auto" takes as many as explain 98 % of the variance, at most 512. There are
            never more than the sample determines.

        Returns
        -------
        components : Components
            The same in every fit: they depend on the images and the loss network alone.
        """
        arrays = self.cache(lambda: self._find_components(n_components), "components", n_components)
        return PCAProjection(*(torch.from_numpy(np.array(arrays[name])) for name in _COMPONENTS))

    def _sample(self) -> np.ndarray:
        """Return the features of some of the images, always of the same."""
        n_sample = min(len(self.source), PROJECTION_SAMPLE)
        rows = np.random.default_rng(0).choice(len(self.source), n_sample, replace=False)
        with torch.inference_mode():
            sample = np.concatenate(
                [
                    self.see(self.source.read(np.sort(rows[batch]))).cpu().numpy()
                    for batch in gen_batches(n_sample, BATCH_SIZE)
                ]
            )
        few = np.sort(rows[:BATCH_SIZE])
        check_features(torch.from_numpy(sample), self.source.read(few))
        return sample

    def _find_components(self, n_components: int | str) -> dict[str, np.ndarray]:
        sample = self._sample()
        wanted = MOST_COMPONENTS if n_components == "auto" else int(n_components)
        with np.errstate(invalid="ignore"):
            pca = PCA(
                min(wanted, *sample.shape),
                svd_solver="randomized",
                iterated_power=1,
                random_state=0,
            ).fit(sample)
            # Images that are all equal have no variance to explain a share of.
            explained = np.nan_to_num(pca.explained_variance_ratio_.cumsum(), nan=1.0)
        k = len(explained)
        if n_components == "auto":
            k = min(k, 1 + int(np.searchsorted(explained, EXPLAINED_VARIANCE)))
        return {
            "mean": pca.mean_.astype(np.float32),
            "basis": np.ascontiguousarray(pca.components_[:k], dtype=np.float32),
            "explained_variance_ratio": np.asarray(explained[k - 1], dtype=np.float32),
        }


def make_extractor(
    images: ImageSet,
    preprocess: Preprocess,
    network: FrozenNetwork,
    device: torch.device,
    memory: Any,
) -> FeatureExtractor:
    """Let a loss network look at images.

    Parameters
    ----------
    images : Images
        Where the network is several in one, the first images that it sees say how these are
        balanced.
    canvas : Canvas
        Turns stored images into those that the network sees.
    network : FrozenNetwork
        Moved to the device.
    device : torch.device
    memory : None, str, path-like or joblib.Memory
        Where to keep what it sees.

    Returns
    -------
    view : View
    """
    network = network.to(device)
    if isinstance(network.network, JointNetwork):
        rows = np.linspace(0, len(images) - 1, min(len(images), BALANCING_SAMPLE)).astype(int)
        network.network.balance(preprocess(images.read(rows).to(device)))
    key = () if memory is None else (images.fingerprint, network.fingerprint())
    see: Callable = OnDevice(nn.Sequential(preprocess, network), device)
    if memory is None:
        # What is kept is computed by one process, while the others wait to read it.
        see = distributed.sharded(see)
    return FeatureExtractor(
        images,
        see,
        network.n_features(preprocess.output_size),
        Cache(memory, *key),
    )


@keep_freed_memory()
def compute_rows(
    source: ImageSet | FeatureStore, function: Callable, n_values: int, *, out: Any = None
) -> np.ndarray:
    """Compute one row of values per image, in batches.

    Parameters
    ----------
    source : Images or Features
        What to read.
    function : callable
        Maps a batch of `source` to rows (b, n_values), on whatever device.
    n_values : int
        Number of values per image.
    out : ndarray or None, default=None
        Where to write the rows, batch by batch. None makes an array for them.

    Returns
    -------
    rows : ndarray of shape (n_images, n_values), dtype float32
        `out` if it is given. Else in memory up to 256 MiB, or in a temporary file that goes away
        with the array.

    Raises
    ------
    OSError
        If there is no room for the temporary file.
    TypeError, ValueError
        If `out` is no array of that shape and type that can be written to.
    """
    shape = (len(source), n_values)
    if out is not None:
        rows = _check_out(out, shape)
    elif math.prod(shape) * 4 <= MAX_BYTES_IN_MEMORY:
        rows = np.empty(shape, dtype=np.float32)
    else:
        rows = _array_on_disk(shape)
    with torch.inference_mode():
        for batch in gen_batches(len(source), BATCH_SIZE):
            rows[batch] = function(source.read(batch)).cpu().numpy()
            release_pages(rows)
    return rows


def _check_out(out: Any, shape: tuple[int, int]) -> Any:
    """Refuse an array that rows cannot be written into as they are."""
    expected = f"Expected a writeable array of shape {shape} and type float32"
    if isinstance(out, torch.Tensor) or not (
        hasattr(out, "shape") and hasattr(out, "dtype") and hasattr(out, "__setitem__")
    ):
        raise TypeError(f"out is a {type(out).__name__}. {expected}, such as a numpy.memmap.")
    if tuple(out.shape) != shape or out.dtype != np.float32:
        raise ValueError(f"out has shape {tuple(out.shape)} and type {out.dtype}. {expected}.")
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ValueError(f"out is read-only. {expected}; open a numpy.memmap with mode='r+'.")
    return out


def _array_on_disk(shape: tuple[int, int]) -> np.ndarray:
    """Make an array in a temporary file, whose room on the disk is taken at once."""
    n_bytes = math.prod(shape) * np.dtype(np.float32).itemsize
    folder = tempfile.gettempdir()
    # The file has no name: it is gone when the last mapping of it is.
    with tempfile.TemporaryFile() as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            elif shutil.disk_usage(folder).free < n_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            # Later, a full disk would end the process in the middle of an assignment.
            raise OSError(
                error.errno,
                f"What the loss network sees in {shape[0]:,} images takes "
                f"{n_bytes / 2**20:,.0f} MiB, for which there is no room in the temporary folder "
                f"{folder!r} ({error.strerror}). Free some, or set the environment variable "
                "TMPDIR to another folder before Python starts",
            ) from error
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
