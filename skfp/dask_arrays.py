"""dask arrays of images: embedded lazily, block by block, wherever dask computes."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from torch import nn

from skfp.devices import OnDevice, choose_device
from skfp.images import ImageFormat, as_array, check_images_like
from skfp.targets import compute


def is_dask_array(X: Any) -> bool:
    """Tell a dask array, without importing dask: whoever has made one has done that."""
    dask_array = sys.modules.get("dask.array")
    return dask_array is not None and isinstance(X, dask_array.Array)


def stand_in(X: Any, format: ImageFormat) -> np.ndarray:
    """Make a few images of the shape and type of a dask array's, to be checked in its place.

    Parameters
    ----------
    X : dask.array.Array
    format : ImageFormat
        What fit has seen; the images have its least and its greatest value.

    Returns
    -------
    images : ndarray of shape (2, *X.shape[1:])
        No images where X holds none. Takes no memory.
    """
    levels = np.array([format.low or 0, format.high or 0]).astype(X.dtype)
    levels = levels[: 0 if X.shape[:1] == (0,) else 2]
    return np.broadcast_to(levels.reshape(-1, *[1] * (X.ndim - 1)), (len(levels), *X.shape[1:]))


class BlockEmbedder:
    """All that a worker needs to embed blocks of images.

    Parameters
    ----------
    format : ImageFormat
        What fit has seen.
    embedder : nn.Module
        Maps stored batches to embeddings. A copy that nobody else changes.
    z : int
        Size of the embedding.
    device : str or torch.device
        As in the estimators; chosen where blocks are embedded.
    """

    def __init__(self, format: ImageFormat, embedder: nn.Module, z: int, device: Any) -> None:
        self.format = format
        self.embedder = embedder
        self.z = z
        self.device = device

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Embed a block of images: (n, z), float32."""
        embedding = np.empty((len(block), self.z), dtype=np.float32)
        if not len(block):
            return embedding
        images = check_images_like(as_array(block), self.format, whole=False)
        embed = OnDevice(self.embedder, choose_device(self.device))
        return compute(images, embed, self.z, out=embedding)


def embed_blocks(X: Any, embedder: BlockEmbedder) -> Any:
    """Embed a dask array of images as a dask array, without computing anything yet.

    Parameters
    ----------
    X : dask.array.Array of shape (n, ...)
        Images; their number may be unknown.
    embedder : BlockEmbedder
        One task of the graph holds it, on which all blocks depend: it is sent to each worker once.

    Returns
    -------
    embedding : dask.array.Array of shape (n, z), dtype float32
        A block for each block of images.
    """
    import dask

    axes = range(1, X.ndim)
    whole_images = X.rechunk(dict.fromkeys(axes, -1))
    return whole_images.map_blocks(
        embed,
        dask.delayed(embedder, traverse=False),
        dtype=np.float32,
        meta=np.empty((0, 0), dtype=np.float32),
        drop_axis=list(axes),
        new_axis=1,
        chunks=(X.chunks[0], (embedder.z,)),
    )


def embed(block: np.ndarray, embedder: BlockEmbedder) -> np.ndarray:
    """Embed a block; dask's displays show the name of this function."""
    return embedder(block)
