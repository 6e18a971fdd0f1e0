"""Run the paper's comparison: every procedure, every size of embedding, several times.

Each cell, that is a procedure with one z and one repeat, is trained, probed and tested, and then
writes a record of its own. Cells whose record is there already are not run again, so a killed run
continues where it stopped when the same command is given once more; with `--checkpoints` it does
so after the last epoch of a procedure, not before the first. The repeat's number is its seed.

With `--backend dask` or `ray` cells run on the workers of a cluster: the one that
DASK_SCHEDULER_ADDRESS or RAY_ADDRESS names, else `--n-jobs` processes of this machine. Workers
write their records themselves, and share what `--memory` keeps: both folders must be theirs too.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import traceback
from collections.abc import Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from joblib import Parallel, delayed, effective_n_jobs, parallel_config

from benchmarks.backends import BACKENDS, check_installed, joblib_backend
from benchmarks.methods import METHODS, PROCEDURES, probe, train, train_as_paper, was_interrupted
from benchmarks.probes import measure, probe_settings
from benchmarks.records import describe_machine, fingerprint, write_record
from benchmarks.roles import BUDGETS, TASKS, Budget, Roles, budget_name, load_roles

PRESETS = ("defaults", "paper")


class Cell(NamedTuple):
    """One number of the comparison, and all that decides it.

    Attributes
    ----------
    dataset : {"lunarlander", "stl10", "svhn", "fashion-mnist"}
    procedure : str
        A key of `METHODS`.
    preset : {"defaults", "paper"} or None
        Whose settings it is trained with; None where there is only one way.
    z : int
        Size of the embedding.
    repeat : int
        Counted from 0; seeds everything that is random.
    budget : Budget
    """

    dataset: str
    procedure: str
    preset: str | None
    z: int
    repeat: int
    budget: Budget

    @property
    def name(self) -> str:
        """What messages call it."""
        parts = (self.dataset, self.procedure, self.preset, f"z{self.z}", self.repeat)
        return "-".join(str(part) for part in parts if part is not None)

    @property
    def file_name(self) -> str:
        """Name of its record: legible, and another one whenever a setting is another."""
        facts = {
            **self._asdict(),
            "budget": self.budget._asdict(),
            "parameters": self.parameters,
            "probe": probe_settings(TASKS[self.dataset]),
        }
        return f"{self.name}-{fingerprint(facts)}.json"

    @property
    def parameters(self) -> dict:
        """All parameters that decide the embedding."""
        parameters = self.make().get_params()
        idle = {"verbose", "describe", "memory", "checkpoint_dir"}
        if parameters.get("encoder") != "features":
            idle.add("normalize_features")  # says nothing of other encoders
        return {name: value for name, value in parameters.items() if name not in idle}

    def make(
        self, verbose: int = 0, memory: Path | None = None, checkpoint_dir: Path | None = None
    ):
        """Make the transformer, not fitted yet."""
        method = METHODS[self.procedure]
        parameters = {"z": self.z, "random_state": self.repeat}
        if method.trained:
            parameters |= {"max_epochs": self.budget.max_epochs, "verbose": verbose}
        if method.supervised:
            parameters["task"] = TASKS[self.dataset]
        if self.procedure in PROCEDURES:
            parameters |= {"memory": memory, "checkpoint_dir": checkpoint_dir}
        make = method.make_as_paper if self.preset == "paper" else method.make
        return make(**parameters)

    def run(
        self,
        roles: Roles,
        *,
        n_jobs: int | None = None,
        verbose: int = 0,
        memory: Path | None = None,
        checkpoint_dir: Path | None = None,
    ) -> dict:
        """Train, probe and test.

        Parameters
        ----------
        roles : Roles
            The images of the data set, as much of them as the budget says.
        n_jobs : int or None, default=None
            Probes trained at the same time.
        verbose : int, default=0
            Whether a line per epoch is printed.
        memory : Path or None, default=None
            Where procedures keep what the loss network sees, for other cells.
        checkpoint_dir : Path or None, default=None
            Where a procedure keeps its last epoch, to go on from there.

        Returns
        -------
        record : dict
            Ready for JSON. `test_measure` is the mean distance in the simulator's units (32
            pixels) or the accuracy. `seconds_per_epoch` is the time of the whole fit, the
            computation of features included, over the number of epochs. A supervised row also
            has `end_to_end_measure`, that of its own predictions.
        """
        method = METHODS[self.procedure]
        transformer = self.make(verbose, memory, checkpoint_dir)
        if method.supervised:
            training = train(transformer, *roles.labelled)
        elif self.preset == "paper":
            training = train_as_paper(transformer, roles.unlabelled)
        else:
            training = train(transformer, roles.unlabelled)
        if was_interrupted(transformer):
            raise KeyboardInterrupt

        measured, _ = probe(
            transformer,
            roles.labelled,
            roles.test,
            task=roles.task,
            random_state=self.repeat,
            n_jobs=n_jobs,
        )
        if method.supervised:
            measured["end_to_end_measure"] = measure(transformer, *roles.test)
        return {
            "dataset": self.dataset,
            "procedure": self.procedure,
            "title": method.title,
            "preset": self.preset,
            "z": self.z,
            "repeat": self.repeat,
            "seed": self.repeat,
            "settings": {
                "budget": budget_name(self.dataset, self.budget),
                **self.budget._asdict(),
            },
            "parameters": self.parameters,
            "probe_settings": probe_settings(roles.task),
            "features_from_memory": memory is not None,
            "machine": describe_machine(),
            "training": training,
            "seconds_per_epoch": (
                training["seconds"] / training["n_epochs"] if method.trained else None
            ),
            **measured,
        }


def make_cells(
    dataset: str,
    procedures: Iterable[str],
    preset: str,
    zs: Sequence[int],
    n_repeats: int,
    budget: Budget,
) -> list[Cell]:
    """List the cells of a comparison, the first repeat of all before the second of any.

    A row whose embedding has one size only is there once per repeat. Rows that are trained in only
    one way, or not at all, have no preset, so that both presets share them.

    Examples
    --------
    >>> cells = make_cells("svhn", ["I-F-FP", "pca", "mean"], "paper", [64, 128], 1, Budget())
    >>> for cell in cells:
    ...     print(cell.name)
    svhn-I-F-FP-paper-z64-0
    svhn-pca-z64-0
    svhn-mean-z0-0
    svhn-I-F-FP-paper-z128-0
    svhn-pca-z128-0
    """
    cells = (
        Cell(
            dataset,
            name,
            preset if METHODS[name].make_as_paper else None,
            z if METHODS[name].z is None else METHODS[name].z,
            repeat,
            budget,
        )
        for repeat in range(n_repeats)
        for z in zs
        for name in procedures
    )
    return list(dict.fromkeys(cells))


def missing_cells(cells: Iterable[Cell], folder: Path) -> list[Cell]:
    """Return the cells that have no record in a folder yet."""
    return [cell for cell in cells if not (folder / cell.file_name).exists()]


def run_grid(
    cells: Sequence[Cell],
    roles: Roles,
    folder: Path,
    n_jobs: int | None = None,
    *,
    memory: Path | None = None,
    checkpoints: Path | None = None,
) -> dict[str, str]:
    """Run cells, each of which writes its record as soon as it is done.

    Parameters
    ----------
    cells : list of Cell
        Of one data set and budget. One whose record another run writes meanwhile is left out.
    roles : Roles
        The images; joblib memory-maps them for its processes.
    folder : Path
        Where records are written.
    n_jobs : int or None, default=None
        Cells that are run at the same time. Probes of a cell are trained in parallel where cells
        are not. None is 1, unless in a `joblib.parallel_config` context.
    memory : Path or None, default=None
        Where procedures keep what the loss network sees, so that it is computed once.
    checkpoints : Path or None, default=None
        Where procedures that are being trained keep their last epochs, to go on from there.

    Returns
    -------
    failures : dict of str to str
        Names of the cells that failed, and their tracebacks. The others are not affected.

    Notes
    -----
    Any backend of joblib does (see `benchmarks.backends`), on workers that can import `benchmarks`
    and write to the same folders. A worker that dies costs the cells it was running, which are run
    again on another: a record is written whole or not at all, and under the same name.
    """
    alone = effective_n_jobs(n_jobs) == 1
    # Workers may have another working directory.
    folder, memory, checkpoints = (
        None if path is None else Path(path).resolve() for path in (folder, memory, checkpoints)
    )
    attempts = (
        delayed(_attempt)(cell, roles, folder, memory, checkpoints, alone) for cell in cells
    )
    # joblib tells how many cells are done, wherever they run; one alone tells of its epochs.
    parallel = Parallel(n_jobs=n_jobs, batch_size=1, verbose=0 if alone else 11)
    failures = zip(cells, parallel(attempts), strict=True)
    return {cell.name: failure for cell, failure in failures if failure}


def _attempt(
    cell: Cell,
    roles: Roles,
    folder: Path,
    memory: Path | None,
    checkpoints: Path | None,
    alone: bool,
) -> str | None:
    """Run a cell and write its record; return the traceback where that fails."""
    path = folder / cell.file_name
    if path.exists():
        print(f"{cell.name}: done by another run meanwhile", flush=True)
        return None
    checkpoint_dir = checkpoints and checkpoints / path.stem
    print(f"{cell.name}: started", flush=True)
    try:
        # Beside other cells, a cell stays on its worker: dask would send its probes to all.
        with nullcontext() if alone else parallel_config("sequential"):
            record = cell.run(
                roles,
                n_jobs=-1 if alone else 1,
                verbose=int(alone),
                memory=memory,
                checkpoint_dir=checkpoint_dir,
            )
        write_record(path, record)
    except Exception as error:
        print(f"{cell.name}: failed, {type(error).__name__}: {error}", flush=True)
        return traceback.format_exc()
    if checkpoint_dir:
        shutil.rmtree(checkpoint_dir, ignore_errors=True)
    what = "distance" if roles.task == "position" else "accuracy"
    seconds = record["training"]["seconds"]
    print(
        f"{cell.name}: {what} {record['test_measure']:.4f}, fitted in {seconds:.0f} s", flush=True
    )
    return None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--dataset", choices=BUDGETS, required=True)
    add("--out", type=Path, required=True, help="folder of the records")
    add("--procedures", nargs="+", choices=["all", *METHODS], default=["all"])
    add("--z", type=int, nargs="+", default=[64, 128, 256], help="sizes of the embedding")
    add("--repeats", type=int, default=4)
    add("--budget", choices=["small", "paper"], default="small")
    add(
        "--settings",
        choices=PRESETS,
        default="defaults",
        help="train with this package's defaults, or with the paper's settings, which judge "
        "epochs by the last fifth of the images",
    )
    add("--max-epochs", type=int, help="in place of the budget's")
    add(
        "--images",
        type=int,
        nargs=3,
        metavar=("UNLABELLED", "LABELLED", "TEST"),
        help="numbers of images, in place of the budget's",
    )
    add("--n-jobs", type=int, default=1, help="cells run at the same time, each with one process")
    add("--backend", choices=BACKENDS, default="loky", help="what runs them at the same time")
    add("--memory", type=Path, help="where cells share what the loss network sees in images")
    add("--checkpoints", type=Path, help="where procedures keep their last epoch in case of a kill")
    add("--data-home", type=Path, help="where data sets are kept between runs")


def main(args: argparse.Namespace) -> int:
    """Run what is missing, and return 1 if a cell failed."""
    budget = BUDGETS[args.dataset][args.budget]
    if args.images:
        unlabelled, labelled, test = args.images
        budget = budget._replace(n_unlabelled=unlabelled, n_labelled=labelled, n_test=test)
    if args.max_epochs:
        budget = budget._replace(max_epochs=args.max_epochs)
    procedures = METHODS if "all" in args.procedures else args.procedures
    cells = make_cells(args.dataset, procedures, args.settings, args.z, args.repeats, budget)
    missing = missing_cells(cells, args.out)
    print(f"{len(cells) - len(missing)} of {len(cells)} already there, in {args.out}", flush=True)
    if args.checkpoints:
        for cell in set(cells) - set(missing):  # killed after its record, before this
            shutil.rmtree(args.checkpoints / Path(cell.file_name).stem, ignore_errors=True)
    if not missing:
        return 0
    try:
        check_installed(args.backend)
        roles = load_roles(args.dataset, budget, data_home=args.data_home, n_jobs=-1)
        with joblib_backend(args.backend, args.n_jobs, shared=[roles]):
            failures = run_grid(
                missing, roles, args.out, memory=args.memory, checkpoints=args.checkpoints
            )
    except ImportError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenProcessPool as error:
        print(
            f"A worker process died: {str(error).splitlines()[0]} What is done is kept; the same "
            "command continues. If it was memory that was short, lower --n-jobs.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("Interrupted. What is done is kept; the same command continues.", file=sys.stderr)
        return 130
    for name, failure in failures.items():
        print(f"\n{name}:\n{failure}", file=sys.stderr)
    if failures:
        print(
            f"{len(failures)} of {len(missing)} failed: {', '.join(failures)}. The others are "
            "done; the same command tries these again.",
            file=sys.stderr,
        )
    return 1 if failures else 0
