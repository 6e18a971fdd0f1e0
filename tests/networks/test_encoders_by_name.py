"""Encoders by name: each fits, is saved, and costs what the documentation says."""

import dataclasses
import pickle
import re

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from skfp import FeaturePredictionEncoder, LossNetwork, PixelAutoencoder
from skfp._loss_network import describe, load_loss_network
from skfp._networks.encoders import IMAGE_ENCODERS, fold_batch_norm, make_encoder
from skfp._networks.trunks import TRUNKS, pretrained_trunk

each_encoder = pytest.mark.parametrize("encoder", [*IMAGE_ENCODERS, *TRUNKS])


@each_encoder
def test_cost_is_as_documented(encoder):
    network = fold_batch_norm(make_encoder(encoder, 0, (64, 64), 64))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, 64, 64))

    costs = {}
    for names, numbers in re.findall(
        r"- (\S+|\S+ and \S+) \((.+) MFLOP\)", FeaturePredictionEncoder.__doc__
    ):
        costs.update(zip(names.split(" and "), numbers.split(" and "), strict=True))
    assert costs[f'"{encoder}"'] == f"{counter.get_total_flops() / 1e6:.0f}"


@each_encoder
@pytest.mark.parametrize("side", [64, 96])
def test_fit_save_and_export(noise, tmp_path, encoder, side):
    X = noise(12, side, side, 3)
    fitted = FeaturePredictionEncoder(z=3, encoder=encoder, max_epochs=2, random_state=0)
    embedding = fitted.fit_transform(X)
    assert np.ptp(embedding, axis=0).min() > 1e-2  # else all embeddings would do

    fitted.save(tmp_path / "encoder.safetensors")
    loaded = FeaturePredictionEncoder.load(tmp_path / "encoder.safetensors")
    for again in (loaded, pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(again.transform(X), embedding)
    np.testing.assert_array_equal(clone(fitted).fit_transform(X), embedding)
    for fold in (False, True):
        module = fitted.to_torch(fold_batch_norm=fold)
        np.testing.assert_allclose(
            module(torch.from_numpy(X)).detach(), embedding, rtol=1e-4, atol=1e-4
        )
    fitted.to_onnx(tmp_path / "encoder.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    for n_images in (1, 12):
        (exported,) = session.run(None, {"images": X[:n_images]})
        np.testing.assert_allclose(exported, embedding[:n_images], rtol=0, atol=1e-4)


@each_encoder
@pytest.mark.parametrize("shape", [(32, 32), (70, 100), (64, 64, 2), (64, 64, 4), (64, 64, 7)])
def test_other_sizes_and_channels(noise, encoder, shape):
    X = noise(6, *shape)
    channels = "mean" if len(shape) == 3 else "auto"
    fitted = PixelAutoencoder(z=2, encoder=encoder, channels=channels, max_epochs=1)
    assert fitted.fit_transform(X).shape == (6, 2)
    assert fitted.partial_fit(X).n_epochs_ == 2


@pytest.mark.parametrize("name", TRUNKS)
def test_larger_images_need_no_more_weights(name):
    small, large = (make_encoder(name, 0, size, 5) for size in ((64, 64), (224, 300)))

    for one, other in zip(small.parameters(), large.parameters(), strict=True):
        assert one.shape == other.shape
    assert large(torch.rand(2, 3, 224, 300)).shape == (2, 5)


@pytest.mark.parametrize(("name", "first", "last"), [("residual", 16, 4), ("pretrained", 32, 2)])
def test_maps_of_images_of_64_pixels(name, first, last):
    trunk, width = TRUNKS[name](3)
    grids = []
    for layer in trunk.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda *args: grids.append(tuple(args[-1].shape[2:])))

    assert trunk(torch.zeros(2, 3, 64, 64)).shape == (2, width)
    assert (grids[0], grids[-1]) == ((first, first), (last, last))


def test_pretrained_costs_no_more_for_large_images():
    trunk, _ = pretrained_trunk()
    costs = []
    for side in (96, 300):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            trunk(torch.zeros(1, 3, side, side))
        costs.append(counter.get_total_flops())
    assert costs[0] == costs[1]


def test_pretrained_begins_with_the_loss_network():
    random = torch.Generator().manual_seed(0)
    images = torch.rand(40, 3, 8, 8, generator=random)
    images = nn.functional.interpolate(images, size=64, mode="bilinear")
    stem = LossNetwork("efficientnet_lite0", layer="stem", squash=None, pool="flatten", resize=64)
    network = load_loss_network(describe(stem))

    trunk, _ = pretrained_trunk()
    stem = trunk[2][0](trunk[:2](images)).mean((2, 3))
    features = network(images).unflatten(1, (32, -1)).mean(2)
    similarity = torch.corrcoef(torch.stack([stem.flatten(), features.flatten()]))
    assert similarity[0, 1] > 0.99


@pytest.mark.parametrize("n_channels", [1, 2, 4, 7])
def test_pretrained_maps_of_grey_images_are_those_of_any_channels(n_channels):
    grey = torch.rand(2, 1, 64, 64)

    colour, other = (pretrained_trunk(n)[0][:3] for n in (3, n_channels))
    maps = other(grey.expand(-1, n_channels, -1, -1))
    expected = colour(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-4)


def test_pretrained_tells_colours_apart_beside_another_channel():
    images = torch.rand(2, 3, 64, 64)
    colour, other = (pretrained_trunk(n)[0][:3] for n in (3, 4))

    infrared = images[:, :1]  # as bright as red, whose weights it shares
    maps = other(torch.cat([images, infrared], 1))
    torch.testing.assert_close(maps, colour(images), rtol=1e-4, atol=1e-4)


def test_pretrained_layers_are_trained(frames):
    fitted = FeaturePredictionEncoder(z=3, encoder="pretrained", max_epochs=1).fit(frames)

    before = pretrained_trunk()[0].state_dict()
    for name, weight in fitted.encoder_.trunk.state_dict().items():
        assert not torch.equal(weight, before[name]), name


@dataclasses.dataclass
class Average:
    """A loss network of a user's, which has no hash."""

    side: int

    def __call__(self, images):
        return nn.functional.avg_pool2d(images, self.side)


@pytest.mark.parametrize(
    ("loss_network", "name"),
    [
        ("alexnet", "image"),
        (Average(32), "image"),
        ("photo", "pretrained"),
        (["alexnet", "photo"], "pretrained"),
    ],
)
def test_auto_is_pretrained_beside_other_named_networks(frames, loss_network, name):
    fitted = FeaturePredictionEncoder(z=2, loss_network=loss_network, max_epochs=1).fit(frames)

    expected = make_encoder(name, 0, (64, 64), 2)
    assert [*fitted.encoder_.state_dict()] == [*expected.state_dict()]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"encoder": "image"}, 3e-3),
        ({"encoder": "residual"}, 3e-3),
        ({"encoder": "pretrained"}, 1e-3),
        ({"encoder": "pretrained", "lr": 2e-3}, 2e-3),
    ],
)
def test_pretrained_layers_have_a_lower_learning_rate(frames, parameters, expected):
    rates = []

    class Record(Callback):
        def on_batch_end(self, net, **kwargs):
            rates.append(net.optimizer_.param_groups[0]["lr"])

    parameters |= {"z": 2, "max_epochs": 1, "lr_schedule": None, "callbacks": [Record()]}
    fitted = FeaturePredictionEncoder(**parameters).fit(frames)
    assert {*rates} == {expected}
    fitted.partial_fit(frames)
    assert rates[-1] == expected
