"""Features on the CPU: small batches for deep networks, and ONNX Runtime where it agrees."""

import logging
import sys

import pytest
import torch
from torch import nn
from torchvision import models

from skfp import FeaturePredictionEncoder, LossNetwork
from skfp._loss_network import FrozenNetwork, Inference, inference, load_loss_network

MANY = 10**6


@pytest.fixture
def images():
    return torch.rand(19, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def photo():
    return load_loss_network("photo")


class Counter(nn.Module):
    """Note how many images come in each batch."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        return images


def counting(n_layers):
    layers = [nn.Conv2d(3, 3, 1) for _ in range(n_layers)]
    network = FrozenNetwork(nn.Sequential(nn.AvgPool2d(8), *layers, Counter()), "counting")
    return network, lambda: network.network[-1].batches


def test_shallow_networks_take_batches_as_they_are(images):
    alexnet = load_loss_network("alexnet")
    assert torch.equal(Inference(alexnet, MANY)(images), alexnet(images))
    network, batches = counting(8)
    Inference(network, MANY)(images)
    assert batches() == [19]


def test_deep_networks_take_small_batches(images):
    network, _ = counting(9)
    compute = Inference(network, n_images=19)
    torch.testing.assert_close(compute(images), network(images))
    assert compute.network.network[-1].batches == [8, 8, 3]


class TestOnnxRuntime:
    @pytest.fixture(autouse=True)
    def _installed(self):
        for module in ("onnxruntime", "onnx", "onnxscript"):
            pytest.importorskip(module)

    def test_computes_many_images(self, photo, images, caplog):
        compute = Inference(photo, MANY)
        before = torch.get_rng_state()
        with caplog.at_level(logging.DEBUG), torch.inference_mode():
            features = compute(images)
        assert compute.compute is not compute.network
        assert torch.equal(torch.get_rng_state(), before)
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        torch.testing.assert_close(features, photo(images), rtol=1e-4, atol=1e-4)

    def test_is_not_prepared_for_few_images(self, photo, images):
        compute = Inference(photo, n_images=19)
        compute(images)
        assert compute.compute is compute.network

    def test_other_features_are_not_taken(self, photo, images, monkeypatch):
        def wrong(network, images):
            return lambda images: network(images) + 1e-3

        monkeypatch.setattr(inference, "_in_onnx_runtime", wrong)
        compute = Inference(photo, MANY)
        torch.testing.assert_close(compute(images), photo(images))

    def test_layers_it_cannot_translate(self, images):
        class Odd(nn.Module):
            def forward(self, images):
                return torch.linalg.eigvals(images @ images.mT).abs()

        network = FrozenNetwork(nn.Sequential(*[nn.Conv2d(3, 3, 9) for _ in range(7)], Odd()), "")
        network.network.extend([nn.Linear(8, 8), nn.Linear(8, 8)])
        compute = Inference(network, MANY)
        torch.testing.assert_close(compute(images), network(images), rtol=1e-3, atol=1e-3)
        assert compute.compute is compute.network


def test_onnxruntime_that_is_not_installed(photo, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    compute = Inference(photo, MANY)
    torch.testing.assert_close(compute(images), photo(images))
    assert compute.compute is compute.network


def test_batch_norm_is_folded(images, tmp_path):
    torch.manual_seed(0)
    resnet = models.resnet18(weights=None)
    for layer in resnet.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.5, 2)
    torch.save(resnet.state_dict(), tmp_path / "resnet18.pth")
    network = load_loss_network(
        LossNetwork("resnet18", layer="layer3", weights=tmp_path / "resnet18.pth")
    )
    compute = Inference(network, n_images=19)
    assert not [m for m in compute.network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(compute(images), network(images), rtol=1e-4, atol=1e-5)


def test_an_image_passes_a_deep_network_once_per_fit(frames, monkeypatch):
    """Not for the sample that finds principal components, and again for the targets."""
    n_images = []
    call = Inference.__call__

    def count(self, images):
        n_images.append(len(images))
        return call(self, images)

    monkeypatch.setattr(Inference, "__call__", count)
    encoder = FeaturePredictionEncoder(
        z=2, loss_network="photo", max_epochs=1, target_components=4, random_state=0
    )
    encoder.fit(frames[:10], X_val=frames[10:])
    assert sum(n_images) == len(frames)
