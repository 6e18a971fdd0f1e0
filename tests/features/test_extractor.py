"""What the loss network sees: features, their principal components, and where they are kept."""

import errno
import subprocess
import tempfile

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

import skfp._features.extractor
from skfp import FeaturePredictionEncoder
from skfp._data.image_set import check_images
from skfp._data.preprocess import Preprocess
from skfp._features.cache import Cache
from skfp._features.extractor import FeatureExtractor, FeatureStore, PCAProjection, compute
from skfp._loss_network import load_loss_network


@pytest.fixture
def features():
    """Thirty rows of ten features, whose variances fall by half from one direction to the next."""
    random = np.random.default_rng(0)
    rotation = np.linalg.qr(random.normal(size=(10, 10)))[0]
    rows = random.normal(size=(30, 10)) * 2.0 ** -np.arange(10) @ rotation + 5
    return rows.astype(np.float32)


@pytest.fixture
def view(features):
    return FeatureExtractor(
        FeatureStore(features), torch.nn.Identity(), features.shape[1], Cache(None)
    )


class TestComponents:
    def test_are_those_of_scikit_learn(self, view, features):
        expected = PCA(3, svd_solver="full").fit(features)

        components = view.components(3)

        np.testing.assert_allclose(components.mean, expected.mean_, rtol=1e-5)
        overlap = np.abs(components.basis.numpy() @ expected.components_.T)
        np.testing.assert_allclose(overlap, np.eye(3), atol=1e-2)
        share = expected.explained_variance_ratio_.sum()
        assert components.explained_variance_ratio.item() == pytest.approx(share, rel=1e-3)

    def test_residual_is_the_squared_distance_to_what_they_reach(self, view, features):
        components = view.components(3)

        rows = components(torch.from_numpy(features))

        assert rows.shape == (30, 4)
        reached = components.features(rows[:, :-1]).numpy()
        np.testing.assert_allclose(rows[:, -1], ((features - reached) ** 2).sum(1), rtol=1e-3)

    def test_all_of_them_lose_nothing(self, view, features):
        components = view.components(10)

        rows = components(torch.from_numpy(features))

        np.testing.assert_allclose(components.features(rows[:, :-1]), features, atol=1e-4)
        np.testing.assert_allclose(rows[:, -1], 0, atol=1e-4)
        assert components.explained_variance_ratio.item() == pytest.approx(1, abs=1e-5)

    def test_never_more_than_the_sample_determines(self, view):
        assert view.components(10_000).basis.shape == (10, 10)

    def test_auto_takes_as_many_as_explain_98_percent(self, view, features):
        explained = PCA(svd_solver="full").fit(features).explained_variance_ratio_.cumsum()

        components = view.components("auto")

        assert 1 < len(components.basis) == np.argmax(explained >= 0.98) + 1
        assert components.explained_variance_ratio >= 0.98

    def test_auto_takes_no_more_than_512(self):
        noise = np.random.default_rng(0).normal(size=(1500, 700)).astype(np.float32)
        view = FeatureExtractor(FeatureStore(noise), torch.nn.Identity(), 700, Cache(None))
        assert len(view.components("auto").basis) == 512

    def test_equal_features_have_finite_components(self):
        rows = FeatureStore(np.full((6, 4), 0.5, dtype=np.float32))
        components = FeatureExtractor(rows, torch.nn.Identity(), 4, Cache(None)).components(2)

        coefficients = components(rows.read(slice(None)))

        assert coefficients.isfinite().all()
        np.testing.assert_allclose(coefficients, 0, atol=1e-6)

    def test_coefficients_of_all_images(self, view, features):
        components = view.components(3)

        rows = view.coefficients(components).read(slice(None))

        torch.testing.assert_close(rows, components(torch.from_numpy(features)))

    def test_coefficients_are_not_mistaken_for_those_of_another_mean(self, features, tmp_path):
        cache = Cache(tmp_path, "these images")
        view = FeatureExtractor(
            FeatureStore(features), torch.nn.Identity(), features.shape[1], cache
        )
        components = view.components(3)
        other = PCAProjection(components.mean + 1, components.basis, torch.tensor(1.0))

        for one in (components, other):
            rows = view.coefficients(one).read(slice(None))
            torch.testing.assert_close(rows, one(torch.from_numpy(features)))

    def test_residual_is_never_negative(self):
        components = PCAProjection(
            torch.zeros(2), torch.tensor([[0.6, 0.8]]) * 1.0001, torch.tensor(1.0)
        )

        assert components(torch.tensor([[3.0, 4.0]]))[0, -1] == 0


class TestCompute:
    def test_features_of_frames(self, frames):
        alexnet = load_loss_network("alexnet")
        see = torch.nn.Sequential(Preprocess((64, 64)), alexnet)

        rows = compute(check_images(frames), see, 9_408)

        assert rows.dtype == np.float32
        with torch.inference_mode():
            pixels = torch.from_numpy(frames.transpose(0, 3, 1, 2) / np.float32(255))
            np.testing.assert_allclose(rows, alexnet(pixels), atol=1e-5)

    def test_more_images_than_a_batch_keep_their_order(self, monkeypatch):
        monkeypatch.setattr(skfp._features.extractor, "BATCH_SIZE", 4)
        rows = np.arange(22, dtype=np.float32).reshape(11, 2)

        computed = compute(FeatureStore(rows), lambda batch: batch * 2, 2)

        np.testing.assert_array_equal(computed, rows * 2)

    def test_on_disk_above_the_limit(self, frames, monkeypatch):
        encoder = FeaturePredictionEncoder(
            z=2, target_components=None, max_epochs=1, random_state=0
        )
        in_memory = encoder.fit_transform(frames)

        monkeypatch.setattr(skfp._features.extractor, "MAX_BYTES_IN_MEMORY", 1)
        rows = compute(FeatureStore(np.ones((3, 2), np.float32)), torch.nn.Identity(), 2)

        assert isinstance(rows, np.memmap)
        np.testing.assert_array_equal(rows, 1)
        np.testing.assert_array_equal(encoder.fit_transform(frames), in_memory)

    def test_memory_does_not_grow_with_what_is_on_disk(self, monkeypatch, resident_bytes):
        monkeypatch.setattr(skfp._features.extractor, "MAX_BYTES_IN_MEMORY", 1)
        n_rows, n_values = 60_000, 1_000
        before = resident_bytes()
        held = []

        def widen(batch):
            held.append(resident_bytes() - before)
            return batch.expand(-1, n_values)

        numbers = np.arange(n_rows, dtype=np.float32)
        rows = FeatureStore(compute(FeatureStore(numbers[:, None]), widen, n_values))

        for some in np.random.default_rng(0).permutation(n_rows).reshape(-1, 200):
            held.append(resident_bytes() - before)
            assert (rows.read(some).numpy() == some[:, None]).all()
        assert rows.nbytes > 2 * 10**8
        assert max(held) < 10**8

    def test_full_disk(self, frames, monkeypatch, small_disk):
        monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
        monkeypatch.setattr(skfp._features.extractor, "MAX_BYTES_IN_MEMORY", 1)
        encoder = FeaturePredictionEncoder(z=2, target_components=None, max_epochs=1)

        with pytest.raises(
            OSError, match=rf"in 16 images takes 1 MiB.*{small_disk}.*No space left.*TMPDIR"
        ) as caught:
            encoder.fit(frames)

        assert caught.value.errno == errno.ENOSPC
        assert list(small_disk.iterdir()) == []
        monkeypatch.undo()
        encoder.fit(frames)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs to mount a file system: {error}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


class TestTargetComponents:
    """What a user sees of the compression: the parameter `target_components`."""

    @pytest.mark.parametrize(("asked", "expected"), [(5, 5), (None, 9_408)])
    def test_decoder_predicts_so_many_values(self, frames, asked, expected):
        encoder = FeaturePredictionEncoder(
            z=2, target_components=asked, max_epochs=1, random_state=0
        ).fit(frames)

        with torch.inference_mode():
            assert encoder.decoder_(torch.zeros(1, 2)).shape == (1, expected)

    def test_losses_are_on_one_scale_for_any_number_of_components(self, frames):
        losses = [
            FeaturePredictionEncoder(
                z=8, target_components=k, max_epochs=1, random_state=0, lr=1e-6
            )
            .fit(frames)
            .score(frames)
            for k in (2, 8, 16)
        ]
        # Untrained decoders predict about the mean features: equation 3 is their variance.
        see = torch.nn.Sequential(Preprocess((64, 64)), load_loss_network("alexnet"))
        variance = compute(check_images(frames), see, 9_408).var(axis=0).mean()

        np.testing.assert_allclose(losses, -variance, rtol=0.2)

    def test_fewer_components_leave_a_greater_loss(self, frames):
        few, many = (
            FeaturePredictionEncoder(
                z=8, target_components=k, max_epochs=12, batch_size=8, random_state=0
            )
            .fit(frames)
            .score(frames)
            for k in (1, 16)
        )

        assert many > few

    @pytest.mark.parametrize("wrong", [0, "all", 2.5])
    def test_refused(self, frames, wrong):
        with pytest.raises(ValueError, match="'target_components' parameter"):
            FeaturePredictionEncoder(target_components=wrong).fit(frames)
