"""Networks of torchvision and timm as loss networks: cut at a layer, with weights from files."""

import pickle
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from skfp import FeaturePredictionEncoder, LossNetwork
from skfp._loss_network import empty_loss_network, load_loss_network
from skfp._loss_network import weights as weights_module

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return models.resnet18(weights=None).eval()


@pytest.fixture(scope="module")
def resnet_file(resnet, tmp_path_factory):
    """All weights of a ResNet, as torchvision publishes them."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(resnet.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def encoder(resnet_file, frames):
    network = LossNetwork("resnet18", layer="layer1", weights=resnet_file, pool=4)
    return FeaturePredictionEncoder(
        z=3, encoder="features", loss_network=network, max_epochs=1, random_state=0
    ).fit(frames)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    timm = pytest.importorskip("timm")
    path = tmp_path_factory.mktemp("timm") / "resnet10t.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("resnet10t").state_dict(), path)
    return path


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """No weights in torch's cache, and no network to get them from."""

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(weights_module, "download_url_to_file", refuse)
    return tmp_path / "hub" / "checkpoints"


def normalised(images):
    mean, std = (torch.tensor(IMAGENET[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    return (images - mean) / std


class TestLayer:
    def test_features_are_the_layers_output_on_normalised_images(self, images, resnet, resnet_file):
        network = load_loss_network(LossNetwork("resnet18", layer="layer2", weights=resnet_file))

        outputs = []
        hook = resnet.layer2.register_forward_hook(lambda *args: outputs.append(args[-1]))
        with torch.no_grad():
            resnet(normalised(images))
        hook.remove()

        expected = outputs[0].sigmoid().flatten(1)
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)
        assert network.maps_shape((64, 64)) == (128, 8, 8)

    def test_the_rest_of_the_network_is_left_out(self, resnet_file):
        network = load_loss_network(LossNetwork("resnet18", layer="layer1", weights=resnet_file))
        names = {name.split(".")[-3] for name in network.state_dict() if "layer" in name}
        assert not [name for name in network.state_dict() if "layer2" in name or "fc" in name]
        assert names

    def test_a_node_within_a_block(self, images, resnet_file):
        network = load_loss_network(
            LossNetwork("resnet18", layer="layer1.0.relu", weights=resnet_file)
        )
        assert network(images).shape == (3, 64 * 16 * 16)

    def test_default_of_other_networks_is_what_their_classifier_takes(self):
        assert empty_loss_network("resnet34").maps_shape((64, 64)) == (512,)

    def test_network_that_calculates_while_it_is_made(self):
        assert empty_loss_network("regnet_y_400mf").maps_shape((64, 64)) == (440,)

    def test_default_of_offered_networks(self):
        assert empty_loss_network("vgg16").maps_shape((64, 64)) == (512, 8, 8)

    def test_unknown_layer_suggests_nearest(self, resnet_file):
        network = LossNetwork("resnet18", layer="layr2", weights=resnet_file)
        with pytest.raises(ValueError, match=r"no layer 'layr2'\. Did you mean .*'layer2'"):
            load_loss_network(network)

    def test_unknown_model_suggests_nearest(self):
        with pytest.raises(ValueError, match=r"'resnet19'\. Did you mean .*'resnet18'"):
            load_loss_network("resnet19")

    @pytest.mark.parametrize(
        ("layer", "shape"), [("features.1", (64, 15, 15)), ("features.3", (192, 7, 7))]
    )
    def test_earlier_layers_of_alexnet_are_embedded_too(self, empty_cache, layer, shape):
        assert load_loss_network(LossNetwork(layer=layer)).maps_shape((64, 64)) == shape

    def test_later_layers_of_alexnet_begin_with_the_embedded_ones(self, images, tmp_path):
        torch.manual_seed(0)
        alexnet = models.alexnet(weights=None).eval()
        save_file(alexnet.state_dict(), tmp_path / "alexnet.safetensors")
        network = LossNetwork(layer="features.7", weights=tmp_path / "alexnet.safetensors")
        embedded = network.get_params() | {"layer": "features.4"}

        expected = alexnet.features[5:8](alexnet.features[:5](images)).sigmoid().flatten(1)
        torch.testing.assert_close(load_loss_network(network)(images), expected)
        second = load_loss_network(LossNetwork(**embedded))(images)
        torch.testing.assert_close(second, alexnet.features[:5](images).sigmoid().flatten(1))


class TestPreprocessing:
    def test_none_gives_images_as_they_are(self, images, resnet, resnet_file):
        network = LossNetwork("resnet18", layer="layer1", weights=resnet_file, squash=None)
        plain = load_loss_network(network.set_params(preprocess=None))
        auto = load_loss_network(network.set_params(preprocess="auto"))
        torch.testing.assert_close(plain(normalised(images)), auto(images))
        assert not torch.allclose(plain(images), auto(images))

    def test_resize_lets_a_network_take_small_images(self, images):
        network = empty_loss_network(LossNetwork("vit_b_16", resize=224))
        assert network.maps_shape((64, 64)) == (768,)
        with pytest.raises(ValueError, match=r"64 x 64 pixels.*resize=224"):
            empty_loss_network("vit_b_16").n_features((64, 64))

    def test_resize_keeps_the_aspect(self):
        network = load_loss_network(LossNetwork(torch.nn.Identity(), resize=32))
        assert network.maps_shape((64, 96)) == (3, 32, 48)

    def test_imagenet_for_any_network(self, images):
        network = load_loss_network(LossNetwork(torch.nn.Identity(), preprocess="imagenet"))
        torch.testing.assert_close(network(images), normalised(images).flatten(1))


class TestWeights:
    def test_not_there_and_no_network(self, empty_cache):
        with pytest.raises(FileNotFoundError) as caught:
            load_loss_network("vgg16")
        message = str(caught.value)
        assert "no route to host" in message
        assert str(empty_cache / "vgg16-397923af.pth") in message
        assert "weights=" in message

    def test_are_found_where_the_message_says(self, empty_cache, resnet, images):
        empty_cache.mkdir(parents=True)
        torch.save(resnet.state_dict(), empty_cache / "resnet18-f37072fd.pth")
        by_default = load_loss_network("resnet18")
        by_name = load_loss_network(LossNetwork("resnet18", weights="IMAGENET1K_V1"))
        assert torch.equal(by_default(images), by_name(images))

    def test_safetensors_and_checkpoints_of_training(self, resnet, resnet_file, tmp_path, images):
        save_file(resnet.state_dict(), tmp_path / "resnet.safetensors")
        torch.save({"epoch": 3, "state_dict": resnet.state_dict()}, tmp_path / "resnet.pt")
        expected = load_loss_network(LossNetwork("resnet18", weights=resnet_file))(images)
        for file in ("resnet.safetensors", "resnet.pt"):
            network = LossNetwork("resnet18", weights=str(tmp_path / file))
            assert torch.equal(load_loss_network(network)(images), expected)

    def test_a_file_never_runs_code(self, tmp_path):
        class Harm:
            def __reduce__(self):
                return (Path(tmp_path, "harmed").touch, ())

        torch.save({"conv1.weight": Harm()}, tmp_path / "bad.pth")
        with pytest.raises(ValueError, match=r"Cannot read the weights file .*bad\.pth"):
            load_loss_network(LossNetwork("resnet18", weights=tmp_path / "bad.pth"))
        assert not (tmp_path / "harmed").exists()

    def test_of_another_network(self, resnet_file):
        with pytest.raises(ValueError, match=r"Wrong weights for 'vgg16'.*features.0.weight"):
            load_loss_network(LossNetwork("vgg16", weights=resnet_file))

    def test_loading_leaves_the_random_state_alone(self, resnet_file):
        before = torch.get_rng_state()
        load_loss_network(LossNetwork("resnet18", weights=resnet_file))
        assert torch.equal(torch.get_rng_state(), before)


class TestFitted:
    def test_learns_the_networks_features(self, encoder):
        assert encoder.loss_network_.maps_shape((64, 64)) == (64, 4, 4)
        assert encoder.loss_network_.n_features((64, 64)) == 64 * 4 * 4

    def test_is_saved_without_its_weights_file(self, encoder, frames, tmp_path):
        encoder.save(tmp_path / "encoder.safetensors")
        encoder.loss_network.set_params(weights="gone.pth")
        loaded = FeaturePredictionEncoder.load(tmp_path / "encoder.safetensors")
        pickled = pickle.loads(pickle.dumps(encoder))
        for again in (loaded, pickled):
            np.testing.assert_array_equal(again.transform(frames), encoder.transform(frames))
            assert again.score(frames) == encoder.score(frames)
        assert isinstance(loaded.loss_network, LossNetwork)
        assert loaded.loss_network.pool == 4

    def test_exports(self, encoder, frames, tmp_path):
        import onnxruntime

        module = encoder.to_torch()
        np.testing.assert_allclose(
            module(torch.from_numpy(frames)).detach(), encoder.transform(frames), atol=1e-5
        )
        encoder.to_onnx(tmp_path / "encoder.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
        (embedding,) = session.run(None, {"images": frames[:5]})
        np.testing.assert_allclose(embedding, encoder.transform(frames[:5]), atol=1e-4)

    def test_network_pickles(self, encoder, images):
        again = pickle.loads(pickle.dumps(encoder.loss_network_))
        assert torch.equal(again(images), encoder.loss_network_(images))

    def test_same_fingerprint_when_made_again(self, resnet_file):
        network = LossNetwork("resnet18", weights=resnet_file)
        assert load_loss_network(network).fingerprint() == load_loss_network(network).fingerprint()


class TestTimm:
    def test_pooled_output_by_default(self, weights, images):
        network = load_loss_network(LossNetwork("timm:resnet10t", weights=weights))
        assert network(images).shape == (3, 512)

    def test_layer(self, weights, images):
        network = LossNetwork("timm:resnet10t", layer="layer1", weights=weights)
        assert load_loss_network(network).maps_shape((64, 64))[0] == 64

    def test_unknown_model(self, weights):
        with pytest.raises(ValueError, match=r"'timm:resnet10x'\. Did you mean .*'resnet10t'"):
            load_loss_network("timm:resnet10x")

    def test_fits_and_is_saved(self, weights, frames, tmp_path):
        network = LossNetwork("timm:resnet10t", layer="layer1", weights=weights, pool="avg")
        encoder = FeaturePredictionEncoder(
            z=2, encoder="features", loss_network=network, max_epochs=1, random_state=0
        ).fit(frames)
        encoder.save(tmp_path / "encoder.safetensors")
        loaded = FeaturePredictionEncoder.load(tmp_path / "encoder.safetensors")
        np.testing.assert_array_equal(loaded.transform(frames), encoder.transform(frames))


def test_timm_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'skfp\[timm\]'"):
        load_loss_network("timm:resnet18")
