"""Descriptions of loss networks: parameters, fits with them, several at once."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

import skfp
from skfp import FeaturePredictionEncoder, LossNetwork, PerceptualAutoencoder
from skfp._loss_network import empty_loss_network, load_loss_network

EARLY = LossNetwork(layer="features.1", pool=4)


@pytest.fixture
def images():
    return torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def quick(loss_network, **parameters):
    return FeaturePredictionEncoder(
        z=3, loss_network=loss_network, **{"max_epochs": 1, "random_state": 0} | parameters
    )


def mean_colour(images):
    return images.mean(dim=(2, 3))


class TestParameters:
    def test_clone_and_repr(self):
        assert repr(clone(EARLY)) == "LossNetwork(layer='features.1', pool=4)"
        assert "LossNetwork" in quick(EARLY)._repr_html_()

    def test_search_over_layers(self, frames):
        search = GridSearchCV(
            quick(LossNetwork(pool="avg")),
            {"loss_network__layer": ["features.1", "features.4"]},
            cv=2,
            error_score="raise",
        )
        search.fit(frames)
        assert search.cv_results_["param_loss_network__layer"].tolist() == [
            "features.1",
            "features.4",
        ]
        assert len(set(search.cv_results_["mean_test_score"])) == 2

    @pytest.mark.parametrize(
        ("name", "wrong"),
        [
            ("network", 3),
            ("preprocess", "caffe"),
            ("resize", 0),
            ("resize", "large"),
            ("pool", "max"),
            ("pool", 0),
            ("squash", "tanh"),
            ("weight", 0.0),
        ],
    )
    def test_out_of_range(self, frames, name, wrong):
        with pytest.raises(ValueError, match=f"'{name}' parameter of LossNetwork"):
            quick(LossNetwork(**{name: wrong})).fit(frames)

    def test_layer_of_a_module(self, frames):
        with pytest.raises(ValueError, match="networks that are named"):
            quick(LossNetwork(nn.AvgPool2d(8), layer="0")).fit(frames)

    def test_class_in_place_of_a_module(self, frames):
        with pytest.raises(TypeError, match=r"class AvgPool2d.*instance"):
            quick(nn.AvgPool2d).fit(frames)


class TestDefault:
    def test_is_the_papers_network_bit_for_bit(self, frames):
        """However the embedded network is asked for, nothing about the fit changes."""
        by_name = quick("alexnet").fit(frames)
        assert list(by_name.loss_network_.state_dict()) == [
            "network.0.weight",
            "network.0.bias",
            "network.3.weight",
            "network.3.bias",
        ]
        for loss_network in (LossNetwork(), LossNetwork(layer="features.4"), ["alexnet"]):
            other = quick(loss_network).fit(frames)
            assert other.loss_network_.fingerprint() == by_name.loss_network_.fingerprint()
            np.testing.assert_array_equal(other.transform(frames), by_name.transform(frames))

    def test_fingerprint_is_that_of_caches_written_before(self):
        expected = "b460b986b65734ede1ea7a04a7f6bad8071fe52b0d9a1aba3a309d858b622924"
        network = LossNetwork("alexnet", pool="flatten")
        assert load_loss_network(network).fingerprint() == expected


class TestPoolingAndSquashing:
    @pytest.mark.parametrize(
        ("pool", "shape"),
        [("flatten", (192, 7, 7)), ("avg", (192,)), (3, (192, 3, 3)), (9, (192, 7, 7))],
    )
    def test_shapes(self, images, pool, shape):
        network = load_loss_network(LossNetwork(pool=pool))
        assert network.maps_shape((64, 64)) == shape
        assert network(images).shape == (6, np.prod(shape))

    @pytest.mark.parametrize(
        ("size", "shape"),
        [
            ((64, 64), (192, 7, 7)),
            ((72, 72), (192, 8, 8)),
            ((224, 224), (192, 7, 7)),
            ((64, 224), (192, 7, 7)),
            ((32, 128), (192, 3, 7)),
        ],
    )
    def test_large_maps_are_pooled_by_default(self, size, shape):
        assert load_loss_network("alexnet").maps_shape(size) == shape

    def test_default_pooling_averages(self):
        images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        maps = load_loss_network(LossNetwork(pool="flatten"))(images).reshape(2, 192, 27, 27)
        assert maps[0].numel() == 139_968
        pooled = load_loss_network("alexnet")(images)
        expected = torch.nn.functional.adaptive_avg_pool2d(maps, 7).flatten(1)
        torch.testing.assert_close(pooled, expected)

    def test_images_of_64_pixels_are_not_pooled_by_default(self, images):
        whole = load_loss_network(LossNetwork(pool="flatten"))(images)
        assert torch.equal(load_loss_network("alexnet")(images), whole)
        assert empty_loss_network("vgg16").maps_shape((64, 64)) == (512, 8, 8)

    def test_own_network_is_pooled_on_request_only(self):
        assert load_loss_network(nn.Identity()).maps_shape((64, 64)) == (3, 64, 64)

    @pytest.mark.parametrize("loss_network", [None, "alexnet", "vgg16", "photo"])
    def test_paper_settings_pool_nothing(self, loss_network):
        given = {} if loss_network is None else {"loss_network": loss_network}
        described = FeaturePredictionEncoder.with_paper_settings(**given).loss_network
        assert described.pool == "flatten"
        if loss_network in (None, "alexnet"):
            assert load_loss_network(described).maps_shape((96, 96)) == (192, 11, 11)

    def test_paper_settings_leave_a_description_as_it_is(self):
        given = LossNetwork(pool=2)
        assert (
            FeaturePredictionEncoder.with_paper_settings(loss_network=given).loss_network is given
        )

    def test_average_is_of_squashed_features(self, images):
        maps = load_loss_network("alexnet").network(images)
        pooled = load_loss_network(LossNetwork(pool="avg"))(images)
        torch.testing.assert_close(pooled, maps.mean(dim=(2, 3)))

    def test_tokens(self, images):
        def tokens(images):
            return images.flatten(2).transpose(1, 2)

        network = load_loss_network(LossNetwork(tokens, pool="avg"))
        torch.testing.assert_close(network(images), images.mean(dim=(2, 3)))
        first, rest = images[:, :, 0, 0], images.flatten(2)[:, :, 1:].mean(dim=2)
        for pool, expected in (("cls", first), ("cls+avg", torch.cat([first, rest], dim=1))):
            network = load_loss_network(LossNetwork(tokens, pool=pool))
            torch.testing.assert_close(network(images), expected)
        with pytest.raises(ValueError, match=r"pool=2 needs feature maps"):
            load_loss_network(LossNetwork(tokens, pool=2)).n_features((64, 64))

    def test_maps_have_no_class_token(self):
        with pytest.raises(ValueError, match=r"pool='cls' needs tokens.*\(192, 7, 7\)"):
            load_loss_network(LossNetwork(pool="cls")).n_features((64, 64))

    @pytest.mark.parametrize(
        ("name", "layer", "bounded"),
        [
            ("alexnet", None, True),
            ("alexnet", "features.2", True),  # a max pool of a ReLU
            ("alexnet", "features.3", False),
            ("alexnet", "features.7", True),
            ("vgg16", None, True),
            ("resnet18", "layer2", True),
            ("resnet18", "layer2.0.bn1", False),
            ("resnet18", "avgpool", False),
            ("efficientnet_b0", None, False),
            ("convnext_tiny", None, False),
            ("efficientnet_lite0", "stage3", False),
            ("efficientnet_lite0", "head", True),
            ("photo", None, False),
        ],
    )
    def test_only_what_ends_in_a_relu_is_squashed_by_default(self, name, layer, bounded):
        network = empty_loss_network(LossNetwork(name, layer=layer)).network
        assert any(isinstance(step, nn.Sigmoid) for step in network) == bounded

    def test_own_network_is_squashed_on_request_only(self, images):
        assert torch.equal(load_loss_network(mean_colour)(images), mean_colour(images))
        squashed = load_loss_network(LossNetwork(mean_colour, squash="sigmoid"))
        assert torch.equal(squashed(images), mean_colour(images).sigmoid())
        unbounded = load_loss_network(LossNetwork(squash=None))(images)
        assert unbounded.max() > 1


class TestCallable:
    def test_function(self, frames):
        encoder = quick(mean_colour).fit(frames)
        assert encoder.loss_network_.n_features((64, 64)) == 3
        again = pickle.loads(pickle.dumps(encoder))
        np.testing.assert_array_equal(again.transform(frames), encoder.transform(frames))

    def test_lambdas_have_fingerprints_of_their_own(self):
        mean, largest = (
            load_loss_network(function)
            for function in (lambda x: x.mean((2, 3)), lambda x: x.amax((2, 3)))
        )
        assert mean.fingerprint() != largest.fingerprint()


class TestSeveral:
    def test_each_has_its_share_of_the_variance(self, frames):
        networks = [EARLY, LossNetwork(pool="avg", weight=3.0)]
        encoder = quick(networks, target_components=None).fit(frames)
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
        variance = encoder.loss_network_(pixels).var(dim=0, correction=0)
        n_early = 64 * 4 * 4
        assert len(variance) == n_early + 192
        assert variance.mean().item() == pytest.approx(1, rel=1e-3)
        assert variance[:n_early].sum() / variance.sum() == pytest.approx(0.25, rel=1e-3)

    def test_rows_are_the_networks_features_scaled(self, frames):
        encoder = quick([EARLY, "alexnet"]).fit(frames)
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
        early = load_loss_network(EARLY)(pixels)
        scaled = encoder.loss_network_(pixels)[:, : early.shape[1]]
        ratio = scaled / early
        torch.testing.assert_close(ratio, ratio[:1, :1].expand_as(ratio))

    def test_all_images_get_the_scales_of_training(self, frames):
        encoder = quick([EARLY, "alexnet"], target_components=None)
        encoder.fit(frames[:12], X_val=frames[12:])
        scales = encoder.loss_network_.network.scales.clone()
        encoder.score(frames)
        encoder.partial_fit(frames[12:])
        assert torch.equal(encoder.loss_network_.network.scales, scales)

    def test_perceptual_loss(self, frames):
        autoencoder = PerceptualAutoencoder(
            z=2, loss_network=[EARLY, mean_colour], max_epochs=1, random_state=0
        )
        assert np.isfinite(autoencoder.fit(frames).score(frames))

    def test_is_saved(self, frames, tmp_path):
        encoder = quick([LossNetwork(pool=2, weight=2.0), EARLY], encoder="features").fit(frames)
        encoder.save(tmp_path / "encoder.safetensors")
        loaded = FeaturePredictionEncoder.load(tmp_path / "encoder.safetensors")
        for again in (loaded, pickle.loads(pickle.dumps(encoder))):
            np.testing.assert_array_equal(again.transform(frames), encoder.transform(frames))
            assert again.score(frames) == encoder.score(frames)
        assert [network.weight for network in loaded.loss_network] == [2.0, 1.0]

    def test_search_keeps_weights(self, frames):
        copied = clone(quick([EARLY, "alexnet"]))
        assert copied.loss_network[0] is not EARLY
        assert copied.loss_network[0].pool == 4

    def test_none(self, frames):
        with pytest.raises(ValueError, match="empty list"):
            quick([]).fit(frames)

    def test_no_maps_to_draw(self, frames):
        encoder = quick([EARLY, "alexnet"]).fit(frames)
        with pytest.raises(ValueError, match="one network"):
            skfp.FeatureErrorDisplay.from_estimator(encoder, frames)


class TestFeaturesThatTeachNothing:
    @pytest.mark.parametrize("target_components", [None, 2])
    def test_constant(self, frames, target_components):
        def constant(images):
            return torch.ones_like(images[:, :, 0, 0])

        with pytest.raises(ValueError, match="same features for all images"):
            quick(constant, target_components=target_components).fit(frames)
        with pytest.raises(ValueError, match="'constant' gives the same features"):
            quick(["alexnet", constant]).fit(frames)

    @pytest.mark.parametrize("target_components", [None, 2])
    def test_nan(self, frames, target_components):
        def root(images):
            return (images.mean(dim=(2, 3)) - 0.5).sqrt()

        with pytest.raises(ValueError, match="gives NaN or infinity"):
            quick(root, target_components=target_components).fit(frames)

    def test_saturated(self, frames):
        loss_network = LossNetwork(lambda images: 1e3 * (1 + images), squash="sigmoid")
        with pytest.raises(ValueError, match="squash=None"):
            quick(loss_network).fit(frames)

    def test_equal_images_are_accepted(self, frames):
        equal = np.repeat(frames[:1], 6, axis=0)
        assert np.isfinite(quick(EARLY).fit_transform(equal)).all()

    def test_no_tensor(self, frames):
        with pytest.raises(ValueError, match="must turn 1 images into a tensor"):
            quick(lambda images: [images]).fit(frames)

    def test_too_small(self, frames):
        with pytest.raises(ValueError, match=r"64 x 64 pixels.*nearer to the input.*resize"):
            quick(nn.Conv2d(3, 1, kernel_size=65)).fit(frames)


class TestSaving:
    def test_is_json_in_the_header(self, frames, tmp_path):
        path = tmp_path / "encoder.safetensors"
        quick(EARLY).fit(frames).save(path)
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        parameters = json.loads(header["__metadata__"]["skfp"])["parameters"]
        assert parameters["loss_network"]["LossNetwork"]["layer"] == "features.1"

    def test_what_fit_used_outlives_new_parameters(self, frames, tmp_path):
        encoder = quick(clone(EARLY), encoder="features").fit(frames)
        embedding = encoder.transform(frames)
        encoder.set_params(loss_network__layer="features.4", loss_network__pool="avg")
        encoder.save(tmp_path / "encoder.safetensors")
        loaded = FeaturePredictionEncoder.load(tmp_path / "encoder.safetensors")
        for again in (loaded, pickle.loads(pickle.dumps(encoder))):
            np.testing.assert_array_equal(again.transform(frames), embedding)
            assert again.loss_network.layer == "features.4"

    def test_skops(self, frames):
        encoder = quick(EARLY).fit(frames)
        data = skops.io.dumps(encoder)
        trusted = skops.io.get_untrusted_types(data=data)
        assert {name.partition(".")[0] for name in trusted} == {"skfp"}
        loaded = skops.io.loads(data, trusted=trusted)
        np.testing.assert_array_equal(loaded.transform(frames), encoder.transform(frames))

    def test_own_network_is_no_json(self, frames, tmp_path):
        encoder = quick(LossNetwork(nn.AvgPool2d(8), pool="avg")).fit(frames)
        with pytest.raises(ValueError, match=r"a file without code cannot hold.*joblib\.dump"):
            encoder.save(tmp_path / "encoder.safetensors")


class TestTable:
    def test_rows_are_plain(self):
        table = skfp.loss_networks()
        assert type(table) is list
        vgg = next(row for row in table if row["known as"] == "relu4_3")
        assert vgg == {
            "network": "vgg16",
            "layer": "features.22",
            "known as": "relu4_3",
            "default": True,
            "suits": "textures and details of photographs",
            "features": 32_768,
            "weights": "download",
            "licence": "BSD-3-Clause",
        }

    def test_rows_describe_networks(self):
        embedded = [row for row in skfp.loss_networks() if row["weights"] == "embedded"]
        assert {row["network"]: row["known as"] for row in embedded if row["default"]} == {
            "alexnet": "relu2",
            "efficientnet_lite0": "pooled features",
        }
        for row in embedded:
            network = load_loss_network(LossNetwork(row["network"], layer=row["layer"]))
            assert network.n_features((64, 64)) == row["features"]

    def test_one_default_for_each_network(self):
        table = pd.DataFrame(skfp.loss_networks())
        assert (table.groupby("network")["default"].sum() == 1).all()
