"""The demo, run for real on a few frames, and the README's block made of its records."""

import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from benchmarks import demo
from benchmarks.__main__ import COMMANDS, main
from benchmarks.probes import HIDDEN_LAYERS
from benchmarks.records import read_records
from skfp.datasets import fetch_lunarlander


@pytest.fixture(scope="module")
def data_home(tmp_path_factory):
    return tmp_path_factory.mktemp("frames")


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_home):
    """Run a tiny demo, and return its folder and what it printed."""
    out = tmp_path_factory.mktemp("demo")
    arguments = (
        f"demo --out {out} --data-home {data_home} --rollouts 4 --labelled-rollouts 4 "
        "--test-rollouts 3 --stride 10 --z 4 --max-epochs 2 --baseline-epochs 1 --n-jobs 1"
    )
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("builtins.print", lambda *args, **_: printed.append(" ".join(map(str, args))))
        assert main(arguments.split()) == 0
    return out, "\n".join(printed)


def test_every_method_leaves_a_record(run):
    records = {record["method"]: record for record in read_records(run[0] / "demo.jsonl")}
    assert list(records) == sorted(demo.ROWS)
    for record in records.values():
        assert record["settings"]["rollouts"] == 4
        losses = record["probe"]["validation_losses"]
        assert len(losses) == len(HIDDEN_LAYERS)
        assert losses[record["probe"]["selected"]] == min(losses.values())
        assert record["training"]["n_images"] == 60
        assert 0 < record["test_measure"] < 10
    assert [len(records[m]["training"]["history"]) for m in ("I-F-FP", "I-I-PW")] == [2, 1]
    assert records["I-F-FP"]["training"]["images_per_second"] > 0
    assert "n_epochs" not in records["frozen"]["training"]


def test_table_is_printed_and_goes_into_the_user_guide(run):
    out, printed = run
    table = demo.table(read_records(out / "demo.jsonl"))
    assert table in printed
    assert len(table.split("\n")) == 2 + len(demo.ROWS)
    block = demo.block(out)
    assert block.startswith(table)
    assert block.endswith("](demo.png)")


def test_picture_is_wide_and_not_empty(run):
    picture = matplotlib.image.imread(run[0] / "demo.png")
    assert picture.shape[1] == 1200
    assert picture[..., :3].std() > 0.1


def test_records_of_different_demos_are_not_mixed(run):
    records = read_records(run[0] / "demo.jsonl")
    records[0] = {**records[0], "settings": {"z": 5}}
    with pytest.raises(ValueError, match="different settings"):
        demo.caption(records)


def test_positions_fall_on_the_lander(data_home):
    """The lander is the only purple thing in a frame."""
    data = fetch_lunarlander(run=3, n_rollouts=3, stride=10, data_home=data_home)
    offsets = []
    for image, place in zip(data.images, demo.to_pixels(data.positions), strict=True):
        red, green, blue = image.astype(int).transpose(2, 0, 1)
        rows, columns = np.nonzero((blue > green + 40) & (blue > red + 40))
        if len(rows) > 8:
            offsets.append([columns.mean() + 0.5, rows.mean() + 0.5] - place)
    assert len(offsets) > 10
    assert np.abs(np.median(offsets, axis=0)).max() < 1.5


def test_help_names_every_command_without_importing_torch():
    code = (
        "import sys; from benchmarks.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed.endswith("False\n")
    assert all(name in printed for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_an_example_that_it_accepts(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    printed = capsys.readouterr().out
    assert f"    python -m benchmarks {name}" in printed
    assert str(Path.cwd()) not in printed


def test_unknown_command(capsys):
    with pytest.raises(SystemExit) as error:
        main(["dance"])
    assert error.value.code == 2
    assert "invalid choice: 'dance'" in capsys.readouterr().err
