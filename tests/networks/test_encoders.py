"""Encoders and decoders: shapes, parameter counts and layers of the paper, encoders of the user."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from skfp import FeaturePredictionEncoder, PixelAutoencoder
from skfp._networks import (
    IMAGE_ENCODERS,
    CustomEncoder,
    FeatureDecoder,
    FeatureEncoder,
    ImageDecoder,
    ImageEncoder,
    fold_batch_norm,
)


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def sides(module, inputs, kind):
    """Sides of the images that come out of each layer of a kind."""
    shapes = []
    for layer in module.modules():
        if isinstance(layer, kind):
            layer.register_forward_hook(lambda *args: shapes.append(tuple(args[-1].shape[1:])))
    with torch.inference_mode():
        module(inputs)
    return shapes


class TestParameterCounts:
    """The protocol's numbers for 64 by 64 pixels and z = 64."""

    def test_image_encoder(self):
        encoder = ImageEncoder((64, 64), z=64)
        assert n_parameters(encoder) == 691_104 + 65_600
        assert n_parameters(encoder.head) == 65_600

    def test_image_decoder(self):
        assert n_parameters(ImageDecoder(64, (64, 64))) == 3_626_019

    def test_feature_encoder(self):
        assert n_parameters(FeatureEncoder(9_408, z=64)) == 19_400_768

    def test_feature_decoder(self):
        assert n_parameters(FeatureDecoder(64, 9_408)) == 19_410_112


class TestShapes:
    @pytest.mark.parametrize(
        ("side", "expected"), [(64, (31, 14, 6, 2)), (96, (47, 22, 10, 4))], ids=["64", "96"]
    )
    def test_image_encoder_sides(self, side, expected):
        shapes = sides(
            ImageEncoder((side, side), z=5).eval(), torch.zeros(1, 3, side, side), nn.Conv2d
        )

        channels = (32, 64, 128, 256)
        assert shapes == [(c, s, s) for c, s in zip(channels, expected, strict=True)]

    @pytest.mark.parametrize(
        ("side", "expected"), [(64, (5, 13, 30, 64)), (96, (9, 21, 46, 96))], ids=["64", "96"]
    )
    def test_image_decoder_sides(self, side, expected):
        shapes = sides(ImageDecoder(5, (side, side)).eval(), torch.zeros(1, 5), nn.ConvTranspose2d)

        channels = (128, 64, 32, 3)
        assert shapes == [(c, s, s) for c, s in zip(channels, expected, strict=True)]

    @pytest.mark.parametrize("size", [(64, 64), (64, 65), (79, 80), (97, 64), (100, 140)])
    def test_any_size_from_64_up(self, size):
        encoder, decoder = ImageEncoder(size, z=4).eval(), ImageDecoder(4, size).eval()
        with torch.inference_mode():
            decoded = decoder(encoder(torch.rand(2, 3, *size)))

        assert decoded.shape == (2, 3, *size)
        assert 0 <= decoded.min() <= decoded.max() <= 1

    @pytest.mark.parametrize(("n_features", "hidden"), [(9_408, 2_048), (1_728, 864), (10, 5)])
    def test_hidden_layer_is_half_the_features_and_2048_at_most(self, n_features, hidden):
        encoder, decoder = FeatureEncoder(n_features, z=3), FeatureDecoder(3, n_features)

        widths = [m.out_features for m in encoder.modules() if isinstance(m, nn.Linear)]
        assert widths == [hidden, 3]
        widths = [m.out_features for m in decoder.modules() if isinstance(m, nn.Linear)]
        assert widths == [hidden, n_features]

    def test_decoder_of_components_keeps_the_hidden_layer(self):
        decoder = FeatureDecoder(3, 1_728, n_outputs=20)

        assert decoder(torch.zeros(2, 3)).shape == (2, 20)
        assert n_parameters(decoder) == 4 * 864 + 865 * 20


class TestLayers:
    """Stride 2, no padding, BatchNorm before each ReLU, a sigmoid at the end of the decoder."""

    def test_image_encoder(self):
        layers = list(ImageEncoder((64, 64), z=2).trunk)

        assert [type(layer) for layer in layers] == [
            *[nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 4,
            nn.Flatten,
        ]
        assert [(c.kernel_size, c.stride, c.padding) for c in layers[::3][:4]] == [
            ((4, 4), (2, 2), (0, 0))
        ] * 4

    def test_image_decoder(self):
        layers = list(ImageDecoder(2, (64, 64)).layers)

        assert [type(layer) for layer in layers] == [
            *[nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU] * 3,
            *[nn.ConvTranspose2d, nn.Sigmoid],
        ]
        assert [layer.kernel_size[0] for layer in layers[::3]] == [5, 5, 6, 6]
        assert {(layer.stride, layer.padding) for layer in layers[::3]} == {((2, 2), (0, 0))}

    def test_embedding_is_not_bounded_by_an_activation(self):
        embedding = ImageEncoder((64, 64), z=64)(torch.rand(4, 3, 64, 64))

        assert embedding.min() < 0 < embedding.max()


class TestFoldBatchNorm:
    @pytest.fixture
    def encoder(self):
        torch.manual_seed(0)
        encoder = ImageEncoder((64, 64), z=8)
        for _ in range(5):
            # Statistics other than zero and one, so that folding has something to get wrong.
            encoder(torch.rand(8, 3, 64, 64) * 3 - 1)
        return encoder.eval()

    def test_gives_the_same_output_without_batch_norm(self, encoder):
        images = torch.rand(4, 3, 64, 64)

        folded = fold_batch_norm(encoder)

        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
        with torch.inference_mode():
            torch.testing.assert_close(folded(images), encoder(images), rtol=1e-4, atol=1e-5)

    def test_leaves_the_encoder_as_it_is(self, encoder):
        before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
        encoder.train()

        fold_batch_norm(encoder)

        assert encoder.training
        assert sum(isinstance(layer, nn.BatchNorm2d) for layer in encoder.modules()) == 4
        for name, tensor in encoder.state_dict().items():
            torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)

    def test_layers_that_do_more_stay(self):
        class Activated(nn.BatchNorm2d):
            def forward(self, maps):
                return torch.relu(super().forward(maps))

        self.assert_same_folded(nn.Conv2d(3, 4, 8, stride=8), Activated(4))

    def test_layer_that_comes_twice(self):
        relu = nn.ReLU()
        self.assert_same_folded(
            nn.Conv2d(3, 4, 8, stride=8), nn.BatchNorm2d(4), relu, nn.Conv2d(4, 5, 3), relu
        )

    def assert_same_folded(self, *layers):
        encoder = CustomEncoder(lambda size: nn.Sequential(*layers), (64, 64), z=2)
        encoder(torch.rand(8, 3, 64, 64) * 3 - 1)
        encoder.eval()
        images = torch.rand(4, 3, 64, 64)
        torch.testing.assert_close(
            fold_batch_norm(encoder)(images), encoder(images), rtol=1e-4, atol=1e-5
        )

    def test_module_that_begins_with_batch_norm(self):
        trunk = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 8, stride=8), nn.BatchNorm2d(4))
        encoder = CustomEncoder(lambda size: trunk, (64, 64), z=2)
        encoder(torch.rand(8, 3, 64, 64) * 3 - 1)
        encoder.eval()

        folded = fold_batch_norm(encoder)

        kinds = [type(layer) for layer in folded.modules()]
        assert kinds.count(nn.BatchNorm2d) == 1
        images = torch.rand(4, 3, 64, 64)
        torch.testing.assert_close(folded(images), encoder(images), rtol=1e-4, atol=1e-5)


class TestOtherEncoders:
    def test_small_and_large_have_half_and_twice_the_channels(self):
        for name, factor in (("small", 0.5), ("image", 1), ("large", 2)):
            assert IMAGE_ENCODERS[name] == tuple(int(factor * c) for c in (32, 64, 128, 256))

    @pytest.mark.parametrize("encoder", ["small", "large"])
    def test_fit_save_and_export(self, frames, tmp_path, encoder):
        fitted = FeaturePredictionEncoder(z=3, encoder=encoder, max_epochs=1, random_state=0)
        embedding = fitted.fit_transform(frames)
        fitted.save(tmp_path / "encoder.safetensors")

        assert fitted.encoder_.trunk[0].out_channels == IMAGE_ENCODERS[encoder][0]
        loaded = FeaturePredictionEncoder.load(tmp_path / "encoder.safetensors")
        for again in (loaded, pickle.loads(pickle.dumps(fitted))):
            np.testing.assert_array_equal(again.transform(frames), embedding)
        module = fitted.to_torch(fold_batch_norm=True)
        np.testing.assert_allclose(
            module(torch.from_numpy(frames)).detach(), embedding, rtol=1e-4, atol=1e-5
        )


def make_trunk(size):
    """Pool colours in a grid, whatever the size of the images."""
    assert size == (64, 64)
    return nn.Sequential(
        nn.Conv2d(3, 4, 8, stride=8), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2)
    )


class Tied(nn.Module):
    """Two layers with the same weights."""

    def __init__(self, size):
        super().__init__()
        self.maps = nn.Conv2d(3, 4, 16, stride=16)
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.other.weight = self.one.weight

    def forward(self, images):
        return self.other(torch.relu(self.one(self.maps(images).mean((2, 3)))))


class TestCustomEncoder:
    def test_tied_weights_stay_tied(self, frames, tmp_path):
        """Also in a checkpoint, whose format has no shared memory."""
        parameters = {"z": 2, "encoder": Tied, "max_epochs": 2, "random_state": 0}
        fitted = PixelAutoencoder(**parameters, checkpoint_dir=tmp_path).fit(frames)
        embedding = PixelAutoencoder(**parameters).fit_transform(frames)
        np.testing.assert_array_equal(fitted.transform(frames), embedding)

        again = pickle.loads(pickle.dumps(fitted)).partial_fit(frames)
        module = again.encoder_.trunk[0]
        assert module.one.weight is module.other.weight
        np.testing.assert_array_equal(
            again.transform(frames), fitted.partial_fit(frames).transform(frames)
        )

    def test_lazy_layers(self, frames):
        fitted = PixelAutoencoder(
            z=2, encoder=lambda size: nn.LazyConv2d(4, 16, stride=16), max_epochs=1
        )
        assert fitted.fit_transform(frames).shape == (len(frames), 2)

    @pytest.mark.parametrize("gamma", [0.0, 0.1])
    def test_fits_pickles_and_exports(self, frames, gamma):
        fitted = FeaturePredictionEncoder(
            z=3, encoder=make_trunk, gamma=gamma, max_epochs=2, random_state=0
        )
        embedding = fitted.fit_transform(frames)

        assert embedding.shape == (len(frames), 3)
        again = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(again.transform(frames), embedding)
        assert again.partial_fit(frames).n_epochs_ == 3
        np.testing.assert_array_equal(clone(fitted).fit_transform(frames), embedding)
        np.testing.assert_allclose(
            fitted.to_torch()(torch.from_numpy(frames)).detach(), embedding, rtol=1e-4, atol=1e-5
        )

    def test_cannot_go_into_a_file_without_code(self, frames, tmp_path):
        fitted = PixelAutoencoder(z=2, encoder=make_trunk, max_epochs=1).fit(frames)
        with pytest.raises(ValueError, match=r"encoder is a function.*joblib\.dump"):
            fitted.save(tmp_path / "encoder.safetensors")

    def test_a_fit_outlives_another_parameter(self, frames):
        fitted = PixelAutoencoder(z=2, encoder=make_trunk, max_epochs=1).fit(frames)
        embedding = fitted.transform(frames)
        again = pickle.loads(pickle.dumps(fitted.set_params(encoder="small")))
        np.testing.assert_array_equal(again.transform(frames), embedding)

    @pytest.mark.parametrize(
        ("encoder", "error", "message"),
        [
            (nn.AvgPool2d(8), TypeError, "encoder is a module.*function"),
            (lambda size: size, TypeError, "returned a tuple"),
            (lambda size: nn.Linear(3, 4), ValueError, "cannot take images"),
            (lambda size: nn.Conv2d(3, 4, 65), ValueError, "cannot take images"),
            (lambda size: nn.Flatten(0), ValueError, r"\(2, ...\)|returned no tensor"),
        ],
        ids=["module", "no module", "no images", "too small", "no rows"],
    )
    def test_wrong(self, frames, encoder, error, message):
        with pytest.raises(error, match=message):
            PixelAutoencoder(z=2, encoder=encoder, max_epochs=1).fit(frames)
