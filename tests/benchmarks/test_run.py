"""The runner of the paper's comparison, run for real on a few images."""

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from joblib import parallel_config
from skorch.callbacks import Callback

from benchmarks import backends
from benchmarks.__main__ import main
from benchmarks.cnn import SimpleCNN
from benchmarks.methods import METHODS, WhitenedPCA, train, was_interrupted
from benchmarks.probes import HIDDEN_LAYERS, TRAINING, measure
from benchmarks.report import convergence
from benchmarks.roles import BUDGETS, Budget, Roles, load_roles
from benchmarks.run import Cell, make_cells, missing_cells, run_grid
from skfp import FeaturePredictionEncoder, PixelAutoencoder
from skfp._training.checkpoint import open_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Make the arguments of a tiny run on 3, 3 and 2 rollouts."""
    home = tmp_path_factory.mktemp("home")

    def make(out, *others):
        common = "run --dataset lunarlander --images 45 45 30 --max-epochs 1"
        return [*common.split(), "--out", str(out), "--data-home", str(home), *others]

    return make


def read(folder):
    """Return the records of a folder by file name."""
    paths = [path for path in folder.glob("*.json") if not path.name.startswith(".")]
    return {path.name: json.loads(path.read_text()) for path in paths}


def without_times(record):
    if not isinstance(record, dict | list):
        return record
    if isinstance(record, list):
        return [without_times(item) for item in record]
    times = {"seconds", "seconds_per_epoch", "images_per_second"}
    return {key: without_times(item) for key, item in record.items() if key not in times}


def kill_once(written, arguments):
    """Run the benchmark in a process of its own, and kill it as soon as something is written."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not written() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_killed_run_finishes_as_if_it_had_not_been_killed(arguments, tmp_path, capsys):
    grid = ["--procedures", "mean", "I-F-FP", "pca", "--z", "4", "--repeats", "1"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_once(lambda: read(killed), arguments(killed, *grid))
    survived = {name: (killed / name).stat().st_mtime_ns for name in read(killed)}
    assert 0 < len(survived) < 3

    assert main(arguments(killed, *grid)) == 0
    assert f"{len(survived)} of 3 already there" in capsys.readouterr().out
    assert all((killed / name).stat().st_mtime_ns == at for name, at in survived.items())
    assert main(arguments(whole, *grid)) == 0
    continued, uninterrupted = read(killed), read(whole)
    assert len(uninterrupted) == 3
    assert continued.keys() == uninterrupted.keys()
    for name, record in uninterrupted.items():
        assert without_times(continued[name]) == without_times(record)

    assert main(arguments(whole, *grid)) == 0
    assert "3 of 3 already there" in capsys.readouterr().out


def test_a_procedure_that_was_killed_goes_on_after_its_last_epoch(arguments, tmp_path, capsys):
    epochs = 40
    grid = ["--procedures", "I-F-FP", "--z", "4", "--repeats", "1", "--max-epochs", str(epochs)]
    killed, whole, checkpoints = tmp_path / "killed", tmp_path / "whole", tmp_path / "checkpoints"
    broken_off = [*arguments(killed, *grid), "--checkpoints", str(checkpoints)]
    kill_once(lambda: list(checkpoints.rglob("*.safetensors")), broken_off)
    assert not read(killed)
    with open_checkpoint(next(checkpoints.iterdir())) as checkpoint:
        on_disk = checkpoint.n_epochs
    assert 0 < on_disk < epochs

    assert main(broken_off) == 0
    told = capsys.readouterr().out
    assert f"epoch {on_disk + 1:2}/{epochs} " in told
    assert f"epoch {on_disk:2}/{epochs} " not in told
    assert main(arguments(whole, *grid)) == 0
    (name, continued), (_, uninterrupted) = *read(killed).items(), *read(whole).items()
    assert read(whole).keys() == {name}
    assert without_times(continued) == without_times(uninterrupted)
    training = continued["training"]
    assert training["seconds"] > sum(row["seconds"] for row in training["history"])
    assert not list(checkpoints.iterdir())

    # Killed after its record was written, it leaves a checkpoint that nothing needs.
    (checkpoints / Path(name).stem).mkdir()
    assert main(broken_off) == 0
    assert not list(checkpoints.iterdir())


GRID = ["--procedures", "mean", "I-F-FP", "F-F-FP", "--z", "3", "--repeats", "1"]


@pytest.fixture(scope="module")
def sequential(arguments, tmp_path_factory):
    """Records of three cells that ran one after the other."""
    out = tmp_path_factory.mktemp("sequential")
    assert main(arguments(out, *GRID)) == 0
    return {name: without_times(record) for name, record in read(out).items()}


def test_dask_workers_leave_the_same_records(arguments, dask_client, sequential, tmp_path, capfd):
    dask = pytest.importorskip("dask")
    memory = tmp_path / "memory"
    on_dask = ["--backend", "dask", "--memory", str(memory)]
    with dask.config.set({"scheduler-address": dask_client.scheduler.address}):
        assert main(arguments(tmp_path / "out", *GRID, *on_dask)) == 0
    records = read(tmp_path / "out")
    expected = {
        name: record | {"features_from_memory": True} for name, record in sequential.items()
    }
    assert {name: without_times(record) for name, record in records.items()} == expected
    told = capfd.readouterr()
    assert "Done   3 out of   3" in told.err + told.out
    # The two procedures share features, their components and coefficients; one takes their mean.
    assert len(list(memory.rglob("output.pkl"))) == 4


def test_what_a_killed_dask_worker_has_begun_is_done_by_another(
    arguments, dask_client, sequential, tmp_path
):
    home = arguments(tmp_path)[-1]
    budget = BUDGETS["lunarlander"]["small"]
    budget = budget._replace(n_unlabelled=45, n_labelled=45, n_test=30, max_epochs=1)
    cells = make_cells("lunarlander", ["mean", "I-F-FP", "F-F-FP"], "defaults", [3], 1, budget)
    roles = load_roles("lunarlander", budget, data_home=home)
    pids = dask_client.run(os.getpid)

    def run():
        with parallel_config(backend="dask", scatter=[roles]):
            return run_grid(cells, roles, tmp_path)

    def find_tasks(dask_worker):
        return [task.key for task in dask_worker.state.executing]

    with ThreadPoolExecutor(1) as pool:
        failures = pool.submit(run)
        begun = []
        while not (begun and read(tmp_path)):
            assert not failures.done()
            tasks = dask_client.run(find_tasks)
            begun = [(worker, key) for worker, keys in tasks.items() for key in keys]
        worker, task = begun[0]
        os.kill(pids[worker], signal.SIGKILL)
        assert failures.result(timeout=300) == {}
    steps = [step[2] for step in dask_client.cluster.scheduler.story(task)]
    # Begun again on another worker, unless its result had left the first one by then.
    assert steps.count("processing") > 1 or "memory" in steps
    records = {name: without_times(record) for name, record in read(tmp_path).items()}
    assert records == sequential


def test_ray_workers_leave_the_same_records_though_one_is_killed(
    arguments, sequential, tmp_path, capfd
):
    pytest.importorskip("ray", reason="needs the extra ray")
    psutil = pytest.importorskip("psutil")

    def kill_a_busy_worker():
        while not finished.is_set():
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if process.cmdline()[:1] == ["ray::PoolActor.run_batch"] and read(tmp_path):
                        process.kill()
                        return True
            time.sleep(0.05)
        return False

    finished = Event()
    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill_a_busy_worker)
        try:
            assert main(arguments(tmp_path, *GRID, "--backend", "ray", "--n-jobs", "2")) == 0
        finally:
            finished.set()
        assert killed.result()
    records = {name: without_times(record) for name, record in read(tmp_path).items()}
    assert records == sequential
    told = capfd.readouterr()
    assert "Done   3 out of   3" in told.err + told.out


def test_a_backend_that_is_not_installed_is_named(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(backends, "find_spec", lambda module: None)
    assert main(arguments(tmp_path, "--backend", "ray")) == 2
    assert "pip install 'skfp[ray]'" in capsys.readouterr().err


def test_other_settings_do_not_reuse_records(arguments, tmp_path, capsys):
    for n_test in ("30", "15"):
        others = ("--procedures", "mean", "--repeats", "1", "--images", "45", "45", n_test)
        assert main(arguments(tmp_path, *others)) == 0
        assert "0 of 1 already there" in capsys.readouterr().out
    assert sorted(r["settings"]["n_test"] for r in read(tmp_path).values()) == [15, 30]
    assert len({r["n_test_images"] for r in read(tmp_path).values()}) == 2
    assert {r["seconds_per_epoch"] for r in read(tmp_path).values()} == {None}


def test_every_setting_is_in_the_file_name():
    cell = Cell("svhn", "I-F-FP", "defaults", 64, 0, Budget())
    others = [
        cell,
        *(cell._replace(budget=cell.budget._replace(**{name: 7})) for name in Budget._fields),
        cell._replace(dataset="stl10"),
        cell._replace(procedure="F-F-FP"),
        cell._replace(preset="paper"),
        cell._replace(z=65),
        cell._replace(repeat=1),
    ]
    fingerprints = {other.file_name.rpartition("-")[2] for other in others}
    assert len(fingerprints) == len(others)
    assert cell.file_name.startswith("svhn-I-F-FP-defaults-z64-0-")


def test_defaults_and_probes_of_another_version_are_in_the_file_name(monkeypatch):
    procedure = Cell("svhn", "I-F-FP", "defaults", 64, 0, Budget())
    reference = procedure._replace(procedure="pca", preset=None)
    before = {procedure.file_name, reference.file_name}
    with monkeypatch.context() as patch:
        patch.setitem(FeaturePredictionEncoder.__init__.__kwdefaults__, "lr", 0.5)
        assert procedure.file_name not in before
        assert reference.file_name in before
    with monkeypatch.context() as patch:
        patch.setattr(WhitenedPCA.__init__, "__defaults__", (7, None))
        assert procedure.file_name in before
        assert reference.file_name not in before
    for name in TRAINING:
        with monkeypatch.context() as patch:
            patch.setitem(TRAINING, name, 0.125)
            assert before.isdisjoint({procedure.file_name, reference.file_name})


def test_a_cell_that_fails_does_not_take_others_with_it(arguments, tmp_path, capfd):
    # 45 images do not have 100 principal components.
    grid = ["--procedures", "pca", "mean", "--z", "100", "4", "--repeats", "1", "--n-jobs", "2"]
    assert main(arguments(tmp_path, *grid)) == 1
    found = {(record["procedure"], record["z"]) for record in read(tmp_path).values()}
    assert found == {("pca", 4), ("mean", 0)}
    errors = capfd.readouterr().err
    assert "1 of 3 failed: lunarlander-pca-z100-0" in errors
    assert "n_components=100" in errors


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


def test_a_cnn_classifies_and_leaves_a_whole_record(clothes, tmp_path):
    budget = Budget(30, 100, 40, max_epochs=20)
    roles = load_roles("fashion-mnist", budget, data_home=clothes, verify=False)
    assert roles.task == "class"
    assert [len(roles.unlabelled), len(roles.labelled[1]), len(roles.test[1])] == [30, 100, 40]
    cells = make_cells("fashion-mnist", ["cnn"], "paper", [8], 1, budget)
    assert run_grid(cells, roles, tmp_path) == {}
    assert missing_cells(cells, tmp_path) == []

    (record,) = read(tmp_path).values()
    assert record["end_to_end_measure"] > 0.8
    assert record["test_measure"] > 0.8
    assert record["dataset"] == "fashion-mnist"
    assert record["title"] == METHODS["cnn"].title
    assert record["preset"] is None
    assert record["settings"] == {"budget": "custom", **budget._asdict()}
    assert len(record["probe"]["validation_losses"]) == len(HIDDEN_LAYERS)
    assert record["n_test_images"] == 40
    assert record["machine"]["torch"]
    training = record["training"]
    assert training["n_images"] == 100
    assert len(training["history"]) == training["n_epochs"]
    assert record["seconds_per_epoch"] == training["seconds"] / training["n_epochs"]


@pytest.mark.parametrize("shape", [(28, 28), (32, 32, 3)])
@pytest.mark.parametrize("name", ["frozen", "pca"])
def test_untrained_rows_take_small_and_grey_images(name, shape, noise):
    images = noise(12, *shape)
    embedding = METHODS[name].make(z=3, random_state=0).fit(images).transform(images)
    assert embedding.shape == (12, 3)
    np.testing.assert_allclose(embedding.std(axis=0, ddof=1), 1, rtol=1e-3)


def test_roles_share_no_image(clothes):
    budget = BUDGETS["fashion-mnist"]["paper"]._replace(n_labelled=50)
    roles = load_roles("fashion-mnist", budget, data_home=clothes, verify=False)
    assert len(roles.unlabelled) == 100
    together = np.concatenate([roles.unlabelled, roles.labelled[0], roles.test[0]])
    assert len(np.unique(together, axis=0)) == 190


def test_the_paper_judges_epochs_by_the_last_fifth(lander):
    labelled = lander.images, lander.positions
    roles = Roles("position", lander.images, labelled, labelled)
    cell = Cell("lunarlander", "I-I-PW", "paper", 4, 0, Budget(max_epochs=1))
    record = cell.run(roles)
    assert record["parameters"]["batch_size"] == 512
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


def test_a_cell_that_another_run_has_done_is_not_run_again(arguments, tmp_path, capsys):
    alone = ["--procedures", "mean", "--z", "4", "--repeats", "1"]
    assert main(arguments(tmp_path, *alone)) == 0
    [path] = tmp_path.glob("*.json")
    written = path.stat().st_mtime_ns
    budget = Budget(45, 45, 30, max_epochs=1)
    cells = make_cells("lunarlander", ["mean"], "defaults", [4], 1, budget._replace(stride=10))
    assert [cell.file_name for cell in cells] == [path.name]
    assert not run_grid(cells, None, tmp_path)
    assert "done by another run" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == written


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
    assert not was_interrupted(encoder)
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
    assert not was_interrupted(encoder.fit(images))
    assert was_interrupted(encoder.set_params(callbacks=[InterruptOnce()]).fit(images))


def test_convergence_is_resumed(arguments, tmp_path, capsys):
    home = arguments(tmp_path)[-1]
    command = "convergence --dataset lunarlander --images 45 --z 4 --max-epochs 2"
    command = [*command.split(), "--data-home", home, "--out", str(tmp_path)]
    assert main([*command, "--procedures", "I-F-FP"]) == 0
    assert "feature prediction (I-F-FP): best epoch" in capsys.readouterr().out
    [first] = tmp_path.glob("*.json")
    written = first.stat().st_mtime_ns

    assert main([*command, "--procedures", "I-F-FP", "F-I-PW"]) == 0
    assert "feature prediction (I-F-FP): already there" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == written
    [trial] = convergence.read_trials(tmp_path)
    assert list(trial.records) == ["F-I-PW", "I-F-FP"]
    # The command that the report shows finds what is there.
    told = convergence.command(trial).split()[3:]
    procedures = ["--procedures", "I-F-FP", "F-I-PW"]
    assert main([*told, "--data-home", home, *procedures]) == 0
    assert capsys.readouterr().out.count("already there") == 2
