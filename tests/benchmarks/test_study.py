"""The study of targets, batches and schedules: resumable, and summarised over seeds."""

import json

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.study import VARIANTS, augment, draw, summary


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Build a tiny study of three variants, one of which trains for the default's seconds."""
    out = tmp_path_factory.mktemp("study")
    home = tmp_path_factory.mktemp("home")
    sizes = ["--rollouts", "3", "--labelled-rollouts", "4", "--test-rollouts", "2", "--z", "4"]
    return out, [
        *("study", "--out", str(out), "--data-home", str(home), "--n-jobs", "1", *sizes),
        *("--variants", "default", "paper", "scaled-half", "augmented", "--max-epochs", "1"),
        *("--seeds", "0"),
    ]


def test_a_study_continues_where_it_stopped(command, capsys):
    out, arguments = command
    main(arguments)
    written = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert len(written) == 4
    assert (out / "study.png").stat().st_size > 10_000
    lost = next(path for path in written if path.name.startswith("scaled-half"))
    lost.unlink()
    main(arguments)
    again = {path for path, time in written.items() if path.stat().st_mtime_ns != time}
    assert again == {lost}
    assert "relative to default" in capsys.readouterr().out


def test_the_paper_gets_the_seconds_of_the_default(command):
    out, arguments = command
    main(arguments)
    seconds = {
        record["variant"]: record["training"]["seconds"]
        for record in (json.loads(path.read_text()) for path in out.glob("*.json"))
    }
    assert seconds["paper"] >= seconds["default"]


def test_a_summary_has_the_mean_and_spread_over_seeds():
    records = [
        {
            "variant": "default",
            "seed": seed,
            "settings": {},
            "test_measure": measure,
            "training": {"seconds": 10 + seed},
            "machine": {"cores": 1 + seed},
        }
        for seed, measure in enumerate((0.5, 1.0))
    ]
    (row,) = summary(records)
    assert (row["mean"], row["std"], row["seeds"]) == (24.0, 8.0, 2)
    assert (row["seconds"], row["cores"]) == (10, 1)


def test_every_variant_has_a_mark_of_its_own():
    records = [
        {
            "variant": name,
            "seed": 0,
            "settings": {},
            "test_measure": 0.1 * (1 + rank),
            "training": {"seconds": 10 + rank},
            "machine": {"cores": 2},
        }
        for rank, name in enumerate(VARIANTS)
    ]
    bars = draw(records).axes[0].containers
    assert len({bar.lines[0].get_marker() for bar in bars}) == len(VARIANTS)


def test_views_are_shifted_or_mirrored_images():
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    views = augment(images, views=3, seed=0)
    assert views.shape == (6, 32, 32, 3)
    inner = images[1, 4:-4, 4:-4]
    patches = [
        view[top : top + 24, left : left + 24]
        for view in (views[5], views[5][:, ::-1])
        for top in range(9)
        for left in range(9)
    ]
    assert any((patch == inner).all() for patch in patches)
