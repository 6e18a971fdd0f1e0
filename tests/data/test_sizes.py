"""Images of every size, and of several sizes at once."""

import functools
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.nn import functional as F

from skfp import FeaturePredictionEncoder, LossNetwork, PixelAutoencoder
from skfp._data import check_images
from skfp._images.arrays import as_array
from skfp._images.value_range import kind_of

pixels = functools.partial(PixelAutoencoder, z=3, max_epochs=1, batch_size=8, random_state=0)
SIZES = [(2, 2), (2, 9), (3, 3), (4, 4), (5, 2), (8, 8), (9, 30), (16, 100), (63, 64), (79, 81)]


def read(X, **parameters):
    """Return what networks get: (n, channels, height, width) in [0, 1]."""
    from skfp._data import Reading

    array = as_array(X, parameters.get("resize", "auto"))
    images = check_images(array, kind_of(X, array), Reading(**parameters)).read(slice(None))
    return images / 255 if images.dtype == torch.uint8 else images


def resized(X, size):
    """Resize RGB images by torch: bilinearly, antialiased where they shrink."""
    tensors = torch.from_numpy(X.transpose(0, 3, 1, 2) / np.float32(255))
    shrinks = size[0] < X.shape[1] or size[1] < X.shape[2]
    return F.interpolate(tensors, size=size, mode="bilinear", antialias=shrinks)


class TestSmall:
    @pytest.mark.parametrize("size", SIZES, ids=str)
    def test_every_size_from_2_by_2_up(self, noise, size):
        X = noise(8, *size, 3)
        fitted = pixels().fit(X)

        embedding = fitted.transform(X)

        assert embedding.shape == (8, 3)
        assert len(np.unique(embedding.round(5), axis=0)) == 8
        assert fitted.inverse_transform(embedding).shape == X.shape
        assert fitted.image_shape_ == X.shape[1:]

    @pytest.mark.parametrize("size", [(2, 2), (5, 6), (8, 8), (16, 100)], ids=str)
    def test_arrays_rows_and_pil(self, noise, size):
        X = noise(8, *size, 3)
        rows = X.reshape(8, -1)
        embedding = pixels().fit_transform(X)

        of_rows = pixels(image_shape=(*size, 3)).fit_transform(rows)
        of_pil = pixels().fit_transform([Image.fromarray(image) for image in X])
        of_tensors = pixels().fit_transform(torch.from_numpy(X.transpose(0, 3, 1, 2)))

        for other in (of_rows, of_pil, of_tensors):
            np.testing.assert_array_equal(other, embedding)

    @pytest.mark.parametrize("size", [(2, 2), (8, 8), (20, 28), (32, 100), (63, 64)], ids=str)
    def test_are_enlarged_bilinearly(self, noise, size):
        X = noise(3, *size, 3)
        target = tuple(max(side, 64) for side in size)

        np.testing.assert_allclose(read(X), resized(X, target), atol=1e-6)

    def test_the_digits_as_images_and_as_rows(self):
        rows, _ = load_digits(return_X_y=True)
        images = rows.reshape(-1, 8, 8)[:40]
        encoder = FeaturePredictionEncoder(z=8, max_epochs=1, random_state=0)
        with pytest.warns(UserWarning, match="only values from 0 to 16"):
            embedding = encoder.fit_transform(images)

        with_shape = FeaturePredictionEncoder(
            z=8, max_epochs=1, random_state=0, image_shape=(8, 8), value_range=(0, 16)
        )

        np.testing.assert_array_equal(with_shape.fit_transform(rows[:40]), embedding)
        np.testing.assert_array_equal(encoder.transform(rows[:40]), embedding)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 64), (64, 1), (64, 1, 3), (3, 1, 64)], ids=str)
    def test_one_pixel_is_refused(self, quick, noise, shape):
        with pytest.raises(ValueError, match="at least 2 by 2"):
            quick().fit(noise(6, *shape))

    def test_tiling_is_left_to_choose(self, noise):
        X = noise(3, 20, 28, 3)
        tiled = np.pad(X / 255, ((0, 0), (0, 44), (0, 36), (0, 0)), mode="wrap")

        np.testing.assert_allclose(read(X, resize="tile"), tiled.transpose(0, 3, 1, 2), atol=1e-6)

    def test_paper_settings_tile(self, noise):
        X = noise(8, 32, 32, 3)
        tiled = np.tile(X, (1, 2, 2, 1))
        paper = PixelAutoencoder.with_paper_settings(z=3, max_epochs=1, random_state=0)
        assert paper.resize == "tile"

        np.testing.assert_array_equal(
            paper.fit(X).transform(X), pixels(**_paper()).fit(tiled).transform(tiled)
        )


def _paper():
    paper = PixelAutoencoder.with_paper_settings(z=3, max_epochs=1, random_state=0)
    return {**paper.get_params(deep=False), "resize": "auto"}


class TestResize:
    @pytest.mark.parametrize(
        ("resize", "expected"),
        [(64, (64, 96)), (100, (100, 150)), ((64, 80), (64, 80)), ([96, 64], (96, 64))],
        ids=str,
    )
    @pytest.mark.parametrize("size", [(80, 120), (40, 60)], ids=str)
    def test_shorter_side_or_height_and_width(self, noise, resize, expected, size):
        X = noise(4, *size, 3)

        np.testing.assert_allclose(read(X, resize=resize), resized(X, expected), atol=1e-6)

    @pytest.mark.parametrize("resize", [64, np.int64(64), (64, 80)], ids=str)
    def test_transform_takes_any_size(self, noise, resize):
        X = noise(8, 80, 100, 3)
        fitted = pixels(resize=resize).fit(X)

        for size in ((160, 200), (30, 20), (64, 80)):
            other = noise(4, *size, 3, seed=1)
            target = fitted._state.format.network_size
            expected = resized(other, target).numpy()
            with torch.no_grad():
                by_hand = fitted.encoder_(torch.from_numpy(expected)).numpy()
            np.testing.assert_allclose(fitted.transform(other), by_hand, atol=1e-4)

    def test_decoded_images_have_the_size_of_fit(self, noise):
        X = noise(8, 80, 100, 3)
        fitted = pixels(resize=64).fit(X)

        assert fitted.inverse_transform(fitted.transform(X)).shape == X.shape

    def test_another_size_without_resize_names_it(self, noise):
        with pytest.raises(
            ValueError, match=r"fitted on images of shape.*resize=\(height, width\)"
        ):
            pixels().fit(noise(8, 64, 64, 3)).transform(noise(8, 70, 64, 3))

    @pytest.mark.parametrize("wrong", [32, (64,), (64, 20), (64, 64, 3), (64.5, 64), "half", None])
    def test_wrong_sizes(self, noise, wrong):
        with pytest.raises(ValueError, match=r"resize"):
            pixels(resize=wrong).fit(noise(8, 64, 64, 3))

    @pytest.mark.parametrize("resize", ["auto", "tile", 64, (72, 64)], ids=str)
    @pytest.mark.parametrize("size", [(40, 50), (80, 100)], ids=str)
    def test_is_kept(self, noise, tmp_path, resize, size):
        onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
        X = noise(8, *size, 3)
        fitted = pixels(resize=resize).fit(X)
        embedding = fitted.transform(X)

        fitted.save(tmp_path / "encoder")
        for again in (
            PixelAutoencoder.load(tmp_path / "encoder"),
            pickle.loads(pickle.dumps(fitted)),
        ):
            assert again.resize == resize
            np.testing.assert_array_equal(again.transform(X), embedding)
        with torch.no_grad():
            of_torch = fitted.to_torch()(torch.from_numpy(X))
        np.testing.assert_allclose(of_torch, embedding, atol=1e-5)
        fitted.to_onnx(tmp_path / "encoder.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
        (of_onnx,) = session.run(None, {"images": X})
        np.testing.assert_allclose(of_onnx, embedding, atol=1e-4)


class TestLarge:
    def test_are_warned_of_with_the_cost(self, noise):
        with pytest.warns(UserWarning, match=r"300 by 300 pixels.*slow.*memory.*resize=128"):
            pixels().fit(noise(2, 300, 300))

    @pytest.mark.parametrize("parameters", [{"resize": 128}, {"resize": (64, 64)}], ids=str)
    def test_resized_are_not(self, noise, parameters):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fitted = pixels(**parameters).fit(noise(4, 300, 400, 3))

        assert fitted.n_parameters_ < 40e6

    def test_up_to_256_are_not(self, noise):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pixels().fit(noise(2, 256, 256))


class TestMixed:
    """Images of several sizes, in everything that people put them into."""

    @pytest.fixture(scope="class")
    @classmethod
    def mixed(cls):
        random = np.random.default_rng(0)
        sizes = [(80, 60), (64, 64), (30, 90), (100, 100), (64, 40), (70, 64)]
        return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]

    @pytest.fixture(scope="class")
    @classmethod
    def fitted(cls, mixed):
        return pixels(resize=(72, 64)).fit(mixed)

    @pytest.fixture(scope="class")
    @classmethod
    def embedding(cls, mixed, fitted):
        images = torch.cat([resized(image[None], (72, 64)) for image in mixed])
        with torch.no_grad():
            return fitted.encoder_(images).numpy()

    class Photos(torch.utils.data.Dataset):
        def __init__(self, images, make):
            self.images, self.make = images, make

        def __len__(self):
            return len(self.images)

        def __getitem__(self, row):
            return self.make(self.images[row]), 0

    CONTAINERS = (
        lambda images: images,
        tuple,
        lambda images: [Image.fromarray(image) for image in images],
        lambda images: [torch.from_numpy(image) for image in images],
        lambda images: [image / np.float32(255) for image in images],
        lambda images: [image.transpose(2, 0, 1) for image in images],
        lambda images: pd.Series(images),
        lambda images: pd.DataFrame({"image": images}),
        lambda images: np.array([*images, None], dtype=object)[:-1],
        lambda images: TestMixed.Photos(images, lambda image: image),
        lambda images: TestMixed.Photos(images, Image.fromarray),
        lambda images: TestMixed.Photos(
            images, lambda image: torch.from_numpy(image.transpose(2, 0, 1) / np.float32(255))
        ),
    )

    @pytest.mark.parametrize("container", CONTAINERS)
    def test_in_any_container(self, mixed, fitted, embedding, container):
        np.testing.assert_allclose(fitted.transform(container(mixed)), embedding, atol=1e-4)
        np.testing.assert_allclose(
            pixels(resize=(72, 64)).fit_transform(container(mixed)),
            fitted.transform(mixed),
            atol=1e-4,
        )

    def test_one_number_keeps_the_shape_of_data_sets_of_one_size(self, noise):
        X = noise(6, 80, 120, 3)
        photos = TestMixed.Photos(X, lambda image: image)

        np.testing.assert_allclose(
            pixels(resize=64).fit_transform(photos), pixels(resize=64).fit_transform(X), atol=1e-5
        )

    def test_one_number_means_a_square(self, mixed):
        np.testing.assert_array_equal(
            pixels(resize=64).fit_transform(mixed), pixels(resize=(64, 64)).fit_transform(mixed)
        )

    def test_all_estimators(self, quick, mixed):
        for encoder in ("image", "features"):
            assert quick(resize=64, encoder=encoder).fit_transform(mixed).shape == (6, 3)

    def test_one_size_after_several_and_the_other_way(self, mixed, fitted, noise):
        X = noise(6, 80, 60, 3)
        np.testing.assert_array_equal(fitted.transform(X), fitted.transform([*X]))
        of_one_size = pixels(resize=(72, 64)).fit(X)
        together = of_one_size.transform([*mixed, *X])
        np.testing.assert_allclose(together[6:], of_one_size.transform(X), atol=1e-5)

    def test_grey(self, noise):
        grey = [noise(50, 60), noise(64, 30, seed=1), noise(70, 70, seed=2), noise(65, 65, seed=3)]
        fitted = pixels(resize=64).fit(grey)

        np.testing.assert_array_equal(
            fitted.transform(grey), fitted.transform([image[..., None] for image in grey])
        )

    def test_values_not_finite_are_found(self, mixed, fitted):
        broken = [image / 255 for image in mixed]
        broken[3][0, 0, 0] = np.nan

        for method in (fitted.transform, pixels(resize=64).fit):
            with pytest.raises(ValueError, match="the first is image 3"):
                method(broken)

    def test_without_resize_it_is_named(self, quick, mixed):
        for container in (mixed, TestMixed.Photos(mixed, Image.fromarray)):
            with pytest.raises(ValueError, match=r"different shapes.*resize=\(height, width\)"):
                quick().fit(container)

    def test_decoded_files_and_exports_have_the_size_of_resize(self, mixed, fitted, tmp_path):
        embedding = fitted.transform(mixed)
        assert fitted.inverse_transform(embedding).shape == (6, 72, 64, 3)

        fitted.save(tmp_path / "encoder")
        again = PixelAutoencoder.load(tmp_path / "encoder")
        np.testing.assert_array_equal(again.transform(mixed), embedding)
        np.testing.assert_array_equal(
            pickle.loads(pickle.dumps(fitted)).transform(mixed), embedding
        )
        X = np.random.default_rng(0).integers(0, 256, (4, 72, 64, 3), dtype=np.uint8)
        with torch.no_grad():
            np.testing.assert_allclose(
                fitted.to_torch()(torch.from_numpy(X)), fitted.transform(X), atol=1e-5
            )
        onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
        fitted.to_onnx(tmp_path / "encoder.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
        (of_onnx,) = session.run(None, {"images": X})
        np.testing.assert_allclose(of_onnx, fitted.transform(X), atol=1e-4)

    def test_score_memory_and_partial_fit(self, mixed, tmp_path):
        encoder = FeaturePredictionEncoder(
            2, resize=64, memory=tmp_path, max_epochs=1, random_state=0
        ).fit(mixed, X_val=mixed[:3])
        again = FeaturePredictionEncoder(
            2, resize=64, memory=tmp_path, max_epochs=1, random_state=0
        ).fit(mixed, X_val=mixed[:3])

        np.testing.assert_array_equal(again.transform(mixed), encoder.transform(mixed))
        assert encoder.score(mixed[:3]) == pytest.approx(-encoder.validation_loss_, rel=1e-4)
        encoder.partial_fit(mixed)


@pytest.mark.parametrize("encoder", ["small", "features"])
def test_the_loss_network_gets_small_images_enlarged_once(noise, encoder):
    """Encoders of features get them of the images that all networks get, also in transform."""
    X = noise(5, 32, 32, 3)
    seen = []

    def average(images):
        seen.append(images)
        return F.avg_pool2d(images, 32)

    network = LossNetwork(average, resize=128)
    fitted = FeaturePredictionEncoder(2, encoder=encoder, loss_network=network, max_epochs=1).fit(X)
    n_in_fit = len(seen)
    fitted.score(X)

    images = torch.from_numpy(X).permute(0, 3, 1, 2) / 255
    if encoder == "features":
        images = F.interpolate(images, size=64, mode="bilinear")
    expected = F.interpolate(images, size=128, mode="bilinear")
    for batch in (seen[n_in_fit - 1], seen[-1]):
        torch.testing.assert_close(batch, expected, rtol=0, atol=1e-6)
