"""Positions of embeddings in a plane, and the choice of those that get a thumbnail."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.utils import check_random_state


def project(
    embedding: np.ndarray, projection: Any, random_state: Any
) -> tuple[np.ndarray, list[str]]:
    """Project to two dimensions, by default to principal components, and label the axes."""
    if projection is None:
        projection = PCA(min(2, *embedding.shape), random_state=random_state)
        # An embedding without variance has no shares of it.
        with np.errstate(invalid="ignore", divide="ignore"):
            components = projection.fit_transform(embedding)
        # The second is zero where z or the number of images is 1.
        positions = np.zeros((len(embedding), 2), components.dtype)
        positions[:, : components.shape[1]] = components
    else:
        projection = clone(projection)
        positions = np.asarray(projection.fit_transform(embedding))
    name = type(projection).__name__
    if positions.shape != (len(embedding), 2):
        raise ValueError(
            f"{name} projects the embedding to shape {positions.shape}. Expected "
            f"{(len(embedding), 2)}: set it to two components."
        )
    if not isinstance(projection, PCA):
        return positions, [f"{name} 1", f"{name} 2"]
    labels = ["", ""]
    for i, share in enumerate(projection.explained_variance_ratio_):
        of_variance = f" ({share:.0%} of the variance)" if np.isfinite(share) else ""
        labels[i] = f"Principal component {i + 1}{of_variance}"
    return positions, labels


def choose_apart(positions: np.ndarray, n: int, random_state: Any) -> np.ndarray:
    """Choose at most n points, each the farthest from those before; the first at random.

    Stops where the next would be nearer than the cells of a grid of n over the span of all points.
    """
    gap = np.ptp(positions, axis=0).max() / math.sqrt(n)
    farthest = int(check_random_state(random_state).randint(len(positions)))
    chosen = [farthest]
    distance = np.full(len(positions), np.inf)
    while len(chosen) < n:
        # Chebyshev, as the images are upright squares.
        new = np.abs(positions - positions[farthest]).max(axis=1)
        distance = np.minimum(distance, new)
        farthest = int(distance.argmax())
        if distance[farthest] <= gap:
            break
        chosen.append(farthest)
    return np.array(chosen)
