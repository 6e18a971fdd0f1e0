"""Networks of torchvision and timm as loss networks: cut at a layer, with weights from files."""

import pickle
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
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
            LossNetwork("resnet18", layer="layer1.0.relu", weights=resnet_file, pool="flatten")
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
        with pytest.raises(ValueError, match=r"'photos'\. Did you mean 'photo'"):
            load_loss_network("photos")

    @pytest.mark.parametrize(
        ("layer", "shape"), [("features.1", (64, 15, 15)), ("features.3", (192, 7, 7))]
    )
    def test_earlier_layers_of_alexnet_are_embedded_too(self, empty_cache, layer, shape):
        network = load_loss_network(LossNetwork(layer=layer, pool="flatten"))
        assert network.maps_shape((64, 64)) == shape

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


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory):
    """Random weights of a transformer whose images have 224 pixels."""
    timm = pytest.importorskip("timm")
    path = tmp_path_factory.mktemp("timm") / "vit.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), path)
    return path


class TestTransformers:
    @pytest.fixture
    def vit(self, vit_file):
        return LossNetwork("timm:vit_tiny_patch16_224", weights=vit_file, squash=None)

    @staticmethod
    def tokens(vit_file, images, **settings):
        import timm

        model = timm.create_model(
            "vit_tiny_patch16_224",
            pretrained=True,
            pretrained_cfg_overlay={"file": str(vit_file)},
            num_classes=0,
            **settings,
        )
        with torch.no_grad():
            return model.eval().forward_features(2 * images - 1)

    @pytest.mark.parametrize("size", [224, 112])
    def test_any_size(self, vit, vit_file, images, size):
        """The network gives what timm's own, built for that size, does."""
        network = load_loss_network(vit.set_params(resize=size))
        resized = torch.nn.functional.interpolate(images, size=[size, size], mode="bilinear")
        expected = self.tokens(vit_file, resized, img_size=size)[:, 0]
        torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("size", [(64, 64), (70, 50), (64, 160)])
    def test_sides_that_are_no_multiple_of_patches(self, vit, size):
        assert load_loss_network(vit).maps_shape(size) == (192,)

    def test_pooling_of_tokens(self, vit, vit_file):
        images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        tokens = self.tokens(vit_file, images)
        class_token, average = tokens[:, 0], tokens[:, 1:].mean(dim=1)
        expected = {
            "cls": class_token,
            "avg": average,
            "cls+avg": torch.cat([class_token, average], dim=1),
            "auto": class_token,  # what the model itself pools
        }
        for pool, features in expected.items():
            network = load_loss_network(vit.set_params(pool=pool))
            torch.testing.assert_close(network(images), features, rtol=1e-3, atol=1e-4)

    def test_registers_are_left_out(self):
        timm = pytest.importorskip("timm")
        images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(0)
        model = timm.create_model("vit_small_patch14_reg4_dinov2", depth=1).eval()

        class Tokens(torch.nn.Module):
            num_prefix_tokens = model.num_prefix_tokens

            def forward(self, images):
                return model.forward_features(images)

        resize = {"resize": model.patch_embed.img_size[0]}
        tokens = load_loss_network(LossNetwork(Tokens(), **resize)).network(images)
        average = load_loss_network(LossNetwork(Tokens(), pool="avg", **resize))(images)
        assert tokens.shape[1] == 1 + 4 + 37 * 37
        torch.testing.assert_close(average, tokens[:, 5:].mean(dim=1))

    def test_a_block(self, vit, images):
        block = load_loss_network(vit.set_params(layer="blocks.1", pool="cls+avg", resize=112))
        assert block(images).shape == (3, 2 * 192)

    def test_no_class_token(self):
        pytest.importorskip("timm")
        network = LossNetwork("timm:vit_base_patch16_siglip_gap_224", pool="cls")
        with pytest.raises(ValueError, match="has no class token"):
            empty_loss_network(network)

    def test_signed_features_are_left_as_they_are(self, vit, images):
        features = load_loss_network(vit.set_params(squash="auto"))(images)
        assert features.min() < -1
        assert features.max() > 1

    def test_torchvisions(self):
        network = LossNetwork("vit_b_16", layer="encoder.ln", pool="cls+avg", resize=224)
        assert empty_loss_network(network).maps_shape((64, 64)) == (2 * 768,)

    def test_maps_with_channels_last(self):
        network = LossNetwork("swin_t", layer="features.1", pool=3)
        assert empty_loss_network(network).maps_shape((64, 64)) == (96, 3, 3)

    def test_fits_and_is_saved(self, vit, frames, tmp_path):
        network = vit.set_params(pool="cls+avg", resize=48)
        encoder = FeaturePredictionEncoder(
            z=2, encoder="features", loss_network=network, max_epochs=1, random_state=0
        ).fit(frames)
        encoder.save(tmp_path / "encoder.safetensors")
        loaded = FeaturePredictionEncoder.load(tmp_path / "encoder.safetensors")
        np.testing.assert_array_equal(loaded.transform(frames), encoder.transform(frames))

    def test_published_weights(self):
        """DINOv2 at 112 pixels gives what timm's model, built for 112 pixels, gives."""
        timm = pytest.importorskip("timm")
        hub = pytest.importorskip("huggingface_hub")
        name = "vit_small_patch14_dinov2.lvd142m"
        if not hub.try_to_load_from_cache(f"timm/{name}", "model.safetensors"):
            pytest.skip(f"the weights of {name} are not in the hub's cache")
        photographs = [load_sample_image(f"{file}.jpg")[:420, :420] for file in ("china", "flower")]
        images = torch.from_numpy(np.stack(photographs)).permute(0, 3, 1, 2) / 255
        network = load_loss_network(LossNetwork(f"timm:{name}", resize=112, pool="cls"))
        model = timm.create_model(name, pretrained=True, num_classes=0, img_size=112).eval()
        resized = torch.nn.functional.interpolate(
            images, size=[112, 112], mode="bilinear", antialias=True
        )
        with torch.no_grad():
            expected = model(normalised(resized))
        torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-3)


def test_timm_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'skfp\[timm\]'"):
        load_loss_network("timm:resnet18")
