"""Frozen networks: the embedded one, modules of the user's, several as one, weights files."""

import copy
import functools
import hashlib
import json
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_image
from torch import nn

import skfp
from benchmarks.weights import imagenet
from skfp import FeaturePredictionEncoder
from skfp._loss_network import FrozenNetwork, LossNetwork, load_loss_network

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "alexnet_relu2.json").read_text())
EMBEDDED = Path(skfp.__file__).parent / "weights" / "alexnet_relu2.safetensors"


@pytest.fixture(scope="module")
def alexnet():
    """The paper's loss network, every place of its maps."""
    return load_loss_network(LossNetwork("alexnet", pool="flatten"))


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def weights():
    return load_file(EMBEDDED)


class TestAlexNet:
    @pytest.mark.parametrize("crop", GOLDEN["images"])
    def test_golden_features(self, alexnet, crop):
        expected = GOLDEN["images"][crop]
        name, slices = crop.rstrip("]").split("[")
        rows, columns = (slice(*map(int, part.split(":"))) for part in slices.split(","))
        image = load_sample_image(f"{name}.jpg")[rows, columns]
        batch = torch.from_numpy(image.transpose(2, 0, 1)[None] / np.float32(255))

        features = alexnet(batch)

        assert features.shape == (1, expected["features"])
        assert features.dtype == torch.float32
        row = features[0].double()
        at = [int(i) for i in expected["at"]]
        np.testing.assert_allclose(row[at], list(expected["at"].values()), rtol=0, atol=1e-4)
        assert row.mean().item() == pytest.approx(expected["mean"], abs=1e-4)
        assert row.std(correction=0).item() == pytest.approx(expected["std"], abs=1e-4)
        assert row.max().item() == pytest.approx(expected["max"], abs=1e-4)
        assert (row > 0.5).sum().item() == pytest.approx(expected["relu_nonzero"], abs=5)

    @pytest.mark.parametrize(
        ("size", "n_features"),
        [((64, 64), 9408), ((96, 96), 23232), ((32, 32), 1728), ((48, 80), 192 * 5 * 9)],
    )
    def test_number_of_features(self, alexnet, size, n_features):
        assert alexnet.n_features(size) == n_features
        assert alexnet(torch.zeros(2, 3, *size)).shape == (2, n_features)

    def test_features_are_in_channel_row_column_order(self, alexnet, images):
        maps = alexnet.network(images)
        assert maps.shape == (2, 192, 7, 7)
        assert alexnet(images)[1, 5 * 49 + 2 * 7 + 3] == maps[1, 5, 2, 3]

    def test_memory_layout_of_images_does_not_matter(self, alexnet, images):
        channels_last = images.to(memory_format=torch.channels_last)
        torch.testing.assert_close(alexnet(channels_last), alexnet(images))

    def test_number_of_parameters(self, alexnet):
        assert sum(parameter.numel() for parameter in alexnet.parameters()) == 330_688

    def test_weights_are_those_of_the_golden_file(self, weights):
        assert weights.keys() == GOLDEN["weights"].keys()
        for name, expected in GOLDEN["weights"].items():
            values = weights[name].double()
            assert list(values.shape) == expected["shape"]
            assert values.sum().item() == pytest.approx(expected["sum"], abs=1e-6)
            assert values.abs().sum().item() == pytest.approx(expected["abs_sum"], abs=1e-6)

    def test_weights_are_torchvisions(self, weights):
        file = Path(torch.hub.get_dir(), "checkpoints", "alexnet-owt-7be5be79.pth")
        if not file.exists():
            pytest.skip(f"torchvision's own weights are not in {file}")
        theirs = torch.load(file, weights_only=True)
        for name, tensor in weights.items():
            torch.testing.assert_close(tensor, theirs[f"features.{name}"], rtol=0, atol=0)

    def test_loading_leaves_the_random_state_alone(self):
        before = torch.get_rng_state()
        load_loss_network("alexnet")
        assert torch.equal(torch.get_rng_state(), before)

    def test_shipped_file_is_the_one_documented(self):
        readme = EMBEDDED.with_name("README.md").read_text()
        assert hashlib.sha256(EMBEDDED.read_bytes()).hexdigest() in readme
        assert imagenet.SHA256 in readme
        with safe_open(EMBEDDED, "np") as file:
            assert imagenet.SHA256 in file.metadata()["provenance"]
        assert "Soumith Chintala" in EMBEDDED.with_name("LICENSE-torchvision.txt").read_text()


class TestFrozen:
    def test_stays_in_evaluation_mode(self):
        network = load_loss_network(nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(3)))
        nn.Sequential(network).train()
        images = torch.rand(4, 3, 8, 8)
        assert not any(module.training for module in network.modules())
        assert torch.equal(network(images), network(images))

    def test_gradient_reaches_images_but_not_weights(self, alexnet, images):
        images.requires_grad_()
        alexnet(images).square().mean().backward()
        assert images.grad.isfinite().all()
        assert images.grad.abs().sum() > 0
        for parameter in alexnet.parameters():
            assert not parameter.requires_grad
            assert parameter.grad is None

    def test_gradient_is_that_of_the_features(self):
        network = copy.deepcopy(load_loss_network("alexnet")).double()
        image = torch.rand(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
        network(image).sum().backward()
        step = torch.zeros_like(image)
        step[0, 1, 7, 9] = 1e-6
        with torch.no_grad():
            slope = (network(image + step).sum() - network(image - step).sum()) / 2e-6
        assert image.grad[0, 1, 7, 9].item() == pytest.approx(slope.item(), rel=1e-4)

    def test_no_graph_without_an_input_gradient(self, alexnet, images):
        assert not alexnet(images).requires_grad


class TestModule:
    def test_output_is_flattened_and_otherwise_untouched(self, images):
        module = nn.Conv2d(3, 4, 3)
        features = load_loss_network(module)(images)
        assert torch.equal(features, module(images).flatten(1))

    def test_users_module_is_not_changed(self):
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        before = copy.deepcopy(module.state_dict())
        network = load_loss_network(module)
        network(torch.rand(2, 3, 8, 8))
        with torch.no_grad():
            network.network[0].weight.zero_()
        assert all(layer.training for layer in module.modules())
        assert all(parameter.requires_grad for parameter in module.parameters())
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, before[name])

    def test_a_loss_network_is_copied(self, alexnet, images):
        again = load_loss_network(alexnet)
        assert again is not alexnet
        assert again.fingerprint() == alexnet.fingerprint()
        assert torch.equal(again(images), alexnet(images))

    def test_module_without_parameters(self):
        assert load_loss_network(nn.AvgPool2d(4)).n_features((16, 24)) == 3 * 4 * 6

    @pytest.mark.parametrize(
        ("output", "found"),
        [
            (lambda images: [images], "got list"),
            (lambda images: images.sum(), r"shape \(\)"),
            (lambda images: images[:1], r"shape \(1, 3, 64, 64\)"),
        ],
    )
    def test_output_without_a_row_for_each_image(self, images, output, found):
        class Wrong(nn.Module):
            def forward(self, images):
                return output(images)

        with pytest.raises(ValueError, match=f"'Wrong' must turn 2 images .*{found}"):
            load_loss_network(Wrong())(images)

    def test_image_too_small(self, alexnet):
        with pytest.raises(ValueError, match="'alexnet' cannot take images of 6 x 20 pixels"):
            alexnet.n_features((6, 20))

    def test_pickles(self, alexnet, images):
        again = pickle.loads(pickle.dumps(alexnet))
        assert torch.equal(again(images), alexnet(images))
        assert again.fingerprint() == alexnet.fingerprint()


class TestFingerprint:
    def test_same_weights_same_fingerprint(self, tmp_path, alexnet):
        file = shutil.copy(EMBEDDED, tmp_path / "copy.safetensors")
        network = LossNetwork(weights=file, pool="flatten")
        fingerprint = load_loss_network(network).fingerprint()
        assert fingerprint == alexnet.fingerprint()
        assert len(bytes.fromhex(fingerprint)) == 32

    def test_memory_layout_does_not_matter(self, alexnet):
        other = copy.deepcopy(alexnet).to(memory_format=torch.contiguous_format)
        assert other.fingerprint() == alexnet.fingerprint()

    def test_names_of_several_networks_do_not_matter(self, tmp_path):
        """The same weights in another file make the same networks."""
        small = {"layer": "features.1", "pool": 2}
        files = [shutil.copy(EMBEDDED, tmp_path / f"{name}.safetensors") for name in "ab"]
        fingerprints = {
            load_loss_network(
                [LossNetwork(weights=str(file), **small), LossNetwork(**small)]
            ).fingerprint()
            for file in files
        }
        assert len(fingerprints) == 1

    def test_changes_with_one_weight(self, alexnet):
        other = copy.deepcopy(alexnet)
        with torch.no_grad():
            other.network[3].bias[7] += 1e-6
        assert other.fingerprint() != alexnet.fingerprint()

    def test_changes_with_buffers_settings_and_kind_of_layer(self):
        moved = nn.BatchNorm2d(3)
        moved.running_mean += 1
        modules = [
            nn.BatchNorm2d(3),
            moved,
            nn.AvgPool2d(2),
            nn.AvgPool2d(3),
            nn.MaxPool2d(2),
            nn.Sequential(nn.MaxPool2d(2)),
        ]
        fingerprints = {load_loss_network(module).fingerprint() for module in modules}
        assert len(fingerprints) == len(modules)


class Scale(nn.Module):
    """Features that depend on an attribute of any kind."""

    def __init__(self, attribute, compute):
        super().__init__()
        self.attribute = attribute
        self.compute = compute

    def forward(self, images):
        return images[:, :, ::16, ::16] * self.compute(self.attribute)


def double(x):
    return 2 * x


def triple(x):
    return 3 * x


ATTRIBUTES = {
    "numpy scalar": (np.float32(2), np.float32(3), lambda a: float(a)),
    "array": (np.array([2.0]), np.array([3.0]), lambda a: float(a[0])),
    "large array": (np.arange(5000) * 2, np.r_[np.arange(4999) * 2, 0], lambda a: float(a[-1])),
    "tensor": (torch.tensor(2.0), torch.tensor(3.0), lambda a: a),
    "list of tensors": ([torch.tensor(2.0)], [torch.tensor(3.0)], lambda a: a[0]),
    "dict": ({"scale": 2.0}, {"scale": 3.0}, lambda a: a["scale"]),
    "none": (None, 3.0, lambda a: a or 2.0),
    "function": (double, triple, lambda a: a(1.0)),
    "lambda": (lambda x: 2 * x, lambda x: 3 * x, lambda a: a(1.0)),
    "list of lambdas": ([lambda x: 2 * x], [lambda x: 3 * x], lambda a: a[0](1.0)),
    "partial": (functools.partial(pow, 2), functools.partial(pow, 3), lambda a: a(1)),
    "list of modules": (
        [nn.Conv2d(1, 1, 1).requires_grad_(False)],
        [nn.Conv2d(1, 1, 1).requires_grad_(False)],
        lambda a: a[0].weight.flatten(),
    ),
}


class TestFingerprintOfAttributes:
    @pytest.mark.parametrize("kind", ATTRIBUTES)
    def test_changes_with_any_attribute(self, kind):
        one, other, compute = ATTRIBUTES[kind]
        fingerprints = [
            load_loss_network(Scale(attribute, compute)).fingerprint()
            for attribute in (one, other, copy.deepcopy(one))
        ]
        assert fingerprints[0] != fingerprints[1]
        assert fingerprints[0] == fingerprints[2]

    @pytest.mark.parametrize("kind", ["numpy scalar", "tensor", "dict", "function"])
    def test_cached_features_of_another_are_not_taken(self, kind, frames, tmp_path):
        one, other, compute = ATTRIBUTES[kind]
        settings = {"z": 2, "max_epochs": 1, "random_state": 0, "target_components": None}

        def train_loss(attribute, memory):
            encoder = FeaturePredictionEncoder(
                loss_network=Scale(attribute, compute), memory=memory, **settings
            )
            return encoder.fit(frames).history_[0]["train_loss"]

        train_loss(one, tmp_path)
        assert train_loss(other, tmp_path) == train_loss(other, None)

    def test_changes_with_hooks(self):
        module = nn.Sequential(nn.AvgPool2d(16))
        before = load_loss_network(module).fingerprint()
        module[0].register_forward_hook(lambda module, inputs, output: 2 * output)
        assert load_loss_network(module).fingerprint() != before

    def test_attribute_that_cannot_be_compared(self):
        network = load_loss_network(Scale(None, float))
        network.network.attribute = threading.Lock()
        with pytest.raises(TypeError, match="without comparable values"):
            network.fingerprint()


class TestErrors:
    def test_unknown_name(self):
        with pytest.raises(
            ValueError, match=r"Unknown loss_network 'alexnt'.*mean 'alexnet'.*safetens"
        ):
            load_loss_network("alexnt")

    def test_unknown_name_with_no_near_one(self):
        with pytest.raises(
            ValueError, match=r"Unknown loss_network 'zzz'\. Expected .*loss_networks"
        ):
            load_loss_network("zzz")

    @pytest.mark.parametrize("value", [None, 3, nn.Conv2d])
    def test_wrong_type(self, value):
        with pytest.raises(TypeError, match=r"loss_network must be|is the class Conv2d"):
            load_loss_network(value)

    def test_missing_file(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"There is no weights file .*none.safetensors.*0.weight"
        ):
            load_loss_network(str(tmp_path / "none.safetensors"))

    def test_directory(self, tmp_path):
        with pytest.raises(ValueError, match="There is no weights file"):
            load_loss_network(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"not weights at all", EMBEDDED.read_bytes()[:-1000]])
    def test_unreadable_file(self, tmp_path, content):
        file = tmp_path / "broken.safetensors"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"Cannot read the weights file .*0.weight of shape"):
            load_loss_network(file)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"3.bias": None}, "3.bias is missing"),
            ({"0.bias": torch.zeros(63)}, r"0.bias is \(63,\)"),
            ({"0.weight": torch.zeros(11, 11, 3, 64)}, r"0.weight is \(11, 11, 3, 64\)"),
            ({"0.bias": torch.full((64,), torch.nan)}, "0.bias must hold finite"),
            ({"0.bias": torch.full((64,), torch.inf)}, "0.bias must hold finite"),
            ({"0.bias": torch.zeros(64, dtype=torch.int64)}, "0.bias must hold .*got .*int64"),
        ],
    )
    def test_wrong_weights(self, tmp_path, weights, change, message):
        changed = {k: v for k, v in (weights | change).items() if v is not None}
        save_file(changed, tmp_path / "wrong.safetensors")
        with pytest.raises(ValueError, match=rf"wrong.safetensors.*{message}"):
            load_loss_network(tmp_path / "wrong.safetensors")

    def test_other_weights_are_used(self, tmp_path, weights, images):
        zeros = {name: torch.zeros_like(tensor).half() for name, tensor in weights.items()}
        save_file(zeros, tmp_path / "zeros.safetensors")
        features = load_loss_network(str(tmp_path / "zeros.safetensors"))(images)
        assert torch.equal(features, torch.full((2, 9408), 0.5))

    def test_file_may_change_after_loading(self, tmp_path, images):
        file = Path(shutil.copy(EMBEDDED, tmp_path / "copy.safetensors"))
        network = load_loss_network(file)
        before = network(images)
        with file.open("r+b") as opened:
            opened.write(bytes(EMBEDDED.stat().st_size))
        assert torch.equal(network(images), before)

    def test_is_a_loss_network(self, alexnet):
        assert isinstance(alexnet, FrozenNetwork)
