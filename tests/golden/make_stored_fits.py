"""Fit each procedure on a few stored frames, and keep the results for later versions.

``python tests/golden/make_stored_fits.py`` writes the files beside this one; version 0.1 wrote
those that are committed. `fits` is what `tests/test_stored_fits.py` runs again.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from skorch.callbacks import Callback

from skfp import FeaturePredictionEncoder, LossNetwork, PerceptualAutoencoder, PixelAutoencoder

FOLDER = Path(__file__).parent
SETTINGS = {"z": 3, "max_epochs": 2, "batch_size": 8, "random_state": 0}
PROCEDURES = {
    "I-F-FP": (FeaturePredictionEncoder, "image"),
    "F-F-FP": (FeaturePredictionEncoder, "features"),
    "I-I-PS": (PerceptualAutoencoder, "image"),
    "F-I-PS": (PerceptualAutoencoder, "features"),
    "I-I-PW": (PixelAutoencoder, "image"),
    "F-I-PW": (PixelAutoencoder, "features"),
}


class Break(Callback):
    """Ends training in the middle of its second epoch, as a killed process would."""

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 2:
            raise RuntimeError("broken off")


def small_network():
    """A loss network of few weights, so that a saved file stays small."""
    return LossNetwork("alexnet", layer="features.1", pool=4)


def fits(frames):
    """Yield the name of each case and its fitted estimator."""
    for name, (estimator, encoder) in PROCEDURES.items():
        for gamma in (0.0, 0.1):
            fitted = estimator(encoder=encoder, gamma=gamma, **SETTINGS).fit(frames)
            yield f"{name} gamma={gamma:g}", fitted
    for encoder in ("image", "features"):
        paper = FeaturePredictionEncoder.with_paper_settings(encoder=encoder, **SETTINGS)
        yield f"paper settings, {encoder}", paper.fit(frames)
    both = [small_network(), LossNetwork("alexnet", weight=2.0)]
    yield "two loss networks", FeaturePredictionEncoder(loss_network=both, **SETTINGS).fit(frames)
    yield (
        "validation images",
        FeaturePredictionEncoder(**SETTINGS).fit(frames[8:], X_val=frames[:8]),
    )
    slow = {"lr": 1e-3, "lr_schedule": None}  # so that more epochs are better
    warm = FeaturePredictionEncoder(warm_start=True, **slow, **SETTINGS).fit(frames)
    yield "warm start", warm.fit(frames)
    yield (
        "fit, then partial_fit",
        FeaturePredictionEncoder(**SETTINGS).fit(frames).partial_fit(frames[:8]),
    )
    stream = FeaturePredictionEncoder(gamma=0.1, **SETTINGS)
    yield "partial_fit", stream.partial_fit(frames).partial_fit(frames[:8])
    with tempfile.TemporaryDirectory() as folder:
        resumed = FeaturePredictionEncoder(checkpoint_dir=folder, **SETTINGS)
        try:
            resumed.set_params(callbacks=[Break()]).fit(frames)
        except RuntimeError:
            yield "resumed checkpoint", resumed.set_params(callbacks=None).fit(frames)
    grey = frames[..., 1] / 300.0 - 0.2
    yield "grey floats", FeaturePredictionEncoder(**SETTINGS).fit(grey)
    yield "tiled", PixelAutoencoder(resize="tile", **SETTINGS).fit(frames[:, ::2, ::2])


def images_of(name, frames):
    """The images that the estimator of a case embeds."""
    if name == "grey floats":
        return frames[..., 1] / 300.0 - 0.2
    return frames[:, ::2, ::2] if name == "tiled" else frames


def results(frames):
    """Embedding, losses and score of each case."""
    stored = {}
    for name, fitted in fits(frames):
        images = images_of(name, frames)
        stored[f"{name}: embedding"] = fitted.transform(images)
        stored[f"{name}: losses"] = np.array(
            [[row["train_loss"], row.get("valid_loss", np.nan)] for row in fitted.history_]
        )
        stored[f"{name}: score"] = np.array(fitted.score(images))
    return stored


def rounding_of_this_processor():
    """Numbers that differ in their last bits between processors and builds of torch."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 64, 64, generator=generator).to(memory_format=torch.channels_last)
    weights = torch.randn(32, 3, 4, 4, generator=generator)
    maps = torch.nn.functional.conv2d(images, weights, stride=2)
    return (maps.flatten(1) @ torch.randn(maps[0].numel(), 8, generator=generator)).numpy()


def main():
    """Write the stored frames, results and files."""
    from skfp.datasets import fetch_lunarlander

    torch.set_num_threads(1)
    lander = fetch_lunarlander(n_rollouts=4, n_steps=30, stride=3)
    frames = np.concatenate([lander.images[lander.rollouts == r][:6] for r in range(4)])
    np.savez_compressed(FOLDER / "frames.npz", frames=frames)
    np.savez_compressed(
        FOLDER / "stored_fits.npz", rounding=rounding_of_this_processor(), **results(frames)
    )
    small = {**SETTINGS, "encoder": "small", "loss_network": small_network()}
    encoder = FeaturePredictionEncoder(target_components=8, gamma=0.1, **small).fit(frames)
    encoder.save(FOLDER / "version_0_1.safetensors")
    encoder.to_onnx(FOLDER / "version_0_1.onnx")
    np.save(FOLDER / "version_0_1.npy", encoder.transform(frames))


if __name__ == "__main__":
    main()
