"""The engine of studies: it computes what is missing, through kills, failures and new settings."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.grid import missing_runs, run_grid
from benchmarks.records import add_record, read_records

ROOT = Path(__file__).parents[2]


def square(run, data, checkpoint_dir):
    if run["x"] < 0:
        raise ValueError(f"no root of {run['x']}")
    return {"square": run["x"] ** 2 + data}


def runs_of(*xs):
    return [{"x": x, "settings": {"shape": (1, x)}} for x in xs]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_only_missing_runs_are_computed(tmp_path, capsys, n_jobs):
    results = tmp_path / "r.jsonl"
    assert run_grid(runs_of(2, 1), square, results, load=len, n_jobs=n_jobs) == 0
    assert [r["square"] for r in read_records(results)] == [3, 6]  # sorted, with 2 missing runs
    assert run_grid(runs_of(1, 2, 3), square, results, load=len, n_jobs=n_jobs) == 0
    assert [r["square"] for r in read_records(results)] == [3, 6, 10]
    assert "2 of 3 runs already in r.jsonl" in capsys.readouterr().out
    assert run_grid(runs_of(1, 2, 3), None, results, load=None, n_jobs=n_jobs) == 0


def test_every_setting_makes_another_run(tmp_path):
    results = tmp_path / "r.jsonl"
    run = {"z": 1, "settings": {"stride": 1, "n": None}}
    add_record(results, {**run, "loss": 0.5})
    assert missing_runs([run], results) == []
    others = [
        {**run, "z": 2},
        {**run, "settings": {"stride": 2, "n": None}},
        {**run, "settings": {"stride": 1, "n": 0}},
        {**run, "parameters": {}},
    ]
    assert missing_runs(others, results) == others


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_failing_run_does_not_stop_the_others(tmp_path, capfd, n_jobs):
    results = tmp_path / "r.jsonl"
    assert run_grid(runs_of(1, -2, 3), square, results, load=len, n_jobs=n_jobs) == 1
    assert [r["x"] for r in read_records(results)] == [1, 3]
    errors = capfd.readouterr().err
    assert "ValueError: no root of -2" in errors
    assert "1 of 3 runs failed: x=-2." in errors


def test_a_run_that_another_process_has_finished_is_not_computed_again(tmp_path, capsys):
    results = tmp_path / "r.jsonl"

    def load(missing):
        add_record(results, {**missing[0], "square": 0})
        return 0

    assert run_grid(runs_of(1), square, results, load=load) == 0
    assert "finished by another process" in capsys.readouterr().out
    assert [r["square"] for r in read_records(results)] == [0]


def test_an_interrupt_keeps_what_is_finished(tmp_path, capsys):
    def interrupted(run, data, checkpoint_dir):
        if run["x"] == 2:
            raise KeyboardInterrupt
        return {}

    assert run_grid(runs_of(1, 2, 3), interrupted, tmp_path / "r.jsonl") == 130
    assert [r["x"] for r in read_records(tmp_path / "r.jsonl")] == [1]
    assert "the same command goes on" in capsys.readouterr().err


def die(run, data, checkpoint_dir):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_that_dies_is_reported(tmp_path, capsys):
    assert run_grid(runs_of(1, 2), die, tmp_path / "r.jsonl", n_jobs=2) == 1
    assert "A worker process died" in capsys.readouterr().err


def test_checkpoints_are_removed_when_a_run_is_finished(tmp_path):
    def compute(run, data, checkpoint_dir):
        checkpoint_dir.mkdir(parents=True)
        return {}

    checkpoints, results = tmp_path / "checkpoints", tmp_path / "r.jsonl"
    assert run_grid(runs_of(1), compute, results, checkpoints=checkpoints) == 0
    assert not list(checkpoints.iterdir())
    (folder,) = [checkpoints / "left-behind"]
    results.unlink()

    def killed_after_its_record(run, data, checkpoint_dir):
        nonlocal folder
        folder = checkpoint_dir
        return {}

    run_grid(runs_of(1), killed_after_its_record, results, checkpoints=checkpoints)
    folder.mkdir()
    run_grid(runs_of(1), compute, results, checkpoints=checkpoints)
    assert not folder.exists()


SLEEPY = """
import sys, time
from pathlib import Path
from benchmarks.grid import run_grid

def compute(run, data, checkpoint_dir):
    time.sleep(0.2)
    return {"square": run["x"] ** 2}

sys.exit(run_grid([{"x": x} for x in range(6)], compute, Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_a_killed_grid_goes_on_where_it_stopped(tmp_path):
    results = tmp_path / "r.jsonl"
    command = [sys.executable, "-c", SLEEPY, str(results)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while not results.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    survived = len(read_records(results))
    assert 0 < survived < 6
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"{survived} of 6 runs already" in again.stdout
    assert [r["square"] for r in read_records(results)] == [0, 1, 4, 9, 16, 25]
