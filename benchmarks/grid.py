"""The engine of every study: compute the runs of a grid that have no record yet.

A run is a plain dict of settings. Its record holds these settings, and then what was computed, so a
run is complete when a record in the results file has all of its settings. A study that is killed
and started again goes on with what is missing, and a run that fails does not stop the others.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed, parallel_config

from benchmarks.records import add_record, fingerprint, read_records


def run_grid(
    runs: Iterable[Mapping],
    compute: Callable[[dict, Any, Path | None], Mapping],
    results: Path,
    *,
    load: Callable[[list[dict]], Any] | None = None,
    n_jobs: int = 1,
    checkpoints: Path | None = None,
    describe: Callable[[Mapping], str] | None = None,
) -> int:
    """Compute the runs that are missing, write a record of each, and say what happens.

    Parameters
    ----------
    runs : iterable of dict
        In the order in which they are computed.
    compute : callable
        Maps a run, what `load` returned and a checkpoint folder or None to results for JSON.
    results : Path
        The JSON Lines file. Each record is written as soon as it is there.
    load : callable, default=None
        Loads what runs share, given the missing ones; not called if nothing is missing.
    n_jobs : int, default=1
        Runs computed at the same time, in processes of joblib, without parallel parts within.
    checkpoints : Path or None, default=None
        Where each run has a folder for its state until its record is written.
    describe : callable, default=None
        Writes the outcome of a record in a few words.

    Returns
    -------
    status : int
        Exit status of a command: 0, or 1 if a run failed, or 130 if it was interrupted.
    """
    runs = _as_json(list(runs))
    results = Path(results).resolve()  # workers may have another working directory
    missing = missing_runs(runs, results)
    print(f"{len(runs) - len(missing)} of {len(runs)} runs already in {results.name}", flush=True)
    for run in runs:
        if checkpoints and run not in missing:  # killed after its record was written
            shutil.rmtree(_folder(checkpoints, run), ignore_errors=True)
    if not missing:
        return 0
    try:
        data = load(missing) if load else None
        errors = Parallel(n_jobs=n_jobs, batch_size=1)(
            delayed(_attempt)(
                run, compute, data, results, _folder(checkpoints, run), describe, n_jobs == 1
            )
            for run in missing
        )
    except BrokenProcessPool as error:
        _warn(
            f"A worker process died: {str(error).splitlines()[0]} Finished runs are kept; the same "
            "command goes on with the others. If memory ran out, lower --n-jobs."
        )
        return 1
    except KeyboardInterrupt:
        _warn("Interrupted. Finished runs are kept; the same command goes on with the others.")
        return 130
    failures = {name(run): error for run, error in zip(missing, errors, strict=True) if error}
    for title, error in failures.items():
        _warn(f"\n{title}:\n{error}")
    if failures:
        _warn(
            f"{len(failures)} of {len(missing)} runs failed: {'; '.join(failures)}. The others are "
            "finished; the same command tries these again."
        )
    return 1 if failures else 0


def missing_runs(runs: Iterable[Mapping], results: Path) -> list[dict]:
    """Return the runs without a record in the results file."""
    records = read_records(results) if Path(results).exists() else []
    return [
        run
        for run in _as_json(list(runs))
        if not any(run.items() <= record.items() for record in records)
    ]


def name(run: Mapping) -> str:
    """Name a run by its plain settings.

    >>> name({"dataset": "svhn", "preset": None, "z": 64, "settings": {"stride": 1}})
    'dataset=svhn z=64'
    """
    plain = ((k, v) for k, v in run.items() if v is not None and not isinstance(v, dict | list))
    return " ".join(f"{key}={value}" for key, value in plain)


def _attempt(
    run: dict,
    compute: Callable,
    data: Any,
    results: Path,
    checkpoint_dir: Path | None,
    describe: Callable | None,
    alone: bool,
) -> str | None:
    """Compute a run and write its record; return the traceback if that fails."""
    title = name(run)
    if not missing_runs([run], results):
        print(f"{title}: finished by another process meanwhile", flush=True)
        return None
    print(f"{title}: started", flush=True)
    start = time.perf_counter()
    try:
        with nullcontext() if alone else parallel_config("sequential"):
            record = {**run, **compute(run, data, checkpoint_dir)}
        add_record(results, record)
    except Exception as error:
        print(f"{title}: failed, {type(error).__name__}: {error}", flush=True)
        return traceback.format_exc()
    if checkpoint_dir:
        shutil.rmtree(checkpoint_dir, ignore_errors=True)
    outcome = f"{describe(record)}, " if describe else ""
    print(f"{title}: {outcome}{time.perf_counter() - start:.0f} s", flush=True)
    return None


def _folder(checkpoints: Path | None, run: Mapping) -> Path | None:
    return checkpoints and Path(checkpoints).resolve() / fingerprint(run)


def _as_json(value: Any) -> Any:
    """Return a value as it comes back from a file: tuples are lists."""
    return json.loads(json.dumps(value, allow_nan=False))


def _warn(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
