"""The report, of made-up records whose means, spreads and best z are known."""

import argparse
import json
import re
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from benchmarks import paper, report
from benchmarks import run as benchmarks_run
from benchmarks.records import describe_machine, markdown_table, write_record
from benchmarks.report import convergence, figure, numbers, tables, words

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
    """Make a record whose selected probe has a known loss; `changes` replace top-level parts."""
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


def write(folder, records):
    """Put every record into a file of its own, in a folder for each data set."""
    for number, record in enumerate(records):
        write_record(folder / record["dataset"] / f"{number}.json", record)
    return folder


def run(*arguments):
    """Run the command as `python -m benchmarks report` does."""
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    return report.main(parser.parse_args([str(a) for a in arguments]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of records and of the report made of them."""
    folder = write(tmp_path_factory.mktemp("root") / "records", RECORDS)
    (folder / ".half-written.json").write_text("{", "utf-8")
    assert run(folder) == 0
    return folder


def read_groups(folder):
    return numbers.group_runs(numbers.read_runs(folder))


@pytest.fixture(scope="module")
def groups(folder):
    return read_groups(folder)


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
        "s/epoch": "12.0 ± 2.0",
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
    # What the probes of its embedding lost is not what it lost.
    measured = find(groups, "lunarlander").means.loc["cnn", "", 64]
    assert measured["validation loss"] == 0.5
    assert measured[numbers.PROBES].isna().all()
    assert not measured["selected"]


def test_missing_rows_are_shown_and_the_command_fills_them(folder, groups):
    group = find(groups, "lunarlander")
    row = by_procedure(tables.table_2(group))["feature prediction (F-F-FP)"]
    assert set(row.values()) == {"feature prediction (F-F-FP)", "-"}

    defaults, paper_settings = words.group_commands(group, folder).splitlines()
    start = "python -m benchmarks run --dataset lunarlander --procedures"
    end = (
        f"--z 64 128 256 --repeats 4 --budget small --settings {{}} --out {folder / 'lunarlander'}"
    )
    every = "I-F-FP F-F-FP I-I-PS F-I-PS I-I-PW F-I-PW"
    assert defaults == f"{start} {every} cnn frozen pca mean {end.format('defaults')}"
    assert paper_settings == f"{start} {every} {end.format('paper')}"

    # All that the paper ran is missing where it was not run.
    every = [(r["procedure"], r["z"], r["test distance, px"]) for r in tables.full_table(group)]
    assert ("perceptual autoencoder (I-I-PS)", "64", "4.00 ± 0.50") in every
    assert "perceptual autoencoder (I-I-PS), paper settings" not in {name for name, *_ in every}
    repeats = by_procedure(tables.coverage(group))
    own, of_paper = "perceptual autoencoder (I-I-PS)", "feature prediction (I-F-FP), paper settings"
    assert list(repeats[own].values()) == [own, "2 of 4", "-", "-"]
    assert list(repeats[of_paper].values()) == [of_paper, "1 of 4", "-", "-"]
    assert list(repeats["frozen features, whitened PCA"].values())[1:] == ["2 of 4", "-", "-"]
    assert list(repeats["no embedding: the mean"].values())[1:] == ["1 of 4"] * 3
    assert [z for procedure, z, _ in every if procedure.startswith("no embedding")] == ["-"]


def test_the_command_of_a_report_is_one_that_the_runner_takes(groups, folder):
    for group in groups:
        for command in words.group_commands(group, folder).splitlines():
            parser = argparse.ArgumentParser()
            benchmarks_run.add_arguments(parser)
            args = parser.parse_args(command.split()[4:])
            assert args.dataset == group.dataset


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
    group = find(read_groups(write(tmp_path, [of_table_2, of_table_1])), "svhn", "paper")
    row = by_procedure(tables.table_2(group))["perceptual autoencoder (I-I-PS), paper settings"]
    assert (row["z"], row["test accuracy"]) == ("64", "0.800")
    [command] = words.group_commands(group, tmp_path).splitlines()
    assert "--z 64 128 256 " in command
    # Nothing else of that z is missing.
    assert [row["procedure"] for row in tables.full_table(group) if row["z"] == "500"] == [
        "perceptual autoencoder (I-I-PS), paper settings"
    ]
    assert by_procedure(tables.table_2(group))["state of the art then"]["paper"] == "0.99"


def test_images_are_counted_as_they_were_used(tmp_path):
    record = moon("I-F-FP", 2.0, 0.1, 1.0)  # of a budget of 9,000 labelled and 2,250 test frames
    group = read_groups(write(tmp_path, [record]))[0]
    assert "12,000 unlabelled, 8,000 labelled, 2,000 tested" in words.describe(group)


def test_times_without_the_computation_of_features_are_not_compared(tmp_path):
    records = [
        moon("I-F-FP", 2.0, 0.1, 1.0, features_from_memory=True),
        moon("I-I-PS", 2.0, 0.1, 9.0),
    ]
    group = read_groups(write(tmp_path, records))[0]
    assert "Features came from memory" in words.describe(group)
    assert not any(text.startswith("An epoch") for text in words.orderings(group))


def test_a_training_without_patience_left_is_told(tmp_path):
    early = {"n_images": 12_000, "seconds": 9.0, "n_epochs": 4, "best_epoch": 2}
    records = [moon("I-F-FP", 2.0, 0.1, 1.0, training=early), moon("I-I-PS", 2.0, 0.1, 1.0)]
    said = words.orderings(read_groups(write(tmp_path, records))[0])
    [text] = [text for text in said if "patience" in text]
    assert "I-F-FP, z = 64, ended after 4 of 5 epochs" in text
    assert text.endswith("Its best epoch was 2.")


def test_speed_of_encoding_is_compared(tmp_path):
    slow = {"n_images": 100, "seconds": 0.4, "images_per_second": 250.0}
    records = [moon("I-F-FP", 2.0, 0.1, 1.0), moon("F-I-PW", 2.0, 0.1, 1.0, encoding=slow)]
    group = read_groups(write(tmp_path, records))[0]
    [text] = [text for text in words.orderings(group) if text.startswith("Encoders of images")]
    assert "embed 4.0 times as many images" in text


def test_budget_of_ones_own_is_in_the_command(tmp_path):
    settings = SMALL | {"budget": "custom", "n_unlabelled": 300, "max_epochs": 3}
    group = read_groups(write(tmp_path, [moon("I-F-FP", 2.0, 0.1, 1.0, settings=settings)]))[0]
    command = words.group_commands(group, tmp_path)
    assert "--budget small --max-epochs 3 --images 300 9000 2250 " in command


def test_csv_files_hold_the_numbers(folder):
    full = pd.read_csv(folder / "report" / "full.csv", keep_default_na=False, na_values=[""])
    assert full["repeats"].sum() == len(RECORDS) + 1  # the CNN is in two rows
    full = full.set_index(["dataset", "budget", "procedure", "preset", "z"])
    row = full.loc["lunarlander", "small", "I-F-FP", "defaults", 64]
    assert row["test"] == pytest.approx(3.0)
    assert row["test std"] == pytest.approx(1.0)
    assert row["probe 128-128"] == pytest.approx(0.15 + 0.6)
    assert row["encoded images per second"] == 1000
    assert (row["epochs"], row["selected"]) == (5, "linear")

    best = pd.read_csv(folder / "report" / "table-2.csv")
    best = best[(best["dataset"] == "lunarlander") & (best["budget"] == "small")]
    own = best[(best["procedure"] == "I-F-FP") & (best["preset"] == "defaults")].squeeze()
    assert (own["z"], own["paper"], own["paper std"]) == (64, 1.92, 0.22)
    assert best[best["procedure"] == "F-F-FP"]["test"].isna().all()

    table_1 = pd.read_csv(folder / "report" / "table-1.csv").set_index("procedure")
    assert table_1["test accuracy"].to_dict() == {
        "pixel autoencoder (I-I-PW)": "-",
        "perceptual autoencoder (I-I-PS), paper settings": "0.900",
        "feature prediction (I-F-FP)": "-",
        "Netzer et al. (2011)": "-",
    }
    assert list(table_1["paper"]) == [0.891, 0.913, 0.892, 0.897]


def test_orderings_say_what_the_numbers_say(groups):
    said = words.orderings(find(groups, "lunarlander"))
    assert (
        "I-I-PW against I-I-PS: 20.00 against 4.00 ± 0.50 px: one repeat cannot judge the "
        "difference. The paper: 13.76 ± 5.08 against 1.96 ± 0.18."
    ) in said
    assert (
        "I-F-FP against I-I-PS: 3.00 ± 1.00 against 4.00 ± 0.50 px: as good, within the spread of "
        "1.12 px. The paper: 1.92 ± 0.22 against 1.96 ± 0.18."
    ) in said
    assert (
        "An epoch of I-F-FP takes 50 % of one of I-I-PS (z = 64). "
        "In the paper FP takes about 60 % of PS."
    ) in said
    assert said[-1].startswith("No result yet: F-F-FP; I-I-PW, paper settings; I-I-PS, paper")
    assert any(text.startswith("I-F-FP against I-F-FP, paper settings") for text in said)


@pytest.mark.parametrize(("dataset", "verdict"), [("lunarlander", "better"), ("svhn", "worse")])
def test_a_difference_beyond_the_spread_is_better_or_worse(tmp_path, dataset, verdict):
    records = [
        make_record(dataset, name, value + step, 0.1, 1.0, repeat=repeat)
        for name, value in (("I-F-FP", 0.1), ("I-I-PS", 0.5))
        for repeat, step in enumerate((-0.01, 0.01))
    ]
    group = find(read_groups(write(tmp_path, records)), dataset)
    [said] = [s for s in words.orderings(group) if s.startswith("I-F-FP against I-I-PS")]
    assert f": {verdict}, beyond the spread of" in said


def test_times_of_different_machines_are_not_divided(tmp_path):
    other = MACHINE | {"gpu": "big"}
    records = [moon("I-F-FP", 2.0, 0.1, 1.0), moon("I-I-PS", 2.0, 0.1, 9.0, machine=other)]
    group = read_groups(write(tmp_path, records))[0]
    assert "different machines" in words.describe(group)
    assert not any(text.startswith("An epoch") for text in words.orderings(group))


def test_times_with_as_many_threads_are_compared_whatever_cores_were_idle(tmp_path):
    pinned, free = ({"cpu": "CPU", "gpu": None, "cores": n, "threads": 1} for n in (1, 2))
    earlier = {"cpu": "CPU", "gpu": None, "cores": 1}  # the first records do not tell threads
    machines = {"I-F-FP": pinned, "I-I-PS": free, "F-I-PS": earlier}
    records = [moon(name, 2.0, 0.1, 3.0, machine=machine) for name, machine in machines.items()]
    group = read_groups(write(tmp_path, records))[0]
    assert words.describe(group).endswith("1 thread on CPU, no GPU.")
    assert any(text.startswith("An epoch") for text in words.orderings(group))


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


def test_files(folder, groups):
    out = folder / "report"
    drawn = {group.name for group in groups if group.dataset != "stl10"}
    files = {"report.html", "report.md", "table-1.csv", "table-2.csv", "full.csv"}
    pictures = {f"{name}{suffix}" for name in drawn for suffix in (".png", ".svg")}
    assert len(pictures) == 8
    assert {path.name for path in out.iterdir()} == files | pictures
    picture = matplotlib.image.imread(out / f"{find(groups, 'lunarlander').name}.png")
    assert picture.shape[1] > 1000
    assert picture[..., :3].std() > 0.1
    # Made again of the same records, pictures are the same files.
    name = f"{find(groups, 'svhn').name}.svg"
    again = out.parent / f".{name}"
    figure.save(figure.draw(find(groups, "svhn")), again)
    assert (out / name).read_bytes() == again.read_bytes()


class Page(HTMLParser):
    """Collects what a page loads, its text and its table cells."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.tags, self.text, self.style = [], [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        names = ("src", "href", "srcset", "data", "action", "poster")
        self.loaded += [value for name, value in attributes if name in names]

    def handle_data(self, data):
        if self.tags[-1:] == ["style"]:
            self.style += data
        self.text += data


def test_page_holds_all_and_loads_nothing(folder, groups):
    text = (folder / "report" / "report.html").read_text("utf-8")
    page = Page(text)
    assert len(page.loaded) == page.tags.count("img") == 4
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.loaded)
    assert not {"script", "link", "iframe", "fast"} & set(page.tags)
    assert "url(" not in page.style
    assert "@import" not in page.style
    assert '<meta name="viewport"' in text
    assert "<Fast & Furious>" in page.text  # the processor's name, escaped in the file
    assert "&lt;Fast &amp; Furious&gt;" in text
    for group in groups:
        for statement in words.orderings(group) if len(group.runs) else ():
            assert statement in page.text
    assert f"python -m benchmarks report {folder.as_posix()}" in page.text
    assert page.tags.count("table") == 3 * 4 + 2  # for each group, for STL-10, and table I


def test_markdown_has_the_tables_and_links_to_the_figures(folder, groups):
    text = (folder / "report" / "report.md").read_text("utf-8")
    for link in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (folder / "report" / link).exists()
    assert markdown_table(tables.table_2(find(groups, "lunarlander"))) in text


def test_readme_block(folder, groups):
    root = folder.parent
    block = report.readme_block(root, folder.relative_to(root))
    links = re.findall(r"!\[.*?\]\((.*?)\)", block)
    assert len(links) == 3
    assert all((root / link).exists() for link in links)
    assert "3.00 ± 1.00" in block
    assert re.search(
        r"\| perceptual autoencoder \(I-I-PS\) +\|  1.96 ± 0.18 \|       4.00 ± 0.50 \| 0.125 \|",
        block,
    )
    assert "0.875" in block
    assert "0.900" not in block  # SVHN is not of the README
    assert "| feature prediction (F-F-FP)" not in block  # nothing is known of it
    assert "- I-F-FP against I-I-PS: " in block


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


def test_convergence_below_the_folder_is_figure_9(tmp_path):
    curves = [
        curve("F-F-FP", [8.0, 6.0, 7.0, 9.0]),
        curve("I-F-FP", [4.0, 3.0, 2.5, 2.0, 1.0]),
        curve("I-F-FP", [4.0, 3.0, 3.5, 3.0], n_unlabelled=1200, budget="custom"),
    ]
    write(tmp_path, RECORDS[:1])
    write(tmp_path / "convergence", curves)
    assert run(tmp_path) == 0
    all_images, few_images = sorted(
        (trial for trial in convergence.read_trials(tmp_path)), key=lambda trial: len(trial.records)
    )[::-1]
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
    assert "--budget paper --patience 2 --max-epochs 5" in convergence.command(all_images)
    assert "--images 1200" in convergence.command(few_images)
    assert "with 3 steps an epoch" in convergence.describe(few_images)

    markdown = (tmp_path / "report" / "report.md").read_text("utf-8")
    for trial in (all_images, few_images):
        assert f"({trial.name}.png)" in markdown
        for suffix in (".png", ".svg"):
            assert (tmp_path / "report" / f"{trial.name}{suffix}").stat().st_size > 1000
    html = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert len(Page(html).loaded) == 3


def test_a_loss_of_nan_is_a_gap_in_a_curve(tmp_path):
    diverged = curve("I-F-FP", [4.0, 2.0])
    diverged["training"]["history"].append({"valid_loss": None})
    [trial] = convergence.read_trials(write(tmp_path, [diverged]))
    [row] = [row for row in convergence.table(trial) if row["epochs"] == "2"]
    assert row["least loss"] == "0.500"
    assert np.isnan(convergence.draw(trial).axes[0].lines[0].get_ydata()[-1])


def test_an_incomplete_curve_is_refused(tmp_path, capsys):
    write(tmp_path, [*RECORDS[:1], without(curve("I-F-FP", [2.0, 1.0]), "training", "n_epochs")])
    assert run(tmp_path) == 1
    assert re.search(r"1.json is no record of .*convergence.*'n_epochs'", capsys.readouterr().err)


def test_a_curve_that_is_there_twice_is_refused(tmp_path, capsys):
    write(tmp_path, [*RECORDS[:1], curve("I-F-FP", [2.0, 1.0]), curve("I-F-FP", [2.0, 1.5])])
    assert run(tmp_path) == 1
    assert "2.json is the second record of its curve" in capsys.readouterr().err


def without(record, *names):
    copy = json.loads(json.dumps(record))
    part = copy
    for name in names[:-1]:
        part = part[name]
    del part[names[-1]]
    return copy


ONE = RECORDS[0]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "No result records"),
        (["{"], "is no record of .*JSONDecodeError"),
        (["[1]"], "is no record of"),
        ([json.dumps(without(ONE, "z"))], "is no record of .*'z'"),
        ([json.dumps(without(ONE, "probe", "selected"))], "'selected'"),
        ([json.dumps(ONE | {"dataset": "cats"})], "'cats'"),
        ([json.dumps(ONE), json.dumps(ONE)], "are of the same run, .*0.json, .*1.json"),
        (
            [json.dumps(ONE), json.dumps(RECORDS[1] | {"parameters": {"lr": 0.2}})],
            "have different parameters, .*0.json, .*1.json",
        ),
    ],
)
def test_malformed_folders_are_refused(tmp_path, capsys, texts, message):
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.json").write_text(text, "utf-8")
    assert run(tmp_path) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "report").exists()


def test_the_papers_numbers_belong_to_rows_that_there_are():
    names = set(numbers.TITLES)
    assert set(paper.TABLE_2) <= set(numbers.DATASETS)
    assert all(names >= set(table) for table in paper.TABLE_2.values())
    assert names >= set(paper.TABLE_1)
