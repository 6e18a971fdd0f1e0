"""Predictions are in proportion, and the check of them can fail."""

import json

import pytest

from benchmarks import scale
from benchmarks.__main__ import main
from benchmarks.scale import Costs, machines, predict

COSTS = Costs(
    read=1e-5,
    targets=1e-3,
    epoch=1e-3,
    embedding=2e-4,
    components=10.0,
    image_bytes=12_288,
    target_bytes=2_052,
    embedding_bytes=256,
    process_bytes=2**30,
)


def test_images_cost_in_proportion():
    box = machines(2)[0]
    few, many = (predict(COSTS, n, 10, box) for n in (10**6, 10**9))
    assert many.embedding == pytest.approx(1000 * few.embedding)
    assert many.pretraining - 10 == pytest.approx(1000 * (few.pretraining - 10))
    assert many.disk == 1000 * few.disk
    # What does not fit into memory is on the disk, and batches of it pass through.
    assert many.memory == few.memory == COSTS.process_bytes
    assert predict(COSTS, 10**5, 10, box).memory > COSTS.process_bytes


def test_a_fast_machine_waits_for_its_images():
    gpu = machines(2)[1]
    assert predict(COSTS._replace(image_bytes=10**6), 10**6, 0, gpu).embedding == pytest.approx(
        10**12 / gpu.read
    )
    assert predict(COSTS, 10**6, 0, gpu).embedding == pytest.approx(10**6 * 1.2288e4 / gpu.read)


@pytest.mark.parametrize(("ratio", "verdict"), [(1.2, "holds"), (1.4, "does not hold")])
def test_says_whether_the_check_holds(ratio, verdict):
    points = {"predicted": ratio, "measured": 1.0}
    check = {"images": 100, "pretraining": points, "embedding": points, "memory": points}
    assert f"The prediction {verdict}" in scale._check_report([check], 1)


def test_measures_predicts_and_checks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scale, "in_new_process", lambda function, *args: function(*args))
    out = tmp_path / "scale.json"
    sizes = ["--images", "40", "--check", "50", "--check-epochs", "1", "--sizes", "1000"]
    assert main(["scale", *sizes, "--z", "2", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert all(cost > 0 for cost in record["costs"].values())
    assert record["costs"]["image_bytes"] == 64 * 64 * 3
    assert record["costs"]["embedding_bytes"] == 2 * 4
    assert [row["machine"] for row in record["predicted"]] == [box.name for box in machines(1)]
    assert record["checks"][0]["pretraining"]["measured"] > 0
    told = capsys.readouterr().out
    assert "Assumed:" in told
    assert "The prediction" in told
