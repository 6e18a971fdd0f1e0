"""Figure 9: validation loss by epoch, each curve 1 after its first, until it no longer falls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from benchmarks.methods import PROCEDURES, STYLES
from benchmarks.records import fingerprint
from benchmarks.report.aggregate import describe_stride, name_machine, read_numbered
from benchmarks.report.figure import scale_logarithmically
from benchmarks.report.tables import MISSING
from benchmarks.splits import get_dataset


class Trial(NamedTuple):
    """The curves of one data set, z and settings, by procedure."""

    dataset: str
    z: int
    settings: Mapping
    records: dict[str, Mapping]

    @property
    def name(self) -> str:
        """Name of its figure's files."""
        return f"figure9-{self.dataset}-z{self.z}-{fingerprint(self.settings)[:6]}"

    @property
    def title(self) -> str:
        """Title of its section and figure."""
        n_images = self.settings["n_unlabelled"]
        images = "all images" if n_images is None else f"{n_images:,} images"
        return f"{get_dataset(self.dataset).title}, z = {self.z}, {images}"


def read_trials(paths: Iterable[Path]) -> list[Trial]:
    """Read the records of `python -m benchmarks convergence` from files.

    Raises
    ------
    ValueError
        If a record is incomplete, or two are of the same curve.
    """
    trials: dict[str, Trial] = {}
    for source, record in read_numbered(paths, convergence=True):
        try:
            trial = Trial(record["dataset"], record["z"], record["settings"], {})
            trial = trials.setdefault(trial.name, trial)
            second = record["procedure"] in trial.records
            trial.records[record["procedure"]] = record
            _row(record), describe(trial)  # read all that will be shown
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{source} is no record of `python -m benchmarks convergence` ({error!r})."
            ) from None
        if second:
            raise ValueError(f"{source} is the second record of its curve: delete one of them.")
    return [trials[name] for name in sorted(trials)]


def describe(trial: Trial) -> str:
    """Say what all curves of a trial have in common."""
    settings = trial.settings
    machines = {name_machine(record["machine"]) for record in trial.records.values()}
    steps = {record["steps_per_epoch"] for record in trial.records.values()}
    return (
        f"{trial.title}{describe_stride(settings['stride'])}, of which the last fifth is for "
        "validation. The paper's settings, "
        f"with {' or '.join(f'{n:,}' for n in sorted(steps))} steps an epoch; training ends after "
        f"{settings['patience']} epochs without a better one, or after {settings['max_epochs']}. "
        f"{'; '.join(sorted(machines))}."
    )


def relative_losses(record: Mapping) -> list[float]:
    """Return the validation loss by epoch, 1 after the first.

    >>> record = {"training": {"history": [{"valid_loss": 4.0}, {"valid_loss": 1.0}]}}
    >>> [float(loss) for loss in relative_losses(record)]
    [1.0, 0.25]
    """
    losses = np.array([row["valid_loss"] for row in record["training"]["history"]], dtype=float)
    return list(losses / losses[0])  # NaN where training diverged


def table(trial: Trial) -> list[dict[str, str]]:
    """Lay out a row for each procedure, also for those without a curve."""
    missing = dict.fromkeys(
        ("epochs", "best epoch", "converged", "least loss", "last loss"), MISSING
    )
    return [
        {"procedure": procedure.title}
        | (_row(trial.records[name]) if name in trial.records else missing)
        for name, procedure in PROCEDURES.items()
    ]


def _row(record: Mapping) -> dict[str, str]:
    training, losses = record["training"], relative_losses(record)
    return {
        "epochs": str(training["n_epochs"]),
        "best epoch": str(training["best_epoch"]),
        "converged": "yes" if training["n_epochs"] < record["settings"]["max_epochs"] else "no",
        "least loss": f"{np.nanmin(losses):.3f}",
        "last loss": f"{losses[-1]:.3f}",
    }


def draw(trial: Trial) -> Figure:
    """Draw the curves of a trial; those of encoders of features are dashed."""
    figure = Figure(figsize=(11, 6), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, procedure in PROCEDURES.items():
        if name not in trial.records:
            continue
        losses = relative_losses(trial.records[name])
        axes.plot(
            range(1, len(losses) + 1),
            losses,
            markevery=max(1, len(losses) // 12),
            markersize=7,
            markeredgecolor="white",
            linewidth=1.8,
            label=procedure.title,
            linestyle="-" if name.startswith("I") else "--",
            **STYLES[name],
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation loss, 1 after the first epoch, log scale")
    scale_logarithmically(axes, StrMethodFormatter("{x:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.set_title(trial.title)
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    return figure
