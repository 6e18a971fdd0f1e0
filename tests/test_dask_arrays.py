"""transform of dask arrays, and searches on dask: lazy, whole, and each thing once."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV

from skfp import FeaturePredictionEncoder, PixelAutoencoder

da = pytest.importorskip("dask.array", reason="needs the extra dask")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def encoder(frames):
    return PixelAutoencoder(z=3, max_epochs=1, batch_size=16, random_state=0).fit(frames)


def blocks_of(array, n_images):
    return da.from_array(array, chunks=(n_images, *array.shape[1:]))


class TestTransform:
    def test_is_lazy_with_known_shape_and_chunks(self, encoder):
        def fail(block):
            raise AssertionError("computed")

        images = da.zeros((10, 64, 64, 3), chunks=(4, 64, 64, 3), dtype=np.uint8)
        embedding = encoder.transform(images.map_blocks(fail, dtype=np.uint8))
        assert isinstance(embedding, da.Array)
        assert embedding.shape == (10, 3)
        assert embedding.chunks == ((4, 4, 2), (3,))
        assert embedding.dtype == np.float32
        with pytest.raises(AssertionError, match="computed"):
            embedding.compute(scheduler="synchronous")

    def test_all_procedures_as_of_arrays(self, trained, frames):
        embedding = trained.transform(blocks_of(frames, 5)).compute(scheduler="threads")
        assert embedding.dtype == np.float32
        np.testing.assert_allclose(embedding, trained.transform(frames), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        "lay",
        [
            lambda X: X.reshape(len(X), -1),
            lambda X: X.transpose(0, 3, 1, 2),
            lambda X: X / 255,
        ],
        ids=["rows", "channels first", "floats"],
    )
    def test_layouts(self, encoder, frames, lay):
        X = lay(frames)
        # Blocks also end within images.
        images = da.from_array(X, chunks=(6, *(max(1, side // 2) for side in X.shape[1:])))
        embedding = encoder.transform(images)
        assert embedding.chunks == ((6, 6, 4), (3,))
        np.testing.assert_allclose(
            embedding.compute(scheduler="threads"), encoder.transform(X), rtol=1e-4, atol=1e-5
        )

    def test_a_range_learned_in_fit(self, frames):
        X = frames.astype(np.float32) - 1000
        encoder = PixelAutoencoder(z=2, max_epochs=1, random_state=0).fit(X)
        embedding = encoder.transform(blocks_of(X, 8)).compute(scheduler="threads")
        np.testing.assert_allclose(embedding, encoder.transform(X), rtol=1e-4, atol=1e-5)

    def test_unknown_numbers_and_empty_blocks(self, encoder, frames):
        images = blocks_of(frames, 4)
        chosen = np.arange(16) >= 7
        some = images[da.from_array(chosen, chunks=4)]
        embedding = encoder.transform(some)
        assert np.isnan(embedding.shape[0])
        np.testing.assert_allclose(
            embedding.compute(scheduler="threads"),
            encoder.transform(frames[chosen]),
            rtol=1e-4,
            atol=1e-5,
        )

    def test_a_later_fit_does_not_change_it(self, frames):
        encoder = PixelAutoencoder(z=3, max_epochs=1, random_state=0).fit(frames)
        expected = encoder.transform(frames)
        embedding = encoder.transform(blocks_of(frames, 16))
        encoder.set_params(random_state=1).fit(frames)
        np.testing.assert_array_equal(embedding.compute(scheduler="threads"), expected)

    @pytest.mark.parametrize(
        ("shape", "dtype", "message"),
        [
            ((4, 32, 32, 3), np.uint8, "fit has seen"),
            ((4, 64, 64), np.uint8, "fit has seen"),
            ((64, 64, 3), np.uint8, "single image"),
            ((0, 64, 64, 3), np.uint8, "minimum of 1"),
            ((4,), np.uint8, "Expected 2D array"),
            ((4, 64, 64, 3), "U1", "not numbers"),
        ],
    )
    def test_what_is_no_image_of_fit_is_refused_at_once(self, encoder, shape, dtype, message):
        with pytest.raises(ValueError, match=message):
            encoder.transform(da.empty(shape, dtype=dtype))

    def test_values_are_checked_when_they_are_computed(self, encoder, frames):
        embedding = encoder.transform(blocks_of(frames.astype(np.float32), 8))
        with pytest.raises(ValueError, match="divided by 255"):
            embedding.compute(scheduler="threads")

    def test_a_dark_block_is_no_reason_to_warn(self, frames, recwarn):
        X = frames.astype(np.float32) - 1000
        encoder = PixelAutoencoder(z=2, max_epochs=1, random_state=0).fit(X)
        dark = X.copy()
        dark[:4] = -1000
        encoder.transform(dark)
        encoder.transform(blocks_of(dark, 4)).compute(scheduler="threads")
        assert not [one for one in recwarn if "small part" in str(one.message)]

    def test_fit_needs_to_know_how_many_there_are(self, frames):
        images = blocks_of(frames, 4)
        some = images[da.from_array(np.ones(16, dtype=bool), chunks=4)]
        with pytest.raises(ValueError, match=r"shape \(nan, 64, 64, 3\).*compute_chunk_sizes\(\)"):
            PixelAutoencoder(z=2, max_epochs=1).fit(some)

    def test_writes_into_no_array_of_yours(self, encoder, frames):
        with pytest.raises(ValueError, match=r"store\(out\)"):
            encoder.transform(blocks_of(frames, 8), out=np.empty((16, 3), dtype=np.float32))

    def test_needs_a_fit(self):
        with pytest.raises(ValueError, match="not fitted"):
            PixelAutoencoder().transform(da.zeros((4, 64, 64, 3), dtype=np.uint8))


def test_dask_is_not_imported_for_arrays():
    code = (
        "import sys, numpy as np; from skfp import PixelAutoencoder; "
        "X = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8); "
        "PixelAutoencoder(z=2, max_epochs=1).fit_transform(X); "
        "assert 'dask' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


class TellingNetwork(torch.nn.AvgPool2d):
    """A loss network that writes down in which process it was unpickled, and what it has seen."""

    def __init__(self, side, folder):
        super().__init__(side)
        self.folder = folder

    def __setstate__(self, state):
        super().__setstate__(state)
        self._tell("unpickled", os.getpid())

    def forward(self, images):
        self._tell("seen", len(images))
        return super().forward(images)

    def _tell(self, what, number):
        with open(f"{self.folder}/{what}", "a") as file:
            file.write(f"{number}\n")


def told(folder, what):
    return [int(number) for number in (Path(folder) / what).read_text().split()]


class TestCluster:
    def test_zarr_in_zarr_out(self, dask_client, encoder, frames, tmp_path):
        zarr = pytest.importorskip("zarr", reason="needs the extra dask")
        da.to_zarr(blocks_of(frames, 4), str(tmp_path / "images.zarr"))
        embedding = encoder.transform(da.from_zarr(str(tmp_path / "images.zarr")))
        embedding.to_zarr(str(tmp_path / "embedding.zarr"))
        stored = zarr.open_array(str(tmp_path / "embedding.zarr"), mode="r")
        assert stored.chunks == (4, 3)
        np.testing.assert_allclose(stored[:], encoder.transform(frames), rtol=1e-4, atol=1e-5)

    def test_the_encoder_is_sent_once_per_worker(self, dask_client, frames, tmp_path):
        encoder = PixelAutoencoder(
            z=3,
            encoder="features",
            loss_network=TellingNetwork(8, str(tmp_path)),
            max_epochs=1,
            random_state=0,
        )
        encoder.fit(frames)
        workers = set(dask_client.run(os.getpid).values())
        images = blocks_of(np.tile(frames, (2, 1, 1, 1)), 1)
        embedding = encoder.transform(images).compute()
        assert embedding.shape == (32, 3)
        unpickled = [pid for pid in told(tmp_path, "unpickled") if pid in workers]
        assert 1 <= len(unpickled) <= 2 < images.npartitions
        assert len(set(unpickled)) == len(unpickled)

    def test_search_computes_features_once_per_training_set(self, dask_client, frames, tmp_path):
        def search(folder):
            (tmp_path / folder).mkdir()
            return GridSearchCV(
                FeaturePredictionEncoder(
                    loss_network=TellingNetwork(8, str(tmp_path / folder)),
                    memory=str(tmp_path / folder / "cache"),
                    max_epochs=1,
                    batch_size=8,
                    random_state=0,
                ),
                {"z": [2, 3, 4]},
                scoring=lambda estimator, X, y=None: -estimator.validation_loss_,
                cv=2,
            )

        alone = search("alone").fit(frames)
        with parallel_config(backend="dask", scatter=[frames]):
            together = search("together").fit(frames)

        np.testing.assert_allclose(
            together.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"], rtol=1e-5
        )
        assert together.best_params_ == alone.best_params_
        # Two folds of 8 images and the refit on 16, each for the components and for its targets.
        for folder in ("alone", "together"):
            seen = [n for n in told(tmp_path / folder, "seen") if n > 1]
            assert sorted(seen) == [8, 8, 8, 8, 16, 16]
