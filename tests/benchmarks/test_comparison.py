"""The paper's comparison and figure 9, run for real on a few images."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from benchmarks.__main__ import main
from benchmarks.cnn import SimpleCNN
from benchmarks.internals import open_checkpoint
from benchmarks.methods import METHODS, WhitenedPCA, check_not_interrupted, train
from benchmarks.probes import HIDDEN_LAYERS, TRAINING, measure
from benchmarks.records import read_records
from benchmarks.report import convergence
from benchmarks.splits import Budget, Splits, budget_settings, get_budget, load_splits
from benchmarks.studies.comparison import compute, make_runs
from skfp import FeaturePredictionEncoder, PixelAutoencoder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Make the arguments of a tiny comparison on 3, 3 and 2 rollouts."""
    home = tmp_path_factory.mktemp("home")

    def make(out, *others):
        common = "comparison --dataset lunarlander --images 45 45 30 --max-epochs 1 --repeats 1"
        return [*common.split(), "--out", str(out), "--data-home", str(home), *others]

    return make


def without_times(record):
    if isinstance(record, list):
        return [without_times(item) for item in record]
    if not isinstance(record, dict):
        return record
    times = {"seconds", "seconds_per_epoch", "images_per_second"}
    return {key: without_times(item) for key, item in record.items() if key not in times}


@pytest.mark.slow
def test_a_killed_procedure_goes_on_after_its_last_epoch(arguments, tmp_path):
    epochs = 40
    grid = ["--procedures", "I-F-FP", "--z", "4", "--max-epochs", str(epochs)]
    killed, whole, checkpoints = (
        tmp_path / "k.jsonl",
        tmp_path / "w.jsonl",
        tmp_path / "checkpoints",
    )
    command = [*arguments(killed, *grid), "--checkpoints", str(checkpoints)]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *command], cwd=ROOT, start_new_session=True
    )
    while not list(checkpoints.glob("*/*/checkpoint.safetensors")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    with open_checkpoint(next(checkpoints.glob("*/*"))) as checkpoint:
        n_earlier = checkpoint.n_epochs
    assert 0 < n_earlier < epochs

    assert main(command) == 0
    assert main(arguments(whole, *grid)) == 0
    (continued,), (uninterrupted,) = read_records(killed), read_records(whole)
    assert without_times(continued) == without_times(uninterrupted)
    training = continued["training"]
    assert training["seconds"] > sum(row["seconds"] for row in training["history"])
    assert not list(checkpoints.iterdir())


@pytest.mark.slow
def test_workers_that_share_features_leave_the_same_records(arguments, tmp_path):
    grid = ["--procedures", "mean", "I-F-FP", "F-F-FP", "--z", "3"]
    workers = ["--n-jobs", "2", "--memory", str(tmp_path / "memory")]
    assert main(arguments(tmp_path / "one.jsonl", *grid)) == 0
    assert main(arguments(tmp_path / "two.jsonl", *grid, *workers)) == 0
    one, two = (read_records(tmp_path / f"{name}.jsonl") for name in ("one", "two"))
    assert len(one) == 3
    expected = [{**without_times(record), "features_from_memory": True} for record in one]
    assert [without_times(record) for record in two] == expected


def test_other_numbers_of_images_are_other_runs(arguments, tmp_path, capsys):
    for n_test in ("30", "15"):
        others = ("--procedures", "mean", "--images", "45", "45", n_test)
        assert main(arguments(tmp_path / "r.jsonl", *others)) == 0
        assert "0 of 1 runs already" in capsys.readouterr().out
    records = read_records(tmp_path / "r.jsonl")
    assert [r["settings"]["n_test"] for r in records] == [15, 30]
    assert len({r["n_test_images"] for r in records}) == 2
    assert {r["seconds_per_epoch"] for r in records} == {None}


def test_defaults_and_probes_of_another_version_make_other_runs(monkeypatch):
    def runs():
        return make_runs("svhn", ["I-F-FP", "pca"], "defaults", [64], 1, Budget())

    before = runs()
    with monkeypatch.context() as patch:
        patch.setitem(FeaturePredictionEncoder.__init__.__kwdefaults__, "lr", 0.5)
        assert [a == b for a, b in zip(runs(), before, strict=True)] == [False, True]
    with monkeypatch.context() as patch:
        patch.setattr(WhitenedPCA.__init__, "__defaults__", (7, None))
        assert [a == b for a, b in zip(runs(), before, strict=True)] == [True, False]
    for name in TRAINING:
        with monkeypatch.context() as patch:
            patch.setitem(TRAINING, name, 0.125)
            assert not any(run in before for run in runs())
    assert runs() == before


def write_idx(path, array):
    magic = bytes([0, 0, 8, array.ndim])
    shape = b"".join(side.to_bytes(4, "big") for side in array.shape)
    path.write_bytes(gzip.compress(magic + shape + array.astype(np.uint8).tobytes()))


@pytest.fixture(scope="module")
def clothes(tmp_path_factory):
    """Write Fashion-MNIST files of two classes: images that are bright above, or below."""
    folder = tmp_path_factory.mktemp("fashion-mnist")
    random = np.random.default_rng(0)
    for part, n_images in (("train", 150), ("t10k", 40)):
        target = np.arange(n_images) % 2
        images = random.integers(0, 100, (n_images, 28, 28))
        images[target == 0, :14] += 100
        images[target == 1, 14:] += 100
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", target)
    return folder


def test_a_cnn_classifies_and_its_record_is_complete(clothes):
    budget = Budget(30, 100, 40, max_epochs=20)
    splits = load_splits("fashion-mnist", budget, data_home=clothes, verify=False)
    assert [len(splits.unlabelled), len(splits.labelled[1]), len(splits.test[1])] == [30, 100, 40]
    (run,) = make_runs("fashion-mnist", ["cnn"], "paper", [8], 1, budget)
    assert run["preset"] is None
    assert run["settings"] == {"budget": "custom", **budget._asdict()}
    record = json.loads(json.dumps(compute(run, splits), allow_nan=False))
    assert record["end_to_end_measure"] > 0.8
    assert record["test_measure"] > 0.8
    assert len(record["probe"]["validation_losses"]) == len(HIDDEN_LAYERS)
    assert record["n_test_images"] == 40
    training = record["training"]
    assert training["n_images"] == 100
    assert len(training["history"]) == training["n_epochs"]
    assert record["seconds_per_epoch"] == training["seconds"] / training["n_epochs"]


def test_splits_share_no_image(clothes):
    budget = get_budget("fashion-mnist", "paper")._replace(n_labelled=50)
    splits = load_splits("fashion-mnist", budget, data_home=clothes, verify=False)
    assert len(splits.unlabelled) == 100
    together = np.concatenate([splits.unlabelled, splits.labelled[0], splits.test[0]])
    assert len(np.unique(together, axis=0)) == 190


@pytest.mark.parametrize("shape", [(28, 28), (32, 32, 3)])
@pytest.mark.parametrize("name", ["frozen", "pca"])
def test_untrained_methods_take_small_and_grey_images(name, shape, noise):
    images = noise(12, *shape)
    embedding = METHODS[name].make(z=3, random_state=0).fit(images).transform(images)
    assert embedding.shape == (12, 3)
    np.testing.assert_allclose(embedding.std(axis=0, ddof=1), 1, rtol=1e-3)


def test_the_papers_settings_validate_on_the_last_fifth(lander):
    labelled = lander.images, lander.positions
    splits = Splits("position", lander.images, labelled, labelled)
    (run,) = make_runs("lunarlander", ["I-I-PW"], "paper", [4], 1, Budget(max_epochs=1))
    assert run["parameters"]["batch_size"] == 512
    record = compute(run, splits)
    assert record["training"]["n_images"] == 40
    same = PixelAutoencoder.with_paper_settings(4, max_epochs=1, random_state=0)
    same.fit(lander.images[:32], X_val=lander.images[32:])
    assert record["training"]["validation_loss"] == same.validation_loss_


def test_the_cnn_learns_positions():
    """A bright square on a dark ground, and where it is."""
    positions = np.random.default_rng(0).uniform(-0.8, 0.8, (200, 2)).astype(np.float32)
    images = np.zeros((200, 64, 64, 3), dtype=np.uint8)
    for image, (column, row) in zip(images, np.int64(32 + 32 * positions), strict=True):
        image[row - 4 : row + 4, column - 4 : column + 4] = 255
    cnn = SimpleCNN(8, task="position", batch_size=16, max_epochs=8)
    cnn.fit(images[:150], positions[:150])
    assert cnn.transform(images).shape == (200, 8)
    test = positions[150:]
    by_chance = np.linalg.norm(test - positions[:150].mean(axis=0), axis=1).mean()
    assert measure(cnn, images[150:], test) < by_chance / 2
    assert cnn.validation_loss_ == min(row["valid_loss"] for row in cnn.history_)


class PoisonSecondEpoch(Callback):
    def on_batch_begin(self, net, training, **kwargs):
        if training and len(net.history) == 2:
            with torch.no_grad():
                next(net.module_.decoder.parameters()).fill_(float("nan"))


@pytest.mark.filterwarnings("ignore:Training diverged")
@pytest.mark.parametrize("max_epochs", [2, 3])
def test_a_training_that_diverged_was_not_interrupted(noise, max_epochs):
    encoder = PixelAutoencoder(
        2, max_epochs=max_epochs, callbacks=[PoisonSecondEpoch()], random_state=0
    )
    training = train(encoder, noise(12, 64, 64, 3))
    check_not_interrupted(encoder)
    assert json.loads(json.dumps(training, allow_nan=False)) == training
    first, second = training["history"]
    assert second["train_loss"] is None
    assert training["best_epoch"] == first["epoch"] == 1


class InterruptOnce(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise KeyboardInterrupt


def test_an_interrupted_training_is_recognised(noise):
    images = noise(12, 64, 64, 3)
    encoder = PixelAutoencoder(2, max_epochs=2, random_state=0)
    check_not_interrupted(encoder.fit(images))
    with pytest.raises(KeyboardInterrupt):
        check_not_interrupted(encoder.set_params(callbacks=[InterruptOnce()]).fit(images))


def test_a_budget_is_named_by_its_numbers():
    small = get_budget("lunarlander", "small")
    assert budget_settings("lunarlander", small)["budget"] == "small"
    assert budget_settings("lunarlander", small._replace(stride=9))["budget"] == "custom"


@pytest.mark.slow
def test_convergence_goes_on_with_the_missing_curves(arguments, tmp_path, capsys):
    out, home = tmp_path / "r.jsonl", arguments(tmp_path)[-1]
    command = "convergence --dataset lunarlander --images 45 --z 4 --max-epochs 2"
    command = [*command.split(), "--data-home", home, "--out", str(out)]
    assert main([*command, "--procedures", "I-F-FP"]) == 0
    assert "best epoch" in capsys.readouterr().out
    first = out.read_text()
    assert main([*command, "--procedures", "I-F-FP", "F-I-PW"]) == 0
    assert "1 of 2 runs already" in capsys.readouterr().out
    assert first in out.read_text()
    [trial] = convergence.read_trials([out])
    assert list(trial.records) == ["F-I-PW", "I-F-FP"]
