"""The report, from made-up records whose means, spreads and best z are known."""

import json
import re

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from benchmarks import paper, report
from benchmarks.__main__ import main
from benchmarks.records import describe_machine, markdown_table, write_records, write_text
from benchmarks.report import aggregate, convergence, figure, tables
from benchmarks.splits import DATASETS

PROBES = ["linear", "32", "64", "32-32", "64-32", "64-64", "128-128"]
SMALL = {
    "budget": "small",
    "n_unlabelled": 12_000,
    "n_labelled": 9_000,
    "n_test": 2_250,
    "stride": 10,
    "max_epochs": 5,
}
PAPER = {
    "budget": "paper",
    "n_unlabelled": 105_000,
    "n_labelled": 105_000,
    "n_test": 105_000,
    "stride": 1,
    "max_epochs": 50,
}
MACHINE = describe_machine() | {"cpu": "<Fast & Furious>", "cores": 2, "gpu": None}


def make_record(dataset, procedure, measure, loss, seconds=None, **changes):
    """Make a record whose selected probe has a known loss; `changes` replace its fields."""
    losses = {name: loss + 0.1 * rank for rank, name in enumerate(PROBES)}
    trained = {"n_epochs": 5, "best_epoch": 4, "validation_loss": 0.5, "images_per_second": 10.0}
    return {
        "dataset": dataset,
        "procedure": procedure,
        "title": procedure,
        "preset": None if seconds is None else "defaults",
        "z": 64,
        "repeat": 0,
        "seed": 0,
        "settings": SMALL,
        "parameters": {"z": 64, "random_state": 0} | ({} if seconds is None else {"lr": 0.1}),
        "features_from_memory": False,
        "machine": MACHINE,
        "training": {"n_images": 12_000, "seconds": 9.0} | (trained if seconds else {}),
        "encoding": {"n_images": 100, "seconds": 0.1, "images_per_second": 1000.0},
        "probe": {
            "task": "position" if dataset == "lunarlander" else "class",
            "n_images": 8_000,
            "validation_losses": losses,
            "selected": "linear",
            "seconds": 1.0,
        },
        "n_test_images": 2_000,
        "test_measure": measure,
        "seconds_per_epoch": seconds,
        **changes,
    }


def moon(procedure, pixels, *args, **changes):
    """Make a record of LunarLander from a distance in pixels."""
    return make_record("lunarlander", procedure, pixels / 32, *args, **changes)


RECORDS = [
    # The best z by validation loss is 64, though 128 is better on the test images.
    moon("I-F-FP", 2.0, 0.10, 10.0, repeat=0),
    moon("I-F-FP", 4.0, 0.20, 14.0, repeat=1),
    moon("I-F-FP", 1.0, 0.30, 20.0, z=128, repeat=0),
    moon("I-F-FP", 1.0, 0.30, 20.0, z=128, repeat=1),
    moon("I-F-FP", 5.0, 0.40, 30.0, preset="paper"),
    moon("I-I-PS", 3.5, 0.15, 24.0, repeat=0),
    moon("I-I-PS", 4.5, 0.15, 24.0, repeat=1),
    moon("I-I-PW", 20.0, 0.9, 16.0),
    moon("frozen", 2.5, 0.12, repeat=0),
    moon("frozen", 2.5, 0.12, repeat=1),
    moon("mean", 21.0, 0.99, z=0),
    moon("cnn", 9.0, 0.5, 3.0, preset=None, end_to_end_measure=8.0 / 32),
    # The same row at another budget.
    moon("I-F-FP", 1.5, 0.05, 60.0, settings=PAPER),
    make_record("fashion-mnist", "I-F-FP", 0.875, 0.4, 12.0),
    make_record("fashion-mnist", "I-I-PW", 0.8, 0.5, 12.0),
    make_record("fashion-mnist", "mean", 0.1, 2.3, z=0),
    make_record("svhn", "I-I-PS", 0.9, 0.3, 12.0, z=500, preset="paper"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with records and the report made from them."""
    folder = tmp_path_factory.mktemp("report")
    write_records(folder / "comparison.jsonl", RECORDS)
    assert main(["report", str(folder / "comparison.jsonl"), "--out", str(folder / "out")]) == 0
    return folder


def read_groups(path):
    return aggregate.group_runs(aggregate.read_runs([path]))


@pytest.fixture(scope="module")
def groups(folder):
    return read_groups(folder / "comparison.jsonl")


@pytest.fixture
def lunarlander(tmp_path):
    """Make the group of LunarLander from records."""
    return lambda records: read_groups(write_records(tmp_path / "r.jsonl", records))[0]


def find(groups, dataset, budget="small"):
    """Return the group of a data set and budget."""
    [group] = [g for g in groups if g.dataset == dataset and g.settings["budget"] == budget]
    return group


def by_procedure(table):
    return {row["procedure"]: row for row in table}


def test_table_2_has_mean_and_uncorrected_std_of_the_z_chosen_by_validation_loss(groups):
    table = by_procedure(tables.table_2(find(groups, "lunarlander")))
    assert table["feature prediction (I-F-FP)"] == {
        "procedure": "feature prediction (I-F-FP)",
        "paper": "1.92 ± 0.22",
        "test distance, px": "3.00 ± 1.00",  # not the 1.00 of z = 128; ddof = 1 would give 1.41
        "units": "0.094",
        "z": "64",
        "epochs": "5",
        "s/epoch": "12.0 ± 2.0",
        "embedded images/s": "1,000",
        "repeats": "2 of 4",
    }
    # One repeat has no spread, and no epochs no time.
    assert table["feature prediction (I-F-FP), paper settings"]["test distance, px"] == "5.00"
    assert table["frozen features, whitened PCA"]["s/epoch"] == "-"


def test_cnn_stands_beside_the_papers_number_with_its_own_predictions(groups):
    table = by_procedure(tables.table_2(find(groups, "lunarlander")))
    own, probed = table["simple CNN, trained on labels"], table["probes on that CNN's embedding"]
    assert (own["paper"], own["test distance, px"]) == ("8.10 ± 0.01", "8.00")
    assert (probed["paper"], probed["test distance, px"]) == ("-", "9.00")
    # The losses of probes on its embedding are not its own.
    measured = find(groups, "lunarlander").means.loc["cnn", "", 64]
    assert measured["validation loss"] == 0.5
    assert measured[aggregate.PROBES].isna().all()
    assert not measured["selected"]


def test_missing_rows_are_shown(groups):
    group = find(groups, "lunarlander")
    row = by_procedure(tables.table_2(group))["feature prediction (F-F-FP)"]
    assert set(row.values()) == {"feature prediction (F-F-FP)", "-"}

    # All that the paper ran is missing where it was not run.
    missing = group.means[group.means["repeats"] == 0].index
    assert {("I-I-PS", "defaults", 128), ("I-I-PS", "paper", 64)} <= set(missing)


def test_data_set_without_records_is_an_empty_table(groups):
    group = find(groups, "stl10")
    table = by_procedure(tables.table_2(group))
    assert table["feature prediction (I-F-FP)"]["paper"] == "0.67 ± 0.01"
    assert {row["test accuracy"] for row in table.values()} == {"-"}


def test_different_settings_are_never_mixed(folder, groups):
    small, large = find(groups, "lunarlander"), find(groups, "lunarlander", "paper")
    assert small.name != large.name
    assert {settings["budget"] for settings in small.runs["settings"]} == {"small"}
    row = by_procedure(tables.table_2(large))["feature prediction (I-F-FP)"]
    assert (row["test distance, px"], row["repeats"]) == ("1.50", "1 of 4")
    # Both presets are of one group, and distinct rows.
    assert {"defaults", "paper"} == set(small.best().loc["I-F-FP"].index.unique("preset"))


def test_table_1_is_not_a_row_of_table_2(tmp_path):
    of_table_2 = make_record("svhn", "I-I-PS", 0.8, 0.4, 1.0, preset="paper", settings=PAPER)
    of_table_1 = make_record("svhn", "I-I-PS", 0.9, 0.3, 1.0, preset="paper", settings=PAPER, z=500)
    path = write_records(tmp_path / "r.jsonl", [of_table_2, of_table_1])
    group = find(read_groups(path), "svhn", "paper")
    row = by_procedure(tables.table_2(group))["perceptual autoencoder (I-I-PS), paper settings"]
    assert (row["z"], row["test accuracy"]) == ("64", "0.800")
    # Nothing else of that z is missing.
    assert list(group.means.xs(500, level="z").index) == [("I-I-PS", "paper")]
    assert by_procedure(tables.table_2(group))["state of the art then"]["paper"] == "0.99"


def test_images_are_counted_as_they_were_used(lunarlander):
    group = lunarlander([moon("I-F-FP", 2.0, 0.1, 1.0)])  # of a budget of 9,000 labelled frames
    assert "12,000 unlabelled, 8,000 labelled, 2,000 tested" in group.describe()


def test_times_that_cannot_be_compared_are_marked(lunarlander):
    first = moon("I-F-FP", 2.0, 0.1, 1.0)
    group = lunarlander([first, moon("I-I-PS", 2.0, 0.1, 9.0, features_from_memory=True)])
    assert "Features came from memory" in group.describe()
    other = MACHINE | {"gpu": "big"}
    group = lunarlander([first, moon("I-I-PS", 2.0, 0.1, 9.0, machine=other)])
    assert "different machines" in group.describe()


def test_times_with_as_many_threads_are_compared_whatever_cores_were_idle(lunarlander):
    pinned, free = ({"cpu": "CPU", "gpu": None, "cores": n, "threads": 1} for n in (1, 2))
    earlier = {"cpu": "CPU", "gpu": None, "cores": 1}  # the first records have no threads
    machines = {"I-F-FP": pinned, "I-I-PS": free, "F-I-PS": earlier}
    records = [moon(name, 2.0, 0.1, 3.0, machine=machine) for name, machine in machines.items()]
    assert lunarlander(records).describe().endswith("1 thread on CPU, no GPU.")


def test_csv_holds_all_means(folder):
    runs = pd.read_csv(folder / "out" / "runs.csv", keep_default_na=False, na_values=[""])
    assert runs["repeats"].sum() == len(RECORDS) + 1  # the CNN is in two rows
    row = runs.set_index(["dataset", "budget", "procedure", "preset", "z"]).loc[
        "lunarlander", "small", "I-F-FP", "defaults", 64
    ]
    assert row["test"] == pytest.approx(3.0)
    assert row["test std"] == pytest.approx(1.0)
    assert row["probe 128-128"] == pytest.approx(0.15 + 0.6)
    assert row["embedded images per second"] == 1000
    assert (row["epochs"], row["selected"]) == (5, "linear")


def test_table_1(groups):
    assert {r["procedure"]: (r["paper"], r["test accuracy"]) for r in tables.table_1(groups)} == {
        "pixel autoencoder (I-I-PW)": ("0.891", "-"),
        "perceptual autoencoder (I-I-PS), paper settings": ("0.913", "0.900"),
        "feature prediction (I-F-FP)": ("0.892", "-"),
        "Netzer et al. (2011)": ("0.897", "-"),
    }


def test_figure_has_a_point_per_z_and_a_line_per_reference(groups):
    drawn = figure.draw(find(groups, "lunarlander"))
    [axes] = drawn.axes
    points = {
        (round(float(bars[0].get_xdata()[0]), 6), round(float(bars[0].get_ydata()[0]), 6)): bars[0]
        for bars in axes.containers
    }
    assert set(points) == {(12, 3), (20, 1), (30, 5), (24, 4), (16, 20)}
    assert len({line.get_marker() for line in points.values()}) == 3
    assert len({to_hex(line.get_color()) for line in points.values()}) == 3
    # Larger is larger z. Hollow with the paper's settings, filled with the defaults.
    assert points[20, 1].get_markersize() > points[12, 3].get_markersize()
    assert to_hex(points[30, 5].get_markerfacecolor()) == "#ffffff"
    assert to_hex(points[12, 3].get_markerfacecolor()) != "#ffffff"
    # Error bars are one standard deviation to each side.
    [across, up] = next(b for b in axes.containers if b[0] is points[12, 3])[2]
    assert across.get_segments()[0][:, 0] == pytest.approx([10, 14])
    assert up.get_segments()[0][:, 1] == pytest.approx([2, 4])

    lines = [line for line in axes.lines if list(line.get_xdata()) == [0, 1]]
    assert {round(line.get_ydata()[0], 6) for line in lines} == {8.0, 9.0, 2.5, 21.0}
    assert axes.get_yscale() == "log"
    assert "pixels" in axes.get_ylabel()
    assert "lower is better" in axes.get_ylabel()
    legend = {text.get_text() for text in drawn.legends[0].get_texts()}
    assert legend >= {
        "feature prediction (I-F-FP)",
        "feature prediction (I-F-FP), paper settings",
        "frozen features, whitened PCA: 2.50 ± 0.00",
        "z = 128",
    }


def test_a_far_off_mean_does_not_squeeze_accuracies(groups):
    [axes] = figure.draw(find(groups, "fashion-mnist")).axes
    assert axes.get_ylim()[0] > 0.5
    assert "higher is better" in axes.get_ylabel()


def test_report_has_tables_and_figures(folder, groups):
    out = folder / "out"
    drawn = {f"{group.name}.png" for group in groups if group.dataset != "stl10"}
    assert len(drawn) == 4
    assert {path.name for path in out.iterdir()} == {"report.md", "runs.csv"} | drawn
    picture = matplotlib.image.imread(out / f"{find(groups, 'lunarlander').name}.png")
    assert picture.shape[1] > 1000
    assert picture[..., :3].std() > 0.1
    text = (out / "report.md").read_text("utf-8")
    assert set(re.findall(r"!\[.*?\]\((.*?)\)", text)) == drawn
    assert markdown_table(tables.table_2(find(groups, "lunarlander"))) in text


def test_block_of_the_user_guide(folder):
    block = report.block(folder)
    report.draw_block_figures(folder)
    links = re.findall(r"!\[.*?\]\((.*?)\)", block)
    assert len(links) == 3
    assert all((folder / link).exists() for link in links)
    assert re.search(
        r"\| perceptual autoencoder \(I-I-PS\) +\|  1.96 ± 0.18 \|       4.00 ± 0.50 \| 0.125 \|",
        block,
    )
    assert "0.900" not in block  # SVHN is not in it
    assert "| feature prediction (F-F-FP)" not in block  # nothing is known of it


def curve(procedure, losses, **settings):
    """Make a record of `python -m benchmarks convergence`."""
    return {
        "dataset": "svhn",
        "procedure": procedure,
        "z": 64,
        "settings": {
            "budget": "paper",
            "n_unlabelled": None,
            "stride": 1,
            "max_epochs": 5,
            "patience": 2,
            **settings,
        },
        "steps_per_epoch": 3,
        "machine": MACHINE,
        "training": {
            "n_epochs": len(losses),
            "best_epoch": 1 + int(np.argmin(losses)),
            "history": [{"valid_loss": loss} for loss in losses],
        },
    }


def test_convergence_is_figure_9(tmp_path):
    curves = [
        curve("F-F-FP", [8.0, 6.0, 7.0, 9.0]),
        curve("I-F-FP", [4.0, 3.0, 2.5, 2.0, 1.0]),
        curve("I-F-FP", [4.0, 3.0, 3.5, 3.0], n_unlabelled=1200, budget="custom"),
    ]
    path = write_records(tmp_path / "r.jsonl", [RECORDS[0], *curves])
    assert main(["report", str(path), "--out", str(tmp_path)]) == 0
    all_images, few_images = sorted(
        convergence.read_trials([path]), key=lambda trial: len(trial.records), reverse=True
    )
    rows = {row.pop("procedure")[-7:-1]: row for row in convergence.table(all_images)}
    assert len(rows) == 6
    assert set(rows["I-I-PS"].values()) == {"-"}
    assert rows["F-F-FP"] == {
        "epochs": "4",
        "best epoch": "2",
        "converged": "yes",
        "least loss": "0.750",
        "last loss": "1.125",
    }
    assert rows["I-F-FP"]["converged"] == "no"
    [axes] = convergence.draw(all_images).axes
    assert [list(line.get_ydata()) for line in axes.lines] == [
        [1, 0.75, 0.625, 0.5, 0.25],
        [1, 0.75, 0.875, 1.125],
    ]
    assert "all images" in convergence.describe(all_images)
    assert "with 3 steps an epoch" in convergence.describe(few_images)
    markdown = (tmp_path / "report.md").read_text("utf-8")
    for trial in (all_images, few_images):
        assert f"({trial.name}.png)" in markdown
        assert (tmp_path / f"{trial.name}.png").stat().st_size > 1000


def test_a_loss_of_nan_is_a_gap_in_a_curve(tmp_path):
    diverged = curve("I-F-FP", [4.0, 2.0])
    diverged["training"]["history"].append({"valid_loss": None})
    [trial] = convergence.read_trials([write_records(tmp_path / "r.jsonl", [diverged])])
    [row] = [row for row in convergence.table(trial) if row["epochs"] == "2"]
    assert row["least loss"] == "0.500"
    assert np.isnan(convergence.draw(trial).axes[0].lines[0].get_ydata()[-1])


def without(record, *names):
    copy = json.loads(json.dumps(record))
    owner = copy
    for name in names[:-1]:
        owner = owner[name]
    del owner[names[-1]]
    return copy


ONE = RECORDS[0]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (["{"], "line 1 is not a JSON object"),
        ([without(ONE, "z")], "line 1 is no record of .*comparison.*'z'"),
        ([without(ONE, "probe", "selected")], "'selected'"),
        ([ONE | {"dataset": "cats"}], "'cats'"),
        ([ONE, ONE], "are of the same run, .*line 1; .*line 2"),
        (
            [ONE, RECORDS[1] | {"parameters": {"lr": 0.2}}],
            "have different parameters, .*line 1; .*line 2",
        ),
        (
            [without(curve("I-F-FP", [2.0, 1.0]), "training", "n_epochs")],
            "line 1 is no record of .*convergence.*'n_epochs'",
        ),
        (
            [curve("I-F-FP", [2.0, 1.0]), curve("I-F-FP", [2.0, 1.5])],
            "line 2 is the second record of its curve",
        ),
    ],
)
def test_wrong_records_are_refused(tmp_path, capsys, records, message):
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    path = write_text(tmp_path / "r.jsonl", "\n".join(lines))
    assert main(["report", str(path), "--out", str(tmp_path / "out")]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named(tmp_path, capsys):
    assert main(["report", str(tmp_path / "r.jsonl"), "--out", str(tmp_path / "out")]) == 1
    assert "There are no results in" in capsys.readouterr().err


def test_the_papers_numbers_belong_to_rows_that_there_are():
    names = set(aggregate.TITLES)
    assert set(paper.TABLE_2) <= set(DATASETS)
    assert all(names >= set(table) for table in paper.TABLE_2.values())
    assert names >= set(paper.TABLE_1)
