"""Rows of features: computed batch by batch, in memory or in a temporary file."""

import numpy as np
import torch

import skfp._features.store
from skfp import FeaturePredictionEncoder
from skfp._data import Preprocess, check_images
from skfp._features import FeatureStore, compute_rows
from skfp._loss_network import load_loss_network


class TestCompute:
    def test_features_of_frames(self, frames):
        alexnet = load_loss_network("alexnet")
        layers = torch.nn.Sequential(Preprocess(), alexnet)

        rows = compute_rows(check_images(frames, "uint8"), layers, 9_408)

        assert rows.dtype == np.float32
        with torch.inference_mode():
            pixels = torch.from_numpy(frames.transpose(0, 3, 1, 2) / np.float32(255))
            np.testing.assert_allclose(rows, alexnet(pixels), atol=1e-5)

    def test_more_images_than_a_batch_keep_their_order(self, monkeypatch):
        monkeypatch.setattr(skfp._features.store, "BATCH_SIZE", 4)
        rows = np.arange(22, dtype=np.float32).reshape(11, 2)

        computed = compute_rows(FeatureStore(rows), lambda batch: batch * 2, 2)

        np.testing.assert_array_equal(computed, rows * 2)

    def test_on_disk_above_the_limit(self, frames, monkeypatch):
        encoder = FeaturePredictionEncoder(
            z=2, target_components=None, max_epochs=1, random_state=0
        )
        in_memory = encoder.fit_transform(frames)

        monkeypatch.setattr(skfp._features.store, "MAX_BYTES_IN_MEMORY", 1)
        rows = compute_rows(FeatureStore(np.ones((3, 2), np.float32)), torch.nn.Identity(), 2)

        assert isinstance(rows, np.memmap)
        np.testing.assert_array_equal(rows, 1)
        np.testing.assert_array_equal(encoder.fit_transform(frames), in_memory)

    def test_memory_does_not_grow_with_what_is_on_disk(self, monkeypatch, resident_bytes):
        monkeypatch.setattr(skfp._features.store, "MAX_BYTES_IN_MEMORY", 1)
        n_rows, n_values = 60_000, 1_000
        before = resident_bytes()
        held = []

        def widen(batch):
            held.append(resident_bytes() - before)
            return batch.expand(-1, n_values)

        numbers = np.arange(n_rows, dtype=np.float32)
        rows = FeatureStore(compute_rows(FeatureStore(numbers[:, None]), widen, n_values))

        for some in np.random.default_rng(0).permutation(n_rows).reshape(-1, 200):
            held.append(resident_bytes() - before)
            assert (rows.read(some).numpy() == some[:, None]).all()
        assert rows.nbytes > 2 * 10**8
        assert max(held) < 10**8
