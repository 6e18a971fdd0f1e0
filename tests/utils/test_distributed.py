"""Three processes train one encoder: with the losses of one process, and the same result in all."""

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
from skfp._networks import FeatureDecoder, FeatureEncoder
from skfp._utils import distributed
from skfp._utils.tensor_file import read_tensors, write_tensors

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
N_PROCESSES = 3
# Batches of 9, 9, 9, 9 and 1 images: of the last one, two processes get nothing.
SETTINGS = {"z": 3, "max_epochs": 3, "batch_size": 9, "lr": 1e-4, "random_state": 0}
N_TRAIN, N_VALID = 37, 3
FITS = {
    "F-F-FP": FeaturePredictionEncoder(encoder="features", **SETTINGS),
    "F-F-FP of the paper": FeaturePredictionEncoder(encoder="paper-features", **SETTINGS),
    "I-F-FP": FeaturePredictionEncoder(**SETTINGS),
    "I-I-PS": PerceptualAutoencoder(**SETTINGS),
    "I-I-PW": PixelAutoencoder(**SETTINGS),
    "seed of its own": PixelAutoencoder(**{**SETTINGS, "random_state": None}),
}
# BatchNorm normalises the images of a process; without it, the whole batch counts.
WITHOUT_BATCH_NORM = ["F-F-FP", "F-F-FP of the paper"]


class Stop(Callback):
    """Interrupt training after so many epochs."""

    def __init__(self, after):
        self.after = after

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.after:
            raise KeyboardInterrupt


def checkpointed(folder, stop_after=None):
    callbacks = None if stop_after is None else [Stop(stop_after)]
    return FeaturePredictionEncoder(
        encoder="features", **SETTINGS, checkpoint_dir=folder, callbacks=callbacks
    )


class CountingNetwork(nn.AvgPool2d):
    """A loss network that counts its images."""

    n_images = 0

    def forward(self, images):
        CountingNetwork.n_images += len(images)
        return super().forward(images)


def gradients(n_rows):
    """Gradients of one step, in double precision."""
    torch.manual_seed(0)
    model = nn.Sequential(FeatureEncoder(12, 3), FeatureDecoder(3, 8)).double()
    rows = torch.rand(n_rows, 12, dtype=torch.float64)
    targets = torch.rand(n_rows, 8, dtype=torch.float64)
    forward = distributed.data_parallel(model) if distributed.world_size() > 1 else model
    predicted = forward(distributed.shard(rows))
    loss = predicted.sum()
    if len(predicted):
        loss = F.mse_loss(predicted, distributed.shard(targets))
    distributed.weight_gradient(loss, len(predicted))
    loss.backward()
    return [parameter.grad.numpy() for parameter in model.parameters()]


def train(folder):
    """What each of the processes does."""
    from accelerate import Accelerator

    from skfp._training import checkpoint

    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    images = np.load(folder / "images.npy")
    fitted = {name: fit(encoder, images) for name, encoder in FITS.items()}

    write = checkpoint.write_tensors

    def write_and_log(path, *args):
        with open(folder / "writers.txt", "a") as file:
            file.write(f"{rank}\n")
        write(path, *args)

    def refusal(encoder):
        """The error in a process; without one it would wait for the others."""
        try:
            fit(encoder, images)
        except (OSError, ValueError) as error:
            return str(error)

    refusals = {name: refusal(checkpointed(folder / name)) for name in ("damaged", "file", "other")}
    checkpoint.write_tensors = write_and_log
    fitted["begun together"] = fit(checkpointed(folder / "together", stop_after=2), images)
    fitted["begun alone"] = fit(checkpointed(folder / "alone"), images)
    FeaturePredictionEncoder(loss_network=CountingNetwork(8), **SETTINGS).fit(images)
    result = {
        "pickles": {name: pickle.dumps(encoder) for name, encoder in fitted.items()},
        "histories": {name: encoder.history_ for name, encoder in fitted.items()},
        "embeddings": {name: encoder.transform(images) for name, encoder in fitted.items()},
        "gradients": {n_rows: gradients(n_rows) for n_rows in (1, 8, 9)},
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
    shutil.copytree(folder / "alone", folder / "damaged")
    next((folder / "damaged").glob("*/checkpoint.safetensors")).write_bytes(b"damaged")
    (folder / "file").touch()
    shutil.copytree(folder / "alone", folder / "other")
    file = next((folder / "other").glob("*/checkpoint.safetensors"))
    tensors, header = read_tensors(file)
    write_tensors(file, tensors, {**header, "format": 1})
    return folder


@pytest.fixture(scope="module")
def results(folder):
    """What each process has computed."""
    pytest.importorskip("accelerate", reason="needs the extra accelerate")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", str(N_PROCESSES), __file__, str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [
        pickle.loads((folder / f"rank{rank}.pickle").read_bytes()) for rank in range(N_PROCESSES)
    ]


@pytest.fixture(scope="module")
def alone(images):
    """Histories of the same fits in this process alone."""
    return {name: losses(fit(FITS[name], images).history_) for name in WITHOUT_BATCH_NORM}


@pytest.mark.parametrize("n_rows", [1, 8, 9])
def test_gradients_are_those_of_the_whole_batch(results, n_rows):
    for result in results:
        assert result["n_processes"] == N_PROCESSES
        for together, alone in zip(result["gradients"][n_rows], gradients(n_rows), strict=True):
            np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", WITHOUT_BATCH_NORM)
def test_losses_are_those_of_one_process(results, alone, name):
    together = losses(results[0]["histories"][name])
    np.testing.assert_allclose(together, alone[name], rtol=5e-3)


@pytest.mark.parametrize("name", ["I-F-FP", "I-I-PS", "I-I-PW"])
def test_with_batch_norm_the_loss_falls(results, name):
    together = losses(results[0]["histories"][name])
    assert np.isfinite(together).all()
    assert together[-1, 0] < together[0, 0]


@pytest.mark.parametrize("name", FITS)
def test_the_encoder_is_the_same_in_every_process(results, name):
    first, *others = results
    for other in others:
        assert first["histories"][name] == other["histories"][name]
        np.testing.assert_array_equal(first["embeddings"][name], other["embeddings"][name])
        assert first["pickles"][name] == other["pickles"][name]


@pytest.mark.parametrize("name", FITS)
def test_pickles_need_no_group(results, images, name):
    encoder = pickle.loads(results[1]["pickles"][name])
    np.testing.assert_allclose(encoder.transform(images), results[1]["embeddings"][name], atol=1e-5)
    encoder.partial_fit(images)


def test_each_process_computes_the_features_of_its_images(results, images):
    CountingNetwork.n_images = 0
    fit(FeaturePredictionEncoder(loss_network=CountingNetwork(8), **SETTINGS), images)
    n_alone = CountingNetwork.n_images
    for result in results:
        assert 0.25 * n_alone < result["n_images"] < 0.5 * n_alone


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
    np.testing.assert_allclose(losses(history), alone["F-F-FP"], rtol=5e-3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("damaged", "not a complete safetensors file"),
        ("file", "Not a directory"),
        ("other", "from another version of skfp"),
    ],
)
def test_a_checkpoint_that_one_process_cannot_use_is_refused_in_all(results, folder, name, words):
    for result in results:
        assert words in result["refusals"][name]
        assert str(folder / name) in result["refusals"][name]


if __name__ == "__main__":
    train(Path(sys.argv[1]))
