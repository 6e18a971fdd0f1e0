"""The tables of the report: rows of ready text, and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from benchmarks import paper
from benchmarks.records import fingerprint
from benchmarks.report.aggregate import PRESETS, TITLES, Group
from benchmarks.splits import PIXELS_PER_UNIT

MISSING = "-"


def title(procedure: str, preset: str) -> str:
    """Name a row, with its preset where that is not this package's defaults."""
    return ", ".join(filter(None, (TITLES[procedure], PRESETS[preset])))


def shown(row: Mapping, name: str, decimals: int, repeats: int | None = None) -> str:
    """Write a mean and its standard deviation, which one repeat does not have.

    >>> shown({"test": 2.0, "test std": 0.5, "repeats": 2}, "test", 1)
    '2.0 ± 0.5'
    """
    mean, std = (_number(row[column], f".{decimals}f") for column in (name, f"{name} std"))
    return mean if (repeats or row["repeats"]) < 2 or mean == MISSING else f"{mean} ± {std}"


def shown_measure(group: Group, row: Mapping) -> str:
    """Write a test measure."""
    return shown(row, "test", 2 if group.positions else 3)


def shown_paper(row: Mapping) -> str:
    """Write the paper's number."""
    return shown(row, "paper", 2, paper.REPEATS)


def table_2(group: Group) -> list[dict[str, str]]:
    """Lay out table II: the best z of each row, beside the paper's numbers."""
    table = [
        {
            "procedure": title(procedure, preset),
            "paper": shown_paper(row),
            group.measure: shown_measure(group, row),
            **({"units": _number(row["test"] / PIXELS_PER_UNIT, ".3f")} if group.positions else {}),
            "z": str(z if z and row["repeats"] else MISSING),
            "epochs": _number(row["epochs"], ".0f"),
            "s/epoch": shown(row, "seconds per epoch", 1),
            "embedded images/s": _number(row["embedded images per second"], ",.0f"),
            "repeats": _number_of_repeats(row["repeats"]),
        }
        for (procedure, preset, z), row in group.best().iterrows()
    ]
    if group.dataset in paper.STATE_OF_THE_ART:
        accuracy = f"{paper.STATE_OF_THE_ART[group.dataset]:.2f}"
        known = {"procedure": "state of the art then", "paper": accuracy}
        table.append(dict.fromkeys(table[0], MISSING) | known)
    return table


def table_1(groups: Iterable[Group]) -> list[dict[str, str]]:
    """Lay out table I: SVHN at z = 500, a row for each preset and settings it was run with."""
    table = []
    for name, accuracy in paper.TABLE_1.items():
        known = {"procedure": title(name, ""), "paper": f"{accuracy:.3f}"}
        rows = [
            known
            | {
                "procedure": title(procedure, preset),
                "test accuracy": shown_measure(group, row),
                "repeats": str(row["repeats"]),
                "budget": group.settings["budget"],
            }
            for group in groups
            for (procedure, preset, z), row in group.means.iterrows()
            if (group.dataset, procedure, z) == ("svhn", name, paper.TABLE_1_Z) and row["repeats"]
        ]
        missing = known | dict.fromkeys(("test accuracy", "repeats", "budget"), MISSING)
        table += rows or [missing]
    netzer = {"procedure": "Netzer et al. (2011)", "paper": f"{paper.TABLE_1_NETZER:.3f}"}
    return [*table, missing | netzer]


def to_csv(groups: Iterable[Group]) -> str:
    """Write the means of all groups as CSV; what is missing is empty."""
    tables = {
        (g.dataset, g.settings["budget"], fingerprint(g.settings)[:6], g.measure): g.means
        for g in groups
    }
    names = ["dataset", "budget", "settings", "measure"]
    return pd.concat(tables, names=names).to_csv(lineterminator="\n")


def _number(value: float, form: str) -> str:
    return MISSING if pd.isna(value) else format(value, form)


def _number_of_repeats(number: int) -> str:
    """Write how many repeats there are, of as many as the paper has."""
    return f"{number} of {paper.REPEATS}" if number else MISSING
