"""The numbers of the report: records as a table with a row for each run, and means over repeats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks import paper
from benchmarks.demo import PIXELS_PER_UNIT
from benchmarks.methods import METHODS, STYLES
from benchmarks.probes import HIDDEN_LAYERS, layer_name
from benchmarks.records import fingerprint
from benchmarks.roles import BUDGETS, TASKS

DATASETS = {
    "lunarlander": "LunarLander",
    "stl10": "STL-10",
    "svhn": "SVHN",
    "fashion-mnist": "Fashion-MNIST",
}
PRESETS = {"": "", "defaults": "", "paper": "paper settings"}

# The CNN has two rows: one predicts by itself, and one is probed as all others are.
CNN_PROBE = "cnn-probe"
TITLES = {
    name: METHODS[name].title if name in METHODS else "probes on that CNN's embedding"
    for name in STYLES
}

PROBES = [f"probe {layer_name(layers)}" for layers in HIDDEN_LAYERS]
AVERAGED = ["test", "validation loss", "seconds per epoch", "epochs", "best epoch"]
AVERAGED += ["encoded images per second", *PROBES]
ROW = ["procedure", "preset", "z"]
OF_A_RUN = ("z", "random_state")  # other parameters are those of the whole row of a table
COLUMNS = ["dataset", "settings", "fingerprint", *ROW, "repeat", "parameters", "selected"]
COLUMNS += [
    "machine",
    "features from memory",
    "path",
    "unlabelled",
    "labelled",
    "tested",
    *AVERAGED,
]


def read_runs(folder: Path) -> pd.DataFrame:
    """Read every record of the comparison below a folder into a table with a row for each run.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If a file is no record, two are of the same run, or runs of a row were trained with
        different parameters.
    """
    paths = record_paths(folder)
    if not paths:
        raise FileNotFoundError(
            f"No result records (*.json) below {str(folder)!r}: see `python -m benchmarks run -h`."
        )
    runs = []
    for path in paths:
        try:
            record = json.loads(path.read_text("utf-8"))
            if "patience" not in record["settings"]:  # else it is one of figure 9
                runs += _runs(record, path)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no record of `python -m benchmarks run` ({error!r}): move it out of "
                "the folder."
            ) from None
    table = pd.DataFrame(runs, columns=COLUMNS).astype(dict.fromkeys(AVERAGED, float))
    _check(table)
    return table


def record_paths(folder: Path) -> list[Path]:
    """Find every record below a folder, none that is being written."""
    return sorted(path for path in folder.rglob("*.json") if not path.name.startswith("."))


def name_machine(machine: Mapping) -> str:
    """Name what seconds depend on."""
    threads = machine.get("threads", machine["cores"])  # the first records did not tell
    threads = "1 thread" if threads == 1 else f"{threads} threads"
    return f"{threads} on {machine['cpu']}, {machine['gpu'] or 'no GPU'}"


def _runs(record: Mapping, path: Path) -> list[dict]:
    """Make the rows of a record: one, or two of the CNN."""
    scale = PIXELS_PER_UNIT if TASKS[record["dataset"]] == "position" else 1
    probe, name, preset = record["probe"], record["procedure"], record["preset"] or ""
    z = record["z"]
    TITLES[name], PRESETS[preset]  # a KeyError for what is unknown
    shared = {k: v for k, v in record["parameters"].items() if k not in OF_A_RUN}
    training, supervised = record["training"], METHODS[name].supervised
    run = {
        "dataset": record["dataset"],
        "settings": record["settings"],
        "fingerprint": fingerprint(record["settings"]),
        "procedure": name,
        "preset": preset,
        "z": z,
        "repeat": record["repeat"],
        "parameters": fingerprint(shared),
        "machine": name_machine(record["machine"]),
        "features from memory": record["features_from_memory"],
        "path": path,
        "unlabelled": None if supervised else training["n_images"],
        "labelled": probe["n_images"],
        "tested": record["n_test_images"],
        "test": record["test_measure"] * scale,
        "validation loss": probe["validation_losses"][probe["selected"]],
        "selected": probe["selected"],
        "seconds per epoch": record["seconds_per_epoch"],
        "epochs": training.get("n_epochs"),
        "best epoch": training.get("best_epoch"),
        "encoded images per second": record["encoding"]["images_per_second"] if z else None,
        **{f"probe {layers}": loss for layers, loss in probe["validation_losses"].items()},
    }
    if not supervised:
        return [run]
    by_itself = {
        "test": record["end_to_end_measure"] * scale,
        "validation loss": training["validation_loss"],
        "selected": None,
        **dict.fromkeys(PROBES),
    }
    return [run | by_itself, run | {"procedure": CNN_PROBE}]


def _check(runs: pd.DataFrame) -> None:
    row = ["dataset", "fingerprint", "procedure", "preset"]
    twice = runs[runs.duplicated([*row, "z", "repeat"], keep=False)]
    mixed = runs[runs.groupby(row)["parameters"].transform("nunique") > 1]
    for wrong, what in ((twice, "are of the same run"), (mixed, "have different parameters")):
        if len(wrong):
            raise ValueError(
                f"These {what}, move those that no longer count out of the folder: "
                f"{', '.join(map(str, wrong['path'].unique()))}"
            )


class Group(NamedTuple):
    """All runs of a data set that were made with the same settings; maybe none yet.

    `means` has a row for each procedure, preset and z, those that have not been run included: the
    mean of each column over `repeats`, and its uncorrected standard deviation (ddof = 0) as
    "... std".
    """

    dataset: str
    settings: Mapping
    runs: pd.DataFrame
    means: pd.DataFrame

    @property
    def fingerprint(self) -> str:
        """The settings' short name."""
        return fingerprint(self.settings)[:6]

    @property
    def name(self) -> str:
        """Name of its figure's files."""
        return f"figure{paper.FIGURES.get(self.dataset, '')}-{self.dataset}-{self.fingerprint}"

    @property
    def title(self) -> str:
        """What headings and the figure call it."""
        return f"{DATASETS[self.dataset]}, budget {self.settings['budget']}"

    @property
    def measure(self) -> str:
        """What is tested: a distance, the less the better, or an accuracy."""
        return "test distance, px" if self.positions else "test accuracy"

    @property
    def positions(self) -> bool:
        """Whether the test measure is a distance."""
        return TASKS[self.dataset] == "position"

    def best(self) -> pd.DataFrame:
        """Return the z of each row that has the lowest validation loss, the paper's numbers added.

        The test images have no say in it.
        """
        means = self.means
        if self.dataset == "svhn":  # whose largest z is that of table I alone
            means = means.drop(index=paper.TABLE_1_Z, level="z", errors="ignore")
        ranked = means.sort_values("validation loss", kind="stable").index
        chosen = ranked[~ranked.droplevel("z").duplicated()]
        best = means[means.index.isin(chosen)].copy()
        published = paper.TABLE_2.get(self.dataset, {})
        names = best.index.get_level_values("procedure")
        best[["paper", "paper std"]] = [published.get(name, (np.nan, np.nan)) for name in names]
        return best


def group_runs(runs: pd.DataFrame) -> list[Group]:
    """Put runs of the same settings together, in the order of data sets and budgets."""
    groups = []
    for dataset in DATASETS:
        own = runs[runs["dataset"] == dataset]
        nothing = {"budget": "small", **BUDGETS[dataset]["small"]._asdict()}
        order = [*BUDGETS[dataset], "custom"]
        parts = [part for _, part in own.groupby("fingerprint")]
        parts.sort(key=lambda part: order.index(part["settings"].iloc[0]["budget"]))
        for part in parts or [own]:
            settings = nothing if part.empty else part["settings"].iloc[0]
            groups.append(Group(dataset, settings, part, _means(part)))
    return groups


def presets_of(runs: pd.DataFrame) -> list[str]:
    """Return the presets that were used, this package's defaults where none was."""
    return [p for p in PRESETS if p and p in set(runs["preset"])] or ["defaults"]


def _means(runs: pd.DataFrame) -> pd.DataFrame:
    by_row = runs.groupby(ROW)
    means = by_row[AVERAGED].mean().join(by_row[AVERAGED].std(ddof=0).add_suffix(" std"))
    means["repeats"] = by_row.size()
    means["selected"] = by_row["selected"].agg(lambda names: ", ".join(names.value_counts().index))

    sizes = sorted({*paper.Z, *runs["z"]} - {0})
    rows = []
    for name in TITLES:
        method = METHODS["cnn" if name == CNN_PROBE else name]
        presets = presets_of(runs) if method.make_as_paper else [""]
        rows += product([name], presets, sizes if method.z is None else [method.z])
    means = means.reindex(pd.MultiIndex.from_tuples(rows, names=ROW))
    # Of another z than the paper's, only what was run is of interest.
    means = means[means["repeats"].notna() | means.index.isin([*paper.Z, 0], level="z")]
    return means.fillna({"repeats": 0, "selected": ""}).astype({"repeats": int})
