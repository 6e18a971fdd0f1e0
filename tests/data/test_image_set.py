"""Every accepted form of images: what networks get of it, and what comes back."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from skfp import FeaturePredictionEncoder, PixelAutoencoder
from skfp._data import Preprocess, Reading, check_images, check_images_like
from skfp._images.arrays import as_array
from skfp._images.value_range import kind_of

HEIGHT, WIDTH = 20, 28

# How RGB images (n, height, width, 3) are put into a layout, and image_shape where it is needed.
RGB = {
    "hwc": (lambda X: X, None),
    "chw": (lambda X: X.transpose(0, 3, 1, 2), None),
    "rows of hwc": (lambda X: X.reshape(len(X), -1), (HEIGHT, WIDTH, 3)),
    "rows of chw": (lambda X: X.transpose(0, 3, 1, 2).reshape(len(X), -1), (3, HEIGHT, WIDTH)),
}
RGBA = {
    "hwc": (lambda X: X, None),
    "chw": (lambda X: X.transpose(0, 3, 1, 2), None),
    "rows of hwc": (lambda X: X.reshape(len(X), -1), (HEIGHT, WIDTH, 4)),
}
GREY = {
    "hw": (lambda X: X, None),
    "hw1": (lambda X: X[..., None], None),
    "1hw": (lambda X: X[:, None], None),
    "rows of hw": (lambda X: X.reshape(len(X), -1), (HEIGHT, WIDTH)),
}
# Value ranges: how images on the unit scale are stored, and the dtype that comes back.
RANGES = {
    "uint8": (lambda X: np.rint(X * 255).astype(np.uint8), np.uint8, (0, 255)),
    "float32 in [0, 1]": (lambda X: X.astype(np.float32), np.float32, (0, 1)),
    "float64 in [0, 1]": (lambda X: X.astype(np.float64), np.float32, (0, 1)),
    "float32 in [-1, 1]": (lambda X: (X * 2 - 1).astype(np.float32), np.float32, (-1, 1)),
    "int16 in [-1000, 500]": (
        lambda X: np.rint(X * 1500 - 1000).astype(np.int16),
        np.float32,
        (-1000, 500),
    ),
    "uint16": (lambda X: np.rint(X * 65535).astype(np.uint16), np.float32, (0, 65535)),
}


def images_of(X, resize="tile"):
    """Read images; tiled, so that the pixels in their upper left corner are as stored."""
    array = as_array(X)
    return check_images(array, kind_of(X, array), Reading(resize=resize))


def pixel_autoencoder(**parameters):
    return PixelAutoencoder(z=2, max_epochs=1, batch_size=8, random_state=0, **parameters)


@pytest.fixture(scope="module")
def rgb():
    images = np.random.default_rng(0).integers(0, 256, (10, HEIGHT, WIDTH, 3), dtype=np.uint8)
    images.flat[:2] = 0, 255
    return images


@pytest.fixture(scope="module")
def fitted(rgb):
    return pixel_autoencoder().fit(rgb)


class TestLayouts:
    """The layout changes nothing but the shape of what goes in and comes out."""

    @pytest.mark.parametrize("layout", RGB)
    def test_rgb(self, rgb, fitted, layout):
        lay, image_shape = RGB[layout]
        X = lay(rgb)

        encoder = pixel_autoencoder(image_shape=image_shape)
        embedding = encoder.fit_transform(X)

        np.testing.assert_array_equal(embedding, fitted.transform(rgb))
        decoded = encoder.inverse_transform(embedding)
        assert decoded.shape == X.shape
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, lay(fitted.inverse_transform(embedding)))

    @pytest.mark.parametrize("layout", RGBA)
    def test_opaque_images_are_rgb_and_come_back_opaque(self, rgb, fitted, layout):
        lay, image_shape = RGBA[layout]
        X = lay(np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], axis=-1))

        encoder = pixel_autoencoder(image_shape=image_shape, channels="rgba")
        embedding = encoder.fit_transform(X)

        np.testing.assert_allclose(embedding, fitted.transform(rgb), atol=1e-5)
        decoded = fitted.inverse_transform(embedding)
        opaque = np.concatenate([decoded, np.full_like(decoded[..., :1], 255)], axis=-1)
        np.testing.assert_allclose(encoder.inverse_transform(embedding), lay(opaque), atol=1)

    @pytest.mark.parametrize("layout", GREY)
    def test_grey_is_read_as_rgb_of_equal_channels(self, rgb, layout):
        lay, image_shape = GREY[layout]
        X = lay(rgb[..., 0])
        as_rgb = pixel_autoencoder().fit(rgb[..., :1].repeat(3, axis=-1))

        encoder = pixel_autoencoder(image_shape=image_shape)
        embedding = encoder.fit_transform(X)

        np.testing.assert_array_equal(embedding, as_rgb.transform(rgb[..., :1].repeat(3, axis=-1)))
        decoded = encoder.inverse_transform(embedding)
        assert decoded.shape == X.shape
        assert decoded.dtype == np.uint8
        grey = as_rgb.inverse_transform(embedding).mean(axis=-1)
        np.testing.assert_allclose(decoded, lay(grey), atol=1)

    @pytest.mark.parametrize("layout", ["chw", "rows of hwc"])
    def test_transform_takes_another_layout_of_the_same_images(self, rgb, fitted, layout):
        lay, _ = RGB[layout]

        np.testing.assert_array_equal(fitted.transform(lay(rgb)), fitted.transform(rgb))

    def test_rows_are_read_in_the_layout_of_fit(self, rgb, fitted):
        channels_first = pixel_autoencoder().fit(rgb.transpose(0, 3, 1, 2))
        rows = rgb.transpose(0, 3, 1, 2).reshape(10, -1)

        np.testing.assert_array_equal(channels_first.transform(rows), fitted.transform(rgb))

    def test_list_of_images_and_tensor(self, rgb, fitted):
        expected = fitted.transform(rgb)

        np.testing.assert_array_equal(fitted.transform(list(rgb)), expected)
        np.testing.assert_array_equal(fitted.transform(torch.from_numpy(rgb)), expected)
        np.testing.assert_array_equal(pixel_autoencoder().fit(list(rgb)).transform(rgb), expected)

    def test_read_only_file_is_read_without_a_warning(self, rgb, fitted, tmp_path, recwarn):
        np.save(tmp_path / "bytes.npy", rgb)
        np.save(tmp_path / "floats.npy", (rgb / 255).astype(np.float32))
        always = torch.is_warn_always_enabled()
        torch.set_warn_always(True)
        try:
            for name in ("bytes.npy", "floats.npy"):
                X = np.load(tmp_path / name, mmap_mode="r")
                embedding = pixel_autoencoder().fit(X).transform(X)
                np.testing.assert_array_equal(embedding, fitted.transform(rgb))
        finally:
            torch.set_warn_always(always)
        assert [str(warning.message) for warning in recwarn if "writ" in str(warning.message)] == []

    def test_images_are_left_as_they_are(self, rgb):
        for X in (rgb.copy(), (rgb / 255).astype(np.float32), rgb / 255 * 7 - 3):
            before = copy.deepcopy(X)
            encoder = pixel_autoencoder().fit(X)
            encoder.transform(X)
            encoder.score(X)
            np.testing.assert_array_equal(X, before)


class TestRanges:
    @pytest.mark.parametrize("name", RANGES)
    @pytest.mark.parametrize("layout", ["hwc", "chw", "rows of hwc"])
    def test_comes_back_in_the_range_of_the_input(self, rgb, name, layout):
        store, dtype, (low, high) = RANGES[name]
        lay, image_shape = RGB[layout]
        X = lay(store(rgb / 255))
        assert (X.min(), X.max()) == (low, high)

        encoder = pixel_autoencoder(image_shape=image_shape)
        decoded = encoder.inverse_transform(encoder.fit_transform(X))

        assert decoded.shape == X.shape
        assert decoded.dtype == dtype
        assert low <= decoded.min() < decoded.max() <= high
        # After one epoch on noise, the decoder still gives about the middle of the range.
        assert abs(decoded.mean() - (low + high) / 2) < (high - low) / 4

    @pytest.mark.parametrize("name", RANGES)
    def test_networks_get_the_unit_scale(self, rgb, name):
        X = RANGES[name][0](rgb / 255)

        read = Preprocess()(images_of(X).read(slice(0, 10)))[..., :HEIGHT, :WIDTH]

        assert read.dtype == torch.float32
        step = 1e-3 if name.startswith("int16") else 1e-4 if name == "uint16" else 1e-6
        np.testing.assert_allclose(read.permute(0, 2, 3, 1), rgb / 255, rtol=0, atol=step)

    @pytest.mark.parametrize("scale", [np.float32, np.float64])
    def test_uint8_and_floats_give_the_same_embedding(self, frames, scale):
        floats = (frames / 255.0).astype(scale)
        encoder = FeaturePredictionEncoder(z=4, max_epochs=2, batch_size=8, random_state=0)

        embedding = encoder.fit_transform(frames)
        np.testing.assert_array_equal(encoder.transform(floats), embedding)
        np.testing.assert_array_equal(encoder.fit_transform(floats), embedding)
        np.testing.assert_array_equal(encoder.transform(frames), embedding)

    def test_range_is_that_of_fit(self, rgb):
        X = rgb / 255 * 7 - 3
        encoder = pixel_autoencoder().fit(X)
        dark = X * 0.1 - 2.7  # spans [-3, -2.3]

        embedding = encoder.transform(dark)

        together = encoder.transform(np.concatenate([dark, X]))
        np.testing.assert_allclose(embedding, together[:10], rtol=1e-5)
        assert not np.allclose(embedding, together[10:])

    def test_low_contrast_floats_in_the_unit_range_are_not_stretched(self, rgb):
        X = rgb / 255 * 0.5 + 0.25

        read = images_of(X).read(slice(None))[..., :HEIGHT, :WIDTH]

        np.testing.assert_allclose(read.permute(0, 2, 3, 1), X, rtol=1e-6)

    def test_booleans_are_black_and_white(self, rgb):
        X = rgb[..., 0] > 127

        read = Preprocess()(images_of(X).read(slice(None)))

        np.testing.assert_array_equal(read[:, 0, :HEIGHT, :WIDTH], X.astype(np.float32))

    @pytest.mark.parametrize("dtype", [">f4", ">u2", np.float16, np.int64])
    def test_uncommon_types(self, dtype):
        X = np.zeros((2, 16, 16), dtype=dtype)
        X[1] = 1

        read = images_of(X).read(slice(None))

        assert read.dtype == torch.float32
        assert read[0].unique().tolist() == [0]
        assert read[1].unique().tolist() == [1]


class TestTiling:
    """With resize="tile", images under 64 pixels are repeated to fill 64 (wrap padding)."""

    @pytest.mark.parametrize("size", [(32, 32), (16, 16), (20, 28), (48, 80), (63, 64), (64, 64)])
    def test_output_is_the_wrapped_image(self, size, noise):
        X = noise(2, *size, 3)
        bottom, right = (max(64 - side, 0) for side in size)

        padded = Preprocess()(images_of(X).read(slice(None)))

        expected = np.pad(X / 255, ((0, 0), (0, bottom), (0, right), (0, 0)), mode="wrap")
        assert padded.shape[2:] == (max(64, size[0]), max(64, size[1]))
        np.testing.assert_allclose(padded.permute(0, 2, 3, 1), expected, rtol=1e-6)

    def test_training_is_that_of_the_tiled_image(self, quick, noise):
        small = noise(8, 32, 32, 3)
        tiled = np.tile(small, (1, 2, 2, 1))

        from_small, from_tiled = quick(resize="tile").fit(small), quick().fit(tiled)

        np.testing.assert_array_equal(from_small.transform(small), from_tiled.transform(tiled))
        assert from_small.validation_loss_ == from_tiled.validation_loss_

    def test_decoded_images_have_the_size_of_the_input(self, noise):
        small = noise(8, 32, 32, 3)
        tiled = np.tile(small, (1, 2, 2, 1))
        from_small, from_tiled = (pixel_autoencoder(resize="tile").fit(X) for X in (small, tiled))
        embedding = from_small.transform(small)

        np.testing.assert_array_equal(
            from_small.inverse_transform(embedding),
            from_tiled.inverse_transform(embedding)[:, :32, :32],
        )

    @pytest.mark.parametrize("size", [(16, 16), (16, 100), (17, 65), (63, 64), (79, 81), (80, 112)])
    def test_any_size_from_16_up(self, size, noise):
        X = noise(6, *size, 3)
        encoder = pixel_autoencoder()

        embedding = encoder.fit_transform(X)

        assert embedding.shape == (6, 2)
        assert encoder.inverse_transform(embedding).shape == X.shape


def test_a_network_that_works_in_place_leaves_the_images_alone():
    class Inverting(nn.Module):
        def forward(self, images):
            return images.neg_().flatten(1)

    images = np.random.default_rng(0).random((10, 3, 64, 64), dtype=np.float32)
    before = images.copy()
    FeaturePredictionEncoder(
        z=2, loss_network=Inverting(), target_components=2, max_epochs=1, random_state=0
    ).fit(images)
    np.testing.assert_array_equal(images, before)


def test_an_axis_of_length_one_may_run_backwards(rgb):
    grey = rgb[..., :1]
    expected = images_of(grey).read(slice(2, 5))

    np.testing.assert_array_equal(images_of(grey.copy()[..., ::-1]).read(slice(2, 5)), expected)


@pytest.mark.parametrize("name", ["b", "h", "i", "l", "q", "B", "H", "I", "L", "Q"])
def test_every_integer_of_c(rgb, name):
    X = rgb // 2
    expected = images_of(X.astype(np.float64)).read([1, 2])

    images = images_of(X.astype(name))

    assert images.format.low == 0 or name == "B"
    unit = 255 if name == "B" else 1
    np.testing.assert_allclose(images.read([1, 2]) / unit, expected, rtol=1e-6)


class TestFormat:
    @pytest.mark.parametrize(
        ("shape", "size", "channels"),
        [
            ((20, 28), (20, 28), 1),
            ((20, 28, 1), (20, 28), 1),
            ((1, 20, 28), (20, 28), 1),
            ((20, 28, 3), (20, 28), 3),
            ((3, 20, 28), (20, 28), 3),
            ((20, 28, 4), (20, 28), 4),
            ((4, 20, 28), (20, 28), 4),
            ((20, 28, 2), (20, 28), 2),
            ((13, 20, 28), (20, 28), 13),
            ((28, 28, 13), (28, 28), 13),
            ((13, 28, 28), (28, 28), 13),
            ((5, 5, 3), (5, 5), 3),
            ((3, 4, 4), (4, 4), 3),
        ],
    )
    def test_axes(self, shape, size, channels):
        images = images_of(np.zeros((2, *shape), dtype=np.uint8))

        assert images.format.size == size
        assert images.read([0, 1]).shape == (2, channels, 64, 64)

    def test_reads_the_images_asked_for(self, rgb):
        images = images_of(rgb)

        for rows in ([7, 2], slice(3, 5)):
            read = images.read(rows).permute(0, 2, 3, 1)[:, :HEIGHT, :WIDTH]
            np.testing.assert_array_equal(read, rgb[rows])

    def test_bytes_stay_bytes(self, rgb):
        images = images_of(rgb)

        assert images.read([0]).dtype == torch.uint8
        assert images.nbytes == rgb.nbytes
        assert np.shares_memory(images.array, rgb)

    def test_bytes_after_a_fit_on_floats(self, rgb):
        format = images_of(rgb / 255).format

        read = Preprocess()(check_images_like(rgb, "uint8", format).read([0]))

        np.testing.assert_allclose(
            read[0, :, :HEIGHT, :WIDTH].permute(1, 2, 0), rgb[0] / 255, rtol=1e-6
        )
