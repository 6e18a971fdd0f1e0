"""Records as a table with a row for each run, and means over repeats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks import paper
from benchmarks.methods import METHODS, STYLES
from benchmarks.probes import HIDDEN_LAYERS, layer_name
from benchmarks.records import fingerprint, read_records
from benchmarks.splits import (
    BUDGETS,
    DATASETS,
    PIXELS_PER_UNIT,
    budget_settings,
    get_budget,
    get_dataset,
)

PRESETS = {"": "", "defaults": "", "paper": "paper settings"}

# The CNN has two rows: one predicts by itself, and one is probed as all others are.
CNN_PROBE = "cnn-probe"
TITLES = {
    name: METHODS[name].title if name in METHODS else "probes on that CNN's embedding"
    for name in STYLES
}

PROBES = [f"probe {layer_name(layers)}" for layers in HIDDEN_LAYERS]
AVERAGED = ["test", "validation loss", "seconds per epoch", "epochs", "best epoch"]
AVERAGED += ["embedded images per second", *PROBES]
ROW = ["procedure", "preset", "z"]
OF_A_RUN = ("z", "random_state")  # other parameters are those of the whole row of a table
COLUMNS = ["dataset", "settings", "fingerprint", *ROW, "repeat", "parameters", "selected"]
COLUMNS += ["machine", "features from memory", "source", "unlabelled", "labelled", "tested"]
COLUMNS += AVERAGED


def read_numbered(paths: Iterable[Path], convergence: bool) -> Iterable[tuple[str, dict]]:
    """Read the records of either study from files, each with the place where it stands."""
    for path in paths:
        for number, record in enumerate(read_records(path), start=1):
            # Only figure 9 trains until patience is over.
            if ("patience" in record.get("settings", ())) == convergence:
                yield f"{path}, line {number}", record


def read_runs(paths: Iterable[Path]) -> pd.DataFrame:
    """Read the records of the comparison into a table with a row for each run.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a record is incomplete, two are of the same run, or runs of a row were trained with
        different parameters.
    """
    runs = []
    for source, record in read_numbered(paths, convergence=False):
        try:
            runs += _runs(record, source)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{source} is no record of `python -m benchmarks comparison` ({error!r})."
            ) from None
    table = pd.DataFrame(runs, columns=COLUMNS).astype(dict.fromkeys(AVERAGED, float))
    row = ["dataset", "fingerprint", "procedure", "preset"]
    twice = table[table.duplicated([*row, "z", "repeat"], keep=False)]
    mixed = table[table.groupby(row)["parameters"].transform("nunique") > 1]
    for wrong, what in ((twice, "are of the same run"), (mixed, "have different parameters")):
        if len(wrong):
            raise ValueError(
                f"These records {what}, delete those that no longer count: "
                f"{'; '.join(wrong['source'].unique())}"
            )
    return table


def name_machine(machine: Mapping) -> str:
    """Name what seconds depend on."""
    threads = machine.get("threads", machine["cores"])  # the first records have no threads
    threads = "1 thread" if threads == 1 else f"{threads} threads"
    return f"{threads} on {machine['cpu']}, {machine['gpu'] or 'no GPU'}"


def describe_stride(stride: int) -> str:
    """Say which frames were taken, if not all.

    >>> describe_stride(10), describe_stride(1)
    (', every 10th frame of a rollout', '')
    """
    return f", every {stride}th frame of a rollout" if stride > 1 else ""


def _runs(record: Mapping, source: str) -> list[dict]:
    """Make the rows of a record: one, or two of the CNN."""
    scale = PIXELS_PER_UNIT if get_dataset(record["dataset"]).task == "position" else 1
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
        "source": source,
        "unlabelled": None if supervised else training["n_images"],
        "labelled": probe["n_images"],
        "tested": record["n_test_images"],
        "test": record["test_measure"] * scale,
        "validation loss": probe["validation_losses"][probe["selected"]],
        "selected": probe["selected"],
        "seconds per epoch": record["seconds_per_epoch"],
        "epochs": training.get("n_epochs"),
        "best epoch": training.get("best_epoch"),
        "embedded images per second": record["encoding"]["images_per_second"] if z else None,
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


class Group(NamedTuple):
    """All runs of a data set that were made with the same settings; maybe none yet.

    `means` has a row for each procedure, preset and z, also for those without a run: the mean of
    each column over `repeats`, and its uncorrected standard deviation (ddof = 0) as "... std".
    """

    dataset: str
    settings: Mapping
    runs: pd.DataFrame
    means: pd.DataFrame

    @property
    def name(self) -> str:
        """Name of its figure's files."""
        figure = paper.FIGURES.get(self.dataset, "")
        return f"figure{figure}-{self.dataset}-{fingerprint(self.settings)[:6]}"

    @property
    def title(self) -> str:
        """Title of its section and figure."""
        return f"{get_dataset(self.dataset).title}, budget {self.settings['budget']}"

    @property
    def measure(self) -> str:
        """What is tested: a distance, the less the better, or an accuracy."""
        return "test distance, px" if self.positions else "test accuracy"

    @property
    def positions(self) -> bool:
        """Whether the test measure is a distance."""
        return get_dataset(self.dataset).task == "position"

    def describe(self) -> str:
        """Say what all numbers of the group have in common, and whether times can be compared."""
        settings, machines = self.settings, self.runs["machine"].unique()
        images = ", ".join(
            f"{' or '.join(f'{n:,.0f}' for n in self.runs[split].dropna().unique()) or 'no'} "
            f"{split}"
            for split in ("unlabelled", "labelled", "tested")
        )
        text = (
            f"Images: {images}{describe_stride(settings['stride'])}; at most "
            f"{settings['max_epochs']} epochs. {'; '.join(machines)}."
        )
        timed = self.runs[self.runs["seconds per epoch"].notna()]
        if timed["machine"].nunique() > 1:
            return f"{text} Times are of different machines and cannot be compared."
        if timed["features from memory"].any():
            return f"{text} Features came from memory: times lack them and cannot be compared."
        return text

    def best(self) -> pd.DataFrame:
        """Return the z of each row that has the lowest validation loss, with the paper's numbers.

        Test images do not take part in the choice.
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
    """Put runs of the same settings together, in the order of data sets and budgets.

    The paper's data sets have a group even without runs.
    """
    groups = []
    ran = set(runs["dataset"])
    known = [name for name in DATASETS if name in ran or name in paper.TABLE_2]
    for dataset in [*known, *sorted(ran - set(DATASETS))]:
        own = runs[runs["dataset"] == dataset]
        nothing = budget_settings(dataset, get_budget(dataset, "small"))
        tables = [table for _, table in own.groupby("fingerprint")]
        order = [*BUDGETS, "custom"]
        tables.sort(key=lambda table: order.index(table["settings"].iloc[0]["budget"]))
        for table in tables or [own]:
            settings = nothing if table.empty else table["settings"].iloc[0]
            groups.append(Group(dataset, settings, table, _means(table)))
    return groups


def _means(runs: pd.DataFrame) -> pd.DataFrame:
    by_row = runs.groupby(ROW)
    means = by_row[AVERAGED].mean().join(by_row[AVERAGED].std(ddof=0).add_suffix(" std"))
    means["repeats"] = by_row.size()
    means["selected"] = by_row["selected"].agg(lambda names: ", ".join(names.value_counts().index))

    sizes = sorted({*paper.Z, *runs["z"]} - {0})
    used = [p for p in PRESETS if p and p in set(runs["preset"])] or ["defaults"]
    rows = []
    for name in TITLES:
        method = METHODS["cnn" if name == CNN_PROBE else name]
        presets = used if method.make_as_paper else [""]
        rows += product([name], presets, sizes if method.z is None else [method.z])
    means = means.reindex(pd.MultiIndex.from_tuples(rows, names=ROW))
    # Of another z than the paper's, only what was run is of interest.
    means = means[means["repeats"].notna() | means.index.isin([*paper.Z, 0], level="z")]
    return means.fillna({"repeats": 0, "selected": ""}).astype({"repeats": int})
