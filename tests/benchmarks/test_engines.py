"""The comparison of engines measures real workers and processes."""

import json

import pytest

from benchmarks import engines
from benchmarks.__main__ import main
from benchmarks.engines import report


def test_measures_one_worker_and_one_process(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engines, "in_new_process", lambda function, *args: function(*args))
    for module in ("dask", "distributed", "zarr", "accelerate"):
        pytest.importorskip(module)
    out = tmp_path / "engines.json"
    few = ["--images", "40", "--train-images", "40", "--processes", "1", "--repeats", "1"]
    few += ["--epochs", "1", "--data-home", str(tmp_path / "home"), "--out", str(out)]
    assert main(["engines", *few]) == 0
    record = json.loads(out.read_text())
    speeds = record["images_per_second"]
    assert list(speeds) == ["plain loop", "dask, 1 workers", "accelerate, 1 processes"]
    assert all(speed > 0 for (speed,) in speeds.values())
    assert "40 LunarLander frames" in capsys.readouterr().out


def test_ratios_are_taken_within_a_repeat():
    speeds = {
        "plain loop": [100.0, 200.0],
        "dask, 1 workers": [90.0, 180.0],
        "dask, 2 workers": [180.0, 360.0],
        "accelerate, 1 processes": [10.0, 10.0],
        "accelerate, 2 processes": [15.0, 15.0],
    }
    machine = {"cores": 2, "cpu": "a processor", "torch": "2"}
    settings = {"images": 2, "train_images": 2, "chunk": 1, "batch_size": 1, "repeats": 2}
    lines = report({"images_per_second": speeds, "machine": machine, "settings": settings})
    rows = {line.split("|")[1].strip(): line for line in lines.splitlines() if "|" in line}
    assert "2.00 (2.00 to 2.00)" in rows["dask, 2 workers"]
    assert "0.90 (0.90 to 0.90)" in rows["dask, 1 workers"]
    assert "1.50 (1.50 to 1.50)" in rows["accelerate, 2 processes"]
