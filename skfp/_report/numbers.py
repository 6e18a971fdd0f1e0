"""Numbers that judge an encoder without labels, from held-out images and the history of a fit."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import gen_batches
from torch import nn

from .._features import BATCH_SIZE
from .._loss_network import Inference
from .._utils.devices import choose_device, on_device
from .._utils.sampling import evenly_spaced
from .verdict import Numbers

N_NEIGHBOURS = 10
MIN_IMAGES, MAX_IMAGES = 50, 2000
MAX_VALUES = 2**26  # features held in memory: 256 MiB


def measure(estimator: Any, images: Any) -> Numbers:
    """Compute embedding, features and decoded features of images, and compare them."""
    state, is_pixels = estimator._state, estimator._LOSS == "pixels"
    z = estimator._n_features_out
    n_values = math.prod(state.format.input_shape) if is_pixels else state.n_features
    rows = evenly_spaced(len(images), max(MIN_IMAGES, min(MAX_IMAGES, MAX_VALUES // n_values)))
    embedding, features, decoded, seconds = _compute(estimator, images, rows, is_pixels)
    projection = state.networks.projection
    if projection is None:  # half of the images finds the components, the other half is compared
        pca = PCA(min(z, len(rows) // 2, n_values), random_state=0).fit(features[::2])
        mean, basis = pca.mean_, pca.components_
        embedding, features, decoded = (v[1::2] for v in (embedding, features, decoded))
    else:
        mean, basis = projection.mean.numpy(), projection.basis[:z].numpy()
    components = (features - mean) @ basis.T
    near = neighbours(features)
    kept = lambda values: overlap(near, neighbours(values))  # noqa: E731
    return {
        "n_images": len(rows),
        "z": z,
        "target": "pixels" if is_pixels else "features",
        "explained_variance": _explained(features, decoded),
        "explained_variance_pca": _explained(features, components @ basis + mean),
        "neighbours": kept(embedding),
        "neighbours_pca": kept(components),
        "kurtosis": None if is_pixels else _kurtosis(state.networks.loss_network),
        "effective_rank": _effective_rank(embedding),
        "speed": float(len(rows) / seconds[0]),
        "speed_loss_network": None if is_pixels else float(len(rows) / seconds[1]),
    }


def _compute(estimator: Any, images: Any, rows: np.ndarray, is_pixels: bool) -> tuple[Any, ...]:
    """Return embedding, features and decoded features, and the seconds of the first two."""
    state, device = estimator._state, choose_device(estimator.device)
    embed, decoder = estimator._embedder(device), on_device(state.networks.decoder, device)
    extract: Any = None
    if not is_pixels:
        network = on_device(state.networks.loss_network, device)
        extract = Inference(network, len(rows)) if device.type == "cpu" else network
    parts: list[list[np.ndarray]] = [[], [], []]
    seconds = np.zeros(2)
    with torch.inference_mode():
        for batch_rows in gen_batches(len(rows), BATCH_SIZE):
            batch = images.read(rows[batch_rows]).to(device)
            inputs = state.preprocess(batch)
            prepared = state.inputs_of_features(images, rows[batch_rows], inputs)
            if not parts[0]:  # what happens once is no part of the speed
                embed(batch), extract and extract(prepared)
            start = time.perf_counter()
            embedding = embed(batch).cpu()
            between = time.perf_counter()
            features = (prepared if extract is None else extract(prepared)).flatten(1).cpu()
            seconds += between - start, time.perf_counter() - between
            decoded = decoder(embedding.to(device)).cpu()
            decoded = decoded if is_pixels else estimator._decoded_features(decoded)
            for part, values in zip(parts, (embedding, features, decoded), strict=True):
                part.append(values.flatten(1).cpu().numpy())
    return *(np.concatenate(part) for part in parts), seconds


def training_numbers(history: list[dict[str, Any]]) -> Numbers:
    """Compare the losses of training and validation, and of the last epochs."""
    epochs = [row for row in history if math.isfinite(row.get("valid_loss") or math.nan)]
    losses = [row["valid_loss"] for row in epochs]
    best = min(epochs, key=lambda row: row["valid_loss"], default=None)
    last_fifth = math.ceil(len(losses) / 5)
    return {
        "n_epochs": len(epochs),
        "gap": None if best is None else best["valid_loss"] / best["train_loss"] - 1,
        "fall": 1 - losses[-1] / losses[-1 - last_fifth] if len(losses) > 2 else None,
    }


def _explained(features: np.ndarray, predicted: np.ndarray) -> float:
    """Return the share of the variance of features that predictions explain."""
    variance = np.square(features - features.mean(axis=0)).sum(dtype=float)
    return 1 - float(np.square(features - predicted).sum(dtype=float) / max(variance, 1e-12))


def neighbours(values: np.ndarray) -> np.ndarray:
    """Return the rows of the nearest neighbours of each row, without itself."""
    return NearestNeighbors(n_neighbors=N_NEIGHBOURS).fit(values).kneighbors(return_distance=False)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the share of neighbours that two lists have in common."""
    return float((one[:, :, None] == other[:, None, :]).any(axis=2).mean())


def _effective_rank(embedding: np.ndarray) -> float:
    values = np.linalg.svd(embedding - embedding.mean(axis=0), compute_uv=False)
    shares = values[values > 0] / max(values.sum(), 1e-12)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _kurtosis(network: nn.Module) -> float | None:
    """Return the excess kurtosis of weights, the median of all layers; None if there are none."""
    found = []
    for weights in network.parameters():
        if weights.ndim > 1 and weights.numel() >= 1000 and weights.std() > 0:
            standardised = (weights - weights.mean()) / weights.std()
            found.append(float(standardised.pow(4).mean()) - 3)
    return float(np.median(found)) if found else None
