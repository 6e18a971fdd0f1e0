"""Two processes train one encoder: with the losses of one process, and the same result in both."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn
from torch.nn import functional as F

from skfp import FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder
from skfp._networks.encoders import FeatureDecoder, ImageEncoder
from skfp._utils import distributed as processes
from skfp._utils.tensor_file import read_tensors, write_tensors

ROOT = Path(__file__).parents[2]
# Batches of 9, 9, 9, 9 and 1 images: of the last one, a process gets nothing. Learning rates are
# low: the biases before BatchNorm have a gradient of rounding errors alone, of which Adam makes
# steps of full length, in one process as in two.
SETTINGS = {"z": 3, "max_epochs": 3, "batch_size": 9, "random_state": 0}
SETTINGS |= {"lr": 1e-4}
N_TRAIN, N_VALID = 37, 3
FITS = {
    "I-F-FP": FeaturePredictionEncoder(**SETTINGS),
    "F-F-FP": FeaturePredictionEncoder(encoder="features", **SETTINGS),
    "I-I-PS": PerceptualAutoencoder(**SETTINGS),
    "I-I-PW": PixelAutoencoder(**SETTINGS),
    "seed of its own": PixelAutoencoder(**{**SETTINGS, "random_state": None}),
}


class Stop(Callback):
    """Interrupt training after so many epochs."""

    def __init__(self, after):
        self.after = after

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.after:
            raise KeyboardInterrupt


def checkpointed(folder, stop_after=None):
    callbacks = None if stop_after is None else [Stop(stop_after)]
    return FeaturePredictionEncoder(**SETTINGS, checkpoint_dir=folder, callbacks=callbacks)


class CountingNetwork(nn.AvgPool2d):
    """A loss network that counts the images it has seen."""

    n_images = 0

    def forward(self, images):
        CountingNetwork.n_images += len(images)
        return super().forward(images)


def gradients(n_images):
    """Gradients of one step, and BatchNorm's statistics after it, in double precision."""
    torch.manual_seed(0)
    model = nn.Sequential(ImageEncoder((64, 64), 3), FeatureDecoder(3, 8)).double()
    images = torch.rand(n_images, 3, 64, 64, dtype=torch.float64)
    targets = torch.rand(n_images, 8, dtype=torch.float64)
    forward = processes.data_parallel(model) if processes.count() > 1 else model
    predicted = forward(processes.part(images))
    loss = F.mse_loss(predicted, processes.part(targets)) if len(predicted) else predicted.sum()
    processes.weigh_gradient(loss, len(predicted))
    loss.backward()
    return [p.grad.numpy() for p in model.parameters()] + [b.numpy() for b in model.buffers()]


def train(folder):
    """What each of the processes does."""
    from accelerate import Accelerator

    from skfp import checkpoint

    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    images = np.load(folder / "images.npy")
    fitted = {name: fit(encoder, images) for name, encoder in FITS.items()}

    write = checkpoint.write_tensors

    def write_and_tell(path, *args):
        with open(folder / "writers.txt", "a") as file:
            file.write(f"{rank}\n")
        write(path, *args)

    def refusal(encoder):
        """What a process is told; without an answer it would wait for the other one."""
        try:
            fit(encoder, images)
        except (OSError, ValueError) as error:
            return str(error)

    refusals = {name: refusal(checkpointed(folder / name)) for name in ("damaged", "file", "other")}
    checkpoint.write_tensors = write_and_tell
    fitted["begun together"] = fit(checkpointed(folder / "together", stop_after=2), images)
    fitted["begun alone"] = fit(checkpointed(folder / "alone"), images)
    FeaturePredictionEncoder(loss_network=CountingNetwork(8), **SETTINGS).fit(images)
    result = {
        "pickles": {name: pickle.dumps(encoder) for name, encoder in fitted.items()},
        "histories": {name: encoder.history_ for name, encoder in fitted.items()},
        "embeddings": {name: encoder.transform(images) for name, encoder in fitted.items()},
        "gradients": {n_images: gradients(n_images) for n_images in (1, 8, 9)},
        "n_images": CountingNetwork.n_images,
        "refusals": refusals,
        "n_processes": accelerator.num_processes,
    }
    (folder / f"rank{rank}.pickle").write_bytes(pickle.dumps(result))
    accelerator.end_training()


def fit(encoder, images):
    return encoder.fit(images[:N_TRAIN], X_val=images[N_TRAIN:])


def losses(history):
    return np.array([[row["train_loss"], row["valid_loss"]] for row in history])


@pytest.fixture(scope="module")
def images(lander):
    return lander.images[: N_TRAIN + N_VALID]


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    np.save(folder / "images.npy", images)
    fit(checkpointed(folder / "alone", stop_after=2), images)
    (folder / "damaged").mkdir()
    (folder / "damaged" / "checkpoint.safetensors").write_bytes(b"damaged")
    (folder / "file").touch()
    shutil.copytree(folder / "alone", folder / "other")
    file = folder / "other" / "checkpoint.safetensors"
    tensors, header = read_tensors(file)
    header["facts"]["z"] = 7
    write_tensors(file, tensors, header)
    return folder


@pytest.fixture(scope="module")
def results(folder):
    """What two processes have found, each in its own memory."""
    pytest.importorskip("accelerate", reason="needs the extra accelerate")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", __file__, str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [pickle.loads((folder / f"rank{rank}.pickle").read_bytes()) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(images):
    """The same fits in this process alone."""
    return {name: fit(encoder, images) for name, encoder in FITS.items()}


@pytest.mark.parametrize("n_images", [1, 8, 9])
def test_gradients_and_statistics_are_those_of_the_whole_batch(results, n_images):
    assert [result["n_processes"] for result in results] == [2, 2]
    for result in results:
        pairs = zip(result["gradients"][n_images], gradients(n_images), strict=True)
        for together, alone in pairs:
            np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in FITS if name != "seed of its own"])
def test_losses_are_those_of_one_process(results, alone, name):
    together = losses(results[0]["histories"][name])
    np.testing.assert_allclose(together, losses(alone[name].history_), rtol=5e-3)


@pytest.mark.parametrize("name", FITS)
def test_the_encoder_is_the_same_in_every_process(results, name):
    first, second = results
    assert first["histories"][name] == second["histories"][name]
    np.testing.assert_array_equal(first["embeddings"][name], second["embeddings"][name])
    assert first["pickles"][name] == second["pickles"][name]


@pytest.mark.parametrize("name", FITS)
def test_pickles_need_no_group(results, images, name):
    encoder = pickle.loads(results[1]["pickles"][name])
    np.testing.assert_allclose(encoder.transform(images), results[1]["embeddings"][name], atol=1e-5)
    encoder.partial_fit(images)


def test_features_are_computed_in_parts(results, images):
    CountingNetwork.n_images = 0
    fit(FeaturePredictionEncoder(loss_network=CountingNetwork(8), **SETTINGS), images)
    n_alone = CountingNetwork.n_images
    for result in results:
        assert 0.4 * n_alone < result["n_images"] < 0.7 * n_alone


def test_one_process_writes_checkpoints(results, folder):
    writers = (folder / "writers.txt").read_text().split()
    # Two epochs of one fit, and the last one of the other.
    assert writers == ["0"] * 3


@pytest.mark.parametrize("name", ["begun together", "begun alone"])
def test_a_checkpoint_is_continued_by_more_or_fewer_processes(results, alone, folder, images, name):
    if name == "begun together":
        assert len(results[0]["histories"][name]) == 2
        history = fit(checkpointed(folder / "together"), images).history_
    else:
        history = results[0]["histories"][name]
    np.testing.assert_allclose(losses(history), losses(alone["I-F-FP"].history_), rtol=5e-3)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("damaged", "no whole safetensors file"),
        ("file", "File exists"),
        ("other", "z was 7 and is 3"),
    ],
)
def test_a_checkpoint_that_one_process_cannot_use_is_refused_in_all(results, folder, name, told):
    for result in results:
        assert told in result["refusals"][name]
        assert str(folder / name) in result["refusals"][name]


class Activated(nn.BatchNorm2d):
    """A layer of the user's that does more than its base."""

    def forward(self, maps):
        return torch.relu(super().forward(maps))


@pytest.mark.parametrize(
    "layer",
    [
        Activated(4),
        nn.BatchNorm1d(4),
        nn.BatchNorm3d(4),
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.BatchNorm2d(4, momentum=None),
    ],
    ids=repr,
)
def test_batch_norm_that_cannot_be_shared_is_refused(layer):
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(layer))
    with pytest.raises(ValueError, match=rf"1\.0, which is {layer.__class__.__name__}\("):
        processes.data_parallel(model)
    assert [type(part) for part in model] == [nn.BatchNorm2d, nn.Sequential]


def test_layers_of_the_user_are_left_as_they_are():
    model = nn.Sequential(Activated(2)).eval()
    processes.end_data_parallel(model)
    assert (model(-torch.ones(1, 2, 3, 3)) == 0).all()


if __name__ == "__main__":
    train(Path(sys.argv[1]))
