"""The three estimators as the paper's six procedures: sizes, losses and learned attributes."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from skfp import FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder

# Trainable parameters at 64 by 64 pixels with z = 64 (protocol.md).
IMAGE_ENCODER = 691_104 + 65_600
IMAGE_DECODER = 3_626_019
FEATURE_ENCODER = 19_400_768
FEATURE_DECODER = 19_410_112


def to_tensor(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255))


def forward(encoder, images):
    """Embed and decode images with nothing but the learned networks."""
    pixels = to_tensor(images)
    with torch.inference_mode():
        inputs = encoder.loss_network_(pixels) if "features" in encoder.encoder else pixels
        embedding = encoder.encoder_(inputs)
        return embedding.numpy(), encoder.decoder_(embedding)


class TestSixProcedures:
    @pytest.mark.parametrize("size", [(64, 64), (96, 96), (48, 80)], ids=str)
    def test_fit_and_transform(self, procedure, noise, size):
        X = noise(8, *size, 3)

        encoder = procedure().fit(X)
        embedding = encoder.transform(X)

        assert embedding.shape == (8, 3)
        assert embedding.dtype == np.float32
        assert np.isfinite(embedding).all()
        assert len(np.unique(embedding, axis=0)) == 8
        assert np.isfinite(encoder.validation_loss_)

    @pytest.mark.parametrize(
        ("estimator", "encoder", "n_parameters"),
        [
            (FeaturePredictionEncoder, "image", IMAGE_ENCODER + FEATURE_DECODER),
            (FeaturePredictionEncoder, "features", FEATURE_ENCODER + FEATURE_DECODER),
            (PerceptualAutoencoder, "image", IMAGE_ENCODER + IMAGE_DECODER),
            (PerceptualAutoencoder, "features", FEATURE_ENCODER + IMAGE_DECODER),
            (PixelAutoencoder, "image", IMAGE_ENCODER + IMAGE_DECODER),
            (PixelAutoencoder, "features", FEATURE_ENCODER + IMAGE_DECODER),
        ],
        ids=["I-F-FP", "F-F-FP", "I-I-PS", "F-I-PS", "I-I-PW", "F-I-PW"],
    )
    def test_n_parameters_are_those_of_the_paper(self, estimator, encoder, n_parameters, frames):
        settings = {"target_components": None} if estimator is FeaturePredictionEncoder else {}

        fitted = estimator(z=64, encoder=encoder, max_epochs=1, **settings).fit(frames)

        assert fitted.n_parameters_ == n_parameters
        assert sum(p.numel() for p in fitted.encoder_.parameters()) == (
            IMAGE_ENCODER if encoder == "image" else FEATURE_ENCODER
        )

    def test_learned_attributes(self, trained):
        assert isinstance(trained.encoder_, nn.Module)
        assert isinstance(trained.decoder_, nn.Module)
        assert not trained.encoder_.training
        assert not trained.decoder_.training
        assert trained.image_shape_ == (64, 64, 3)
        assert trained.n_features_in_ == 64 * 64 * 3
        assert trained.n_epochs_ == len(trained.history_) == 2
        assert trained.best_epoch_ in (1, 2)
        assert trained.validation_loss_ == min(row["valid_loss"] for row in trained.history_)

    def test_transform_is_the_encoder_in_evaluation_mode(self, trained, frames):
        by_hand, _ = forward(trained, frames)

        np.testing.assert_allclose(trained.transform(frames), by_hand, rtol=1e-3, atol=1e-4)

    def test_fit_transform_is_fit_and_transform(self, quick, frames):
        encoder = quick()

        np.testing.assert_array_equal(encoder.fit_transform(frames), encoder.transform(frames))

    def test_each_image_is_embedded_on_its_own(self, trained, frames):
        one_by_one = np.concatenate([trained.transform(frames[[i]]) for i in range(4)])

        expected = trained.transform(frames)[:4]
        np.testing.assert_allclose(one_by_one, expected, rtol=1e-3, atol=1e-4)

    def test_all_black_images(self, procedure):
        X = np.zeros((8, 64, 64, 3), dtype=np.uint8)

        encoder = procedure(max_epochs=2).fit(X)

        assert np.isfinite(encoder.transform(X)).all()
        assert all(
            np.isfinite([row["train_loss"], row["valid_loss"]]).all() for row in encoder.history_
        )
        assert np.isfinite(encoder.score(X))
        assert all(weights.isfinite().all() for weights in encoder.encoder_.parameters())

    @pytest.mark.parametrize("value", [0.5, -7.0])
    def test_constant_floats(self, quick, value):
        X = np.full((6, 16, 16), value)

        encoder = quick().fit(X)

        assert np.isfinite(encoder.transform(X)).all()
        assert np.isfinite(encoder.validation_loss_)

    def test_networks_are_on_the_cpu_and_the_loss_network_is_frozen(self, trained):
        loss_network = trained.loss_network_ or nn.Identity()

        for module in (trained.encoder_, trained.decoder_, loss_network):
            assert {weights.device.type for weights in module.parameters()} <= {"cpu"}
        assert not any(weights.requires_grad for weights in loss_network.parameters())


class TestScore:
    """The negative loss of equation 1, 2 or 3, worked out from the learned networks."""

    @pytest.mark.parametrize("procedure", ["I-I-PW", "F-I-PW"], indirect=True)
    def test_pixels_equation_1(self, trained, frames):
        _, decoded = forward(trained, frames)

        error = decoded.numpy() - frames.transpose(0, 3, 1, 2) / 255
        assert trained.score(frames) == pytest.approx(-np.mean(error**2), rel=1e-4)

    @pytest.mark.parametrize("procedure", ["I-I-PS", "F-I-PS"], indirect=True)
    def test_similarity_equation_2(self, trained, frames):
        _, decoded = forward(trained, frames)

        with torch.inference_mode():
            p = [trained.loss_network_(images).numpy() for images in (decoded, to_tensor(frames))]
        assert trained.score(frames) == pytest.approx(-np.mean((p[0] - p[1]) ** 2), rel=1e-4)

    @pytest.mark.parametrize("encoder", ["image", "features"])
    def test_feature_prediction_equation_3(self, frames, encoder):
        fitted = FeaturePredictionEncoder(
            z=3, encoder=encoder, target_components=None, max_epochs=1
        ).fit(frames)

        _, predicted = forward(fitted, frames)

        with torch.inference_mode():
            features = fitted.loss_network_(to_tensor(frames)).numpy()
        expected = -np.mean((predicted.numpy() - features) ** 2)
        assert fitted.score(frames) == pytest.approx(expected, rel=1e-4)

    def test_is_the_negative_validation_loss(self, trained, frames):
        assert trained.score(frames[:7]) == pytest.approx(-trained.validation_loss_, rel=1e-4)

    def test_does_not_depend_on_the_batch_size(self, trained, frames):
        other = copy.deepcopy(trained).set_params(batch_size=3)

        assert other.score(frames) == pytest.approx(trained.score(frames), rel=1e-4)


class TestInverseTransform:
    @pytest.mark.parametrize("procedure", ["I-I-PS", "F-I-PS", "I-I-PW", "F-I-PW"], indirect=True)
    def test_gives_what_the_decoder_gives(self, trained, frames):
        embedding, decoded = forward(trained, frames)

        images = trained.inverse_transform(embedding)

        assert images.shape == frames.shape
        assert images.dtype == np.uint8
        expected = decoded.numpy().transpose(0, 2, 3, 1) * 255
        np.testing.assert_allclose(images, expected, atol=0.51)

    def test_takes_any_number_of_embeddings_of_any_kind(self, frames):
        fitted = PixelAutoencoder(z=3, max_epochs=1, batch_size=4, random_state=0).fit(frames)

        images = fitted.inverse_transform(np.zeros((9, 3)))

        assert images.shape == (9, 64, 64, 3)
        assert (images == images[0]).all()
        np.testing.assert_array_equal(fitted.inverse_transform([[0, 0, 0]]), images[:1])

    def test_feature_prediction_has_none(self):
        assert not hasattr(FeaturePredictionEncoder, "inverse_transform")


class TestLossNetwork:
    @pytest.fixture
    def edges(self):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, kernel_size=5, stride=4), nn.ReLU())

    def test_module_of_the_user(self, procedure, frames, edges):
        encoder = procedure(loss_network=edges)
        before = {name: tensor.clone() for name, tensor in edges.state_dict().items()}

        embedding = encoder.fit_transform(frames)

        assert np.isfinite(embedding).all()
        assert encoder.loss_network is edges
        assert all(weights.requires_grad for weights in edges.parameters())
        for name, tensor in edges.state_dict().items():
            torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)

    def test_is_what_the_loss_is_made_of(self, frames, edges):
        fitted = FeaturePredictionEncoder(
            z=3, loss_network=edges, target_components=None, max_epochs=1, batch_size=6
        ).fit(frames)

        _, predicted = forward(fitted, frames)

        with torch.inference_mode():
            features = edges(to_tensor(frames)).flatten(1)
        expected = -np.mean((predicted.numpy() - features.numpy()) ** 2)
        assert fitted.score(frames) == pytest.approx(expected, rel=1e-4)

    def test_pixels_need_none(self, frames):
        assert PixelAutoencoder(z=2, max_epochs=1).fit(frames).loss_network_ is None


class TestEncodersOfFeatures:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "estimator", [FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder]
    )
    def test_normalisation_lets_them_learn(self, estimator, lander):
        settings = {"z": 8, "max_epochs": 12, "batch_size": 8, "random_state": 0}
        losses = {
            encoder: estimator(encoder=encoder, **settings).fit(lander.images).validation_loss_
            for encoder in ("features", "paper-features")
        }
        assert losses["features"] < 0.6 * losses["paper-features"]

    def test_a_high_learning_rate_does_not_end_learning(self, lander):
        settings = {"lr": 1e-2, "batch_size": 8, "max_epochs": 8, "random_state": 0}
        encoder = FeaturePredictionEncoder(z=8, encoder="features", **settings).fit(lander.images)
        # Centred alone, the encoder ends ten times worse, and worse than after its first epoch.
        assert encoder.history_[-1]["valid_loss"] < 0.005

    def test_the_mean_is_that_of_the_training_images(self, frames):
        encoder = FeaturePredictionEncoder(z=3, encoder="features", max_epochs=1).fit(frames)
        features = encoder.loss_network_(to_tensor(frames))
        centring = encoder.encoder_.trunk[0]
        torch.testing.assert_close(centring.mean, features.mean(dim=0))
        assert centring(features).mean(dim=0).abs().max() < 1e-5

    def test_the_paper_normalises_nothing(self, frames):
        settings = {"encoder": "features", "max_epochs": 1}
        encoder = FeaturePredictionEncoder.with_paper_settings(z=3, **settings).fit(frames)
        assert encoder.encoder == "paper-features"
        assert [type(layer).__name__ for layer in encoder.encoder_.trunk] == ["Linear", "ReLU"]

    def test_training_goes_on_with_the_mean_it_began_with(self, frames):
        encoder = FeaturePredictionEncoder(z=3, encoder="features", max_epochs=1, warm_start=True)
        mean = encoder.fit(frames[:8]).encoder_.trunk[0].mean.clone()
        torch.testing.assert_close(encoder.fit(frames[8:]).encoder_.trunk[0].mean, mean)
        encoder.set_params(encoder="paper-features")
        with pytest.raises(ValueError, match="encoder was 'features' and is 'paper-features'"):
            encoder.fit(frames)


class TestSettings:
    def test_paper_settings_are_one_call_away(self):
        encoder = FeaturePredictionEncoder.with_paper_settings(z=64, random_state=0)
        expected = {
            "z": 64,
            "max_epochs": 50,
            "batch_size": 512,
            "lr": 1e-3,
            "lr_schedule": None,
            "validation_fraction": 0.2,
            "target_components": None,
            "net_params": {"autocast": False},
            "random_state": 0,
        }
        assert expected.items() <= encoder.get_params().items()
        assert FeaturePredictionEncoder.with_paper_settings(batch_size=64).batch_size == 64

    def test_paper_settings_of_an_autoencoder_train(self, frames):
        autoencoder = PixelAutoencoder.with_paper_settings(z=3, max_epochs=1)
        assert autoencoder.fit_transform(frames).shape == (len(frames), 3)
