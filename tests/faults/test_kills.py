"""Killed and interrupted processes: the work of every epoch that was over is kept.

A fit that is started again continues from its checkpoint, and ends bit for bit as one that nothing
has happened to. Processes are killed with SIGKILL, at moments that each seed draws anew.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from skorch.callbacks import Callback

from benchmarks.grid import run_grid
from benchmarks.records import read_records
from skfp import FeaturePredictionEncoder

pytestmark = pytest.mark.slow

SETTINGS = {"z": 4, "max_epochs": 6, "batch_size": 16, "random_state": 0}
FIT = """
import json, sys
import numpy as np
from benchmarks.grid import run_grid
from benchmarks.records import read_records
from skfp import FeaturePredictionEncoder
images, out, parameters = np.load(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
print("started", flush=True)
FeaturePredictionEncoder(**parameters).fit(images).save(out)
"""


@contextlib.contextmanager
def fit_in_a_process(images, out, **parameters):
    """Start a fit that saves its encoder, and wait for its end."""
    words = json.dumps({**SETTINGS, **parameters})
    command = [sys.executable, "-c", FIT, str(images), str(out), words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "started\n"
        yield process
    # Nothing but a kill ends a fit early.
    assert process.returncode in (0, -signal.SIGKILL)


def wait_until(condition, process):
    """Wait for a condition, or for the end of a process."""
    while not condition() and process.poll() is None:
        time.sleep(0.001)


def epochs_on_disk(folder):
    """Count the epochs that the checkpoint of the one fit in a folder holds."""
    path = next(folder.glob("*/checkpoint.safetensors"), None)
    if path is None:
        return 0
    with safe_open(path, "np") as file:
        return len(json.loads(file.metadata()["skfp"])["history"])


def assert_same_weights(out, unbroken):
    weights, expected = load_file(out), load_file(unbroken)
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.fixture(scope="module")
def images(lander, tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, lander.images)
    return path


@pytest.fixture(scope="module")
def unbroken(images, tmp_path_factory):
    """The file of a fit that nothing happens to."""
    out = tmp_path_factory.mktemp("unbroken") / "encoder.safetensors"
    with fit_in_a_process(images, out):
        pass
    return out


def at_any_moment(chance, process, folder):
    epoch = chance.randrange(SETTINGS["max_epochs"] - 1)
    wait_until(lambda: epochs_on_disk(folder) >= epoch, process)
    time.sleep(chance.uniform(0, 0.2))


def while_writing(chance, process, folder):
    def writing():
        return any(folder.glob("*/.checkpoint*/*"))

    for _ in range(chance.randrange(3)):
        wait_until(writing, process)
        wait_until(lambda: not writing(), process)
    wait_until(writing, process)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("moment", [at_any_moment, while_writing])
def test_a_killed_fit_loses_no_epoch(images, unbroken, tmp_path, moment, seed):
    folder, out = tmp_path / "checkpoints", tmp_path / "encoder.safetensors"
    chance = random.Random(seed)
    n_kills = 0
    while not out.exists():
        before = epochs_on_disk(folder)
        with fit_in_a_process(images, out, checkpoint_dir=str(folder)) as process:
            if n_kills < 3:
                moment(chance, process, folder)
                process.kill()
        n_kills += process.returncode == -signal.SIGKILL
        assert epochs_on_disk(folder) >= before
    assert n_kills
    assert_same_weights(out, unbroken)


@pytest.mark.parametrize("seed", range(2))
def test_processes_share_a_cache_though_one_is_killed(images, unbroken, tmp_path, seed):
    memory, outs = tmp_path / "memory", [tmp_path / f"{name}.safetensors" for name in "abc"]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(fit_in_a_process(images, out, memory=str(memory))) for out in outs
        ]
        wait_until(memory.exists, processes[0])
        time.sleep(random.Random(seed).uniform(0, 0.3))
        processes[0].kill()
    for out in outs[1:]:
        assert_same_weights(out, unbroken)


class Interrupt(Callback):
    """Presses Ctrl-C in an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_batch_end(self, net, training, **kwargs):
        if training and len(net.history) == self.epoch:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)  # the signal arrives between two instructions


@pytest.fixture
def ctrl_c():
    """Let SIGINT interrupt, which processes in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("epoch", [2, 5])
def test_an_interrupted_fit_keeps_its_epochs_and_continues(lander, tmp_path, ctrl_c, epoch):
    encoder = FeaturePredictionEncoder(
        **SETTINGS, checkpoint_dir=tmp_path, callbacks=[Interrupt(epoch)]
    )
    with pytest.warns(UserWarning, match="interrupted"):
        encoder.fit(lander.images)
    assert encoder.n_epochs_ == epoch - 1
    again = FeaturePredictionEncoder(**SETTINGS, checkpoint_dir=tmp_path).fit(lander.images)
    unbroken = FeaturePredictionEncoder(**SETTINGS).fit(lander.images)
    np.testing.assert_array_equal(again.transform(lander.images), unbroken.transform(lander.images))


def test_a_killed_worker_of_a_study_costs_its_own_run_only(tmp_path):
    results, killed = tmp_path / "results.jsonl", tmp_path / "killed"

    def compute(run, data, checkpoint_dir):
        if run["seed"] == 3 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"process": os.getpid()}

    runs = [{"seed": seed} for seed in range(6)]
    assert run_grid(runs, compute, results, n_jobs=2) == 1
    before = read_records(results)
    assert run_grid(runs, compute, results, n_jobs=2) == 0
    records = read_records(results)
    assert [record["seed"] for record in records] == list(range(6))
    assert all(record in records for record in before)
