"""The study of loss networks: resumable, and summarised against frozen features."""

import json

import pytest

from benchmarks.__main__ import main
from benchmarks.loss_networks import NETWORKS, draw, readme_block, summary, table


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Build a tiny study of two layers whose weights the package has."""
    out, home, memory = (tmp_path_factory.mktemp(name) for name in ("out", "home", "memory"))
    return out, [
        *("loss_networks", "--out", str(out), "--data-home", str(home), "--memory", str(memory)),
        *("--datasets", "lunarlander", "--networks", "alexnet-relu2", "alexnet-relu1"),
        *("--seeds", "0", "1", "--epochs", "1", "2", "--z", "4", "--images", "60", "60", "30"),
    ]


def test_a_study_continues_where_it_stopped(command, capsys):
    out, arguments = command
    main(arguments)
    written = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert len(written) == 2 * 2 + 1 + 3
    assert (out / "loss_networks.png").stat().st_size > 10_000
    lost = next(path for path in written if "relu1-2-epochs" in path.name)
    lost.unlink()
    main(arguments)
    again = {path for path, time in written.items() if path.stat().st_mtime_ns != time}
    assert again == {lost}
    assert "| AlexNet relu1" in capsys.readouterr().out


def test_a_record_tells_what_the_table_needs(command):
    out, arguments = command
    main(arguments)
    record = json.loads(next(out.glob("*relu2-2-epochs-1-*.json")).read_text())
    assert record["settings"]["batch_size"] == 64
    assert record["training"]["n_epochs"] == 2
    assert set(record["embedding"]) == {"frozen", "encoder"}
    block = readme_block(out.parent, out.relative_to(out.parent))
    assert "AlexNet relu2" in block
    assert "60 unlabelled images" in block


def record(network, epochs, seed, measure, *, dataset="fashion-mnist", speed=100.0):
    return {
        "dataset": dataset,
        "network": network,
        "epochs": epochs,
        "seed": seed,
        "settings": {},
        "test_measure": measure,
        "training": {} if epochs is None else {"seconds": 30.0, "n_images": 5904},
        "embedding": {"frozen": speed} | ({} if epochs is None else {"encoder": 40 * speed}),
    }


def test_the_gain_is_taken_seed_by_seed():
    records = [
        *(record("both", None, seed, 0.8 + 0.01 * seed) for seed in (0, 1)),
        *(record("both", 8, seed, 0.9 + 0.01 * seed) for seed in (0, 1)),
        record("both", 2, 0, 0.7),
    ]
    (row,) = summary(records, "fashion-mnist")
    assert row["gain"] == pytest.approx([0.1, 0.1])
    assert (row["ratio"], row["seeds"], row["features_seconds"]) == (40, 2, 100)
    text = table(records, "fashion-mnist")
    assert "+0.100 ± 0.000" in text
    assert "0.905 ± 0.005" in text


def test_a_smaller_distance_is_a_gain():
    records = [
        record("both", None, 0, 0.5, dataset="lunarlander"),
        record("both", 8, 0, 0.25, dataset="lunarlander"),
    ]
    (row,) = summary(records, "lunarlander")
    assert row["gain"] == [8.0]  # 32 pixels are a unit


def test_a_network_whose_encoder_is_missing_is_not_in_the_table():
    records = [
        record("both", None, 0, 0.5),
        record("both", 8, 0, 0.6),
        record("alexnet-relu5", None, 0, 0.6),
    ]
    assert [row["name"] for row in summary(records, "fashion-mnist")] == ["both"]


def test_every_network_is_judged_by_its_own_largest_budget():
    records = [
        record("both", None, 0, 0.5),
        record("both", 8, 0, 0.6),
        record("alexnet-relu5", None, 0, 0.5),
        record("alexnet-relu5", 8, 0, 0.6),
        record("alexnet-relu5", 20, 0, 0.7),
    ]
    gains = {row["name"]: row["gain"] for row in summary(records, "fashion-mnist")}
    assert gains == {"both": pytest.approx([0.1]), "alexnet-relu5": pytest.approx([0.2])}
    text = table(records, "fashion-mnist")
    assert "encoder, 8 epochs | encoder, 20 epochs" in text
    assert len(text.splitlines()) == 4


def test_every_network_has_a_mark_of_its_own():
    records = [
        record(name, epochs, 0, 0.5 + i / 20, speed=10.0 * (i + 1))
        for i, name in enumerate(NETWORKS)
        for epochs in (None, 8)
    ]
    figure = draw(records)
    styles = {
        (line.get_marker(), line.get_color())
        for line in figure.axes[0].lines
        if line.get_marker() not in ("None", "_")
    }
    assert len(styles) == len(NETWORKS)
