"""Images of any number of channels: encoders take all, the loss network three of them."""

import functools
import pickle
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from skfp import FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder

COUNTS = [2, 4, 5, 13]
pixels = functools.partial(PixelAutoencoder, z=3, max_epochs=1, batch_size=8, random_state=0)


@pytest.fixture(scope="module")
def shades():
    """Make images whose channels hold different squares, uint8."""

    @functools.cache
    def make(n_channels, side=64):
        random = np.random.default_rng(n_channels)
        images = random.integers(0, 60, (8, side, side, n_channels), dtype=np.uint8)
        for image in images:
            for channel in range(n_channels):
                row, column = random.integers(0, side // 2, 2)
                image[row : row + 24, column : column + 24, channel] = random.integers(128, 256)
        images.flat[:2] = 0, 255
        return images

    return make


@pytest.fixture(scope="module")
def icons():
    """Twelve black icons on transparent, RGBA."""
    images = np.zeros((12, 64, 64, 4), dtype=np.uint8)
    for row, image in enumerate(images):
        image[row : row + 8 + 3 * row, 4 * row : 4 * row + 20, 3] = 255
    return images


class Average(nn.Module):
    """A loss network that shows what it was given: the mean of each channel."""

    def forward(self, images):
        return images.mean(dim=(2, 3))


def seen(images, channels, **parameters):
    """Return the features of a loss network that averages its three channels."""
    encoder = FeaturePredictionEncoder(
        2, loss_network=Average(), channels=channels, max_epochs=1, random_state=0, **parameters
    ).fit(images)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255))
    with torch.no_grad():
        return encoder.loss_network_(pixels).numpy()


class TestAnyNumber:
    @pytest.mark.parametrize("encoder", ["image", "features", "custom"])
    @pytest.mark.parametrize("n_channels", COUNTS)
    def test_trains_and_embeds(self, quick, shades, n_channels, encoder):
        def custom(size):
            assert size == (64, 64)
            return nn.Conv2d(n_channels, 4, 16, stride=16)

        X = shades(n_channels)
        fitted = quick(encoder=custom if encoder == "custom" else encoder).fit(X)

        embedding = fitted.transform(X)

        assert embedding.shape == (8, 3)
        assert len(np.unique(embedding.round(4), axis=0)) == 8
        assert np.isfinite(fitted.score(X))
        assert fitted.image_shape_ == X.shape[1:]
        np.testing.assert_allclose(fitted.transform(X.transpose(0, 3, 1, 2)), embedding, atol=1e-5)
        np.testing.assert_allclose(fitted.transform(X / 255), embedding, atol=1e-4)
        np.testing.assert_allclose(fitted.transform(X.reshape(8, -1)), embedding, atol=1e-5)

    @pytest.mark.parametrize("n_channels", [1, *COUNTS])
    def test_first_and_last_convolution_have_as_many(self, shades, n_channels):
        fitted = pixels().fit(shades(n_channels))

        n_in = max(n_channels, 3) if n_channels == 1 else n_channels
        assert fitted.encoder_.trunk[0].in_channels == n_in
        convolutions = [m for m in fitted.decoder_.modules() if isinstance(m, nn.ConvTranspose2d)]
        assert convolutions[-1].out_channels == n_in
        embedding = fitted.transform(shades(n_channels))
        assert fitted.inverse_transform(embedding).shape == shades(n_channels).shape

    @pytest.mark.parametrize("n_channels", COUNTS)
    def test_every_channel_counts(self, shades, n_channels):
        X = shades(n_channels)
        fitted = pixels().fit(X)
        embedding = fitted.transform(X)

        for channel in range(n_channels):
            other = X.copy()
            other[..., channel] = 255 - other[..., channel]
            assert np.abs(fitted.transform(other) - embedding).max() > 1e-3

    def test_near_infrared_is_not_alpha(self, shades):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fitted = pixels().fit(shades(4))

        assert fitted.encoder_.trunk[0].in_channels == 4

    @pytest.mark.parametrize("image_shape", [(64, 64, 5), (5, 64, 64)])
    def test_rows(self, shades, image_shape):
        X = shades(5) if image_shape[2] == 5 else shades(5).transpose(0, 3, 1, 2)
        fitted = pixels(image_shape=image_shape).fit(X.reshape(8, -1))

        np.testing.assert_array_equal(
            fitted.transform(X.reshape(8, -1)), pixels().fit(X).transform(X)
        )

    def test_channels_first_is_the_same_fit(self, shades):
        X = shades(5)

        np.testing.assert_array_equal(
            pixels().fit_transform(X), pixels().fit_transform(X.transpose(0, 3, 1, 2))
        )

    def test_another_number_in_transform(self, shades):
        fitted = pixels().fit(shades(5))

        for other in (4, 13):
            with pytest.raises(ValueError, match=r"fitted on images of shape \(64, 64, 5\)"):
                fitted.transform(shades(other))

    def test_streams_and_warm_starts(self, shades):
        fitted = FeaturePredictionEncoder(2, loss_network=Average(), channels="pca", random_state=0)
        fitted.partial_fit(shades(5)).partial_fit(shades(5))
        fitted.set_params(warm_start=True, max_epochs=1).fit(shades(5))

        assert fitted.transform(shades(5)).shape == (8, 2)


class TestWhatTheLossNetworkGets:
    def test_the_first_three(self, shades):
        X = shades(5)
        np.testing.assert_allclose(seen(X, "auto"), X[..., :3].mean((1, 2)) / 255, rtol=1e-5)

    def test_the_mean_of_two(self, shades):
        X = shades(2)
        expected = X.mean((1, 2, 3))[:, None].repeat(3, axis=1) / 255
        np.testing.assert_allclose(seen(X, "auto"), expected, rtol=1e-5)

    def test_the_mean_of_all(self, shades):
        X = shades(5)
        expected = X.mean((1, 2, 3))[:, None].repeat(3, axis=1) / 255
        np.testing.assert_allclose(seen(X, "mean"), expected, rtol=1e-5)

    @pytest.mark.parametrize("channels", [(4, 1, 0), [3, 3, 2], (np.int64(4), 0, 1)])
    def test_three_of_five(self, shades, channels):
        X = shades(5)
        np.testing.assert_allclose(
            seen(X, channels), X[..., list(channels)].mean((1, 2)) / 255, rtol=1e-5
        )

    def test_blue_first(self, shades):
        X = shades(3)
        np.testing.assert_allclose(seen(X, (2, 1, 0)), X[..., ::-1].mean((1, 2)) / 255, rtol=1e-5)

    def test_blue_first_is_what_autoencoders_compare(self, frames):
        for encoder in ("image", "features"):
            settings = {"z": 2, "encoder": encoder, "max_epochs": 1, "random_state": 0}
            rgb = PerceptualAutoencoder(**settings).fit(frames)
            bgr = PerceptualAutoencoder(**settings, channels=(2, 1, 0)).fit(frames[..., ::-1])
            with torch.no_grad():
                X = torch.from_numpy(frames[..., ::-1].transpose(0, 3, 1, 2) / np.float32(255))
                np.testing.assert_allclose(
                    bgr.loss_network_(X), rgb.loss_network_(X.flip(1)), atol=1e-5
                )

    @pytest.mark.parametrize("n_channels", [2, 5])
    def test_principal_components(self, n_channels):
        random = np.random.default_rng(0)
        brightness = random.random((8, 64, 64, 1))
        weights = np.linspace(0.2, 0.9, n_channels)
        X = np.rint(255 * brightness * weights).astype(np.uint8)

        encoder = FeaturePredictionEncoder(
            2, loss_network=nn.AvgPool2d(8), channels="pca", max_epochs=1, random_state=0
        ).fit(X)

        # The first component is the brightness that all channels share, on the whole of [0, 1].
        tensors = torch.from_numpy(X.transpose(0, 3, 1, 2) / np.float32(255))
        with torch.no_grad():
            selected = encoder.loss_network_.network[0](tensors)[:, 0].numpy()
        correlation = np.corrcoef(selected.ravel(), brightness.ravel())[0, 1]
        assert abs(correlation) > 0.99
        assert selected.min() < 0.05
        assert selected.max() > 0.95

    @pytest.mark.parametrize("wrong", [(0, 1), (0, 1, 5), (-1, 0, 1), (0, 1, 2, 3), (0.5, 1, 2)])
    def test_channels_that_are_not_there(self, shades, wrong):
        with pytest.raises(ValueError, match=r"channels is .*5 channels.*from 0 to 4"):
            FeaturePredictionEncoder(2, channels=wrong, max_epochs=1).fit(shades(5))

    def test_unknown_words(self, shades):
        with pytest.raises(ValueError, match="'channels' parameter"):
            pixels(channels="first").fit(shades(5))


class TestAlpha:
    """Transparent images are composited on white where the input says that they are."""

    def test_icons_do_not_become_one_black_image(self, quick, icons):
        embedding = quick(channels="rgba").fit_transform(icons)

        assert len(np.unique(embedding.round(4), axis=0)) == 12

    def test_are_on_white(self, icons):
        white = np.repeat(255 - icons[..., 3:], 3, axis=3)

        fitted = pixels(channels="rgba").fit(icons)

        np.testing.assert_allclose(
            fitted.transform(icons), pixels().fit(white).transform(white), atol=1e-5
        )
        # Where the input says so, PIL images and RGB are the same images.
        embedding = fitted.transform(icons)
        pil = [Image.fromarray(icon) for icon in icons]
        for same in (pil, white, white / 255, icons / 255, icons.transpose(0, 3, 1, 2)):
            np.testing.assert_allclose(fitted.transform(same), embedding, atol=1e-5)
        np.testing.assert_allclose(pixels().fit(pil).transform(pil), embedding, atol=1e-5)
        np.testing.assert_allclose(
            pixels(channels="rgba").fit(pil).transform(icons[..., :3] * 0 + white),
            embedding,
            atol=1e-5,
        )

    def test_half_transparent(self):
        X = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 4), dtype=np.uint8)
        opacity = X[..., 3:] / 255
        expected = X[..., :3] / 255 * opacity + (1 - opacity)

        fitted = pixels(channels="rgba").fit(X)

        np.testing.assert_allclose(
            fitted.transform(X), pixels().fit(expected).transform(expected), atol=1e-4
        )

    def test_decoded_images_are_opaque(self, icons):
        fitted = pixels(channels="rgba").fit(icons)

        decoded = fitted.inverse_transform(fitted.transform(icons))

        assert decoded.shape == icons.shape
        assert (decoded[..., 3] == 255).all()

    def test_arrays_that_look_like_rgba_are_pointed_out(self, icons):
        with pytest.warns(UserWarning, match=r"looks like alpha.*channels=\"rgba\""):
            pixels().fit(icons)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pixels(channels=(0, 1, 2)).fit(icons)

    @pytest.mark.parametrize("n_channels", [1, 2, 5])
    def test_needs_four_channels(self, shades, n_channels):
        with pytest.raises(ValueError, match=rf'"rgba", but X has {n_channels} channels'):
            pixels(channels="rgba").fit(shades(n_channels))


def test_channels_of_another_scale_are_pointed_out(shades):
    X = shades(5) / 255
    X[..., 3] /= 1000

    with pytest.warns(UserWarning, match=r"Channels \[3\] of X use less than 2 %"):
        pixels().fit(X)


class TestKept:
    @pytest.fixture(params=["auto", "pca", "mean", (4, 0, 2), "rgba"], ids=str)
    def fitted(self, request, shades):
        X = shades(4 if request.param == "rgba" else 5)
        return X, FeaturePredictionEncoder(
            3, encoder="features", channels=request.param, max_epochs=1, random_state=0
        ).fit(X)

    def test_pickle_and_save(self, fitted, tmp_path):
        X, encoder = fitted
        encoder.save(tmp_path / "encoder")
        for again in (
            FeaturePredictionEncoder.load(tmp_path / "encoder"),
            pickle.loads(pickle.dumps(encoder)),
        ):
            assert again.channels == encoder.channels
            np.testing.assert_array_equal(again.transform(X), encoder.transform(X))
            assert again.score(X) == pytest.approx(encoder.score(X))

    def test_onnx_and_torch(self, fitted, tmp_path):
        onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
        X, encoder = fitted
        encoder.to_onnx(tmp_path / "encoder.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")

        (embedding,) = session.run(None, {"images": X})

        np.testing.assert_allclose(embedding, encoder.transform(X), atol=1e-4)
        with torch.no_grad():
            of_torch = encoder.to_torch()(torch.from_numpy(X))
        np.testing.assert_allclose(of_torch, encoder.transform(X), atol=1e-5)


class TestAmbiguousShapes:
    def test_a_single_image_is_pointed_out(self, shades):
        X = shades(5)
        with pytest.warns(UserWarning, match=r"64 by 5 pixels.*one image with 5 channels"):
            pixels().fit(X[0])
        with pytest.warns(UserWarning, match=r"3 grey images.*one image with 3 channels"):
            pixels().fit(shades(3)[0].transpose(2, 0, 1))

    def test_two_long_axes_of_three(self):
        X = np.random.default_rng(0).random((6, 40, 70, 30))
        with pytest.warns(UserWarning, match=r"30 channels of 40 by 70 pixels"):
            pixels().fit(X)
