"""Result records: a file per study with one JSON object a line, sorted; and Markdown tables."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import joblib
from filelock import FileLock

RESULTS = Path("benchmarks/results")
PACKAGES = ("torch", "scikit-learn", "skorch", "numpy", "gymnasium")


def write_atomically(path: str | os.PathLike, write: Callable[[str], object]) -> Path:
    """Let `write(temporary_path)` make a file, then put it in place in one step.

    A program that is killed leaves the old file or none, never half of one. The temporary file
    keeps the suffix, which tells writers such as matplotlib the format.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(suffix=path.suffix, prefix=".", dir=path.parent)
    os.close(handle)
    try:
        write(temporary)
        os.chmod(temporary, 0o644)  # mkstemp's files are private to their owner
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write a text file atomically."""
    return write_atomically(path, lambda temporary: Path(temporary).write_text(text, "utf-8"))


def save_figure(path: str | os.PathLike, figure: Any) -> Path:
    """Write a figure atomically; the same figure always becomes the same file."""
    return write_atomically(path, lambda p: figure.savefig(p, metadata={"Software": None}))


def write_records(path: str | os.PathLike, records: Iterable[Mapping]) -> Path:
    """Write a file of records, sorted as text: what identifies a record stands first in it.

    Arrays and NaN are errors: JSON has no form for them.
    """
    lines = sorted(json.dumps(r, allow_nan=False, ensure_ascii=False) + "\n" for r in records)
    return write_text(path, "".join(lines))


def add_record(path: str | os.PathLike, record: Mapping) -> None:
    """Add a record to a file; processes of this machine wait for each other."""
    path = Path(path).resolve()
    lock = Path(tempfile.gettempdir(), f"skfp-{fingerprint({'path': str(path)})}.lock")
    with FileLock(lock):
        write_records(path, [*(read_records(path) if path.exists() else ()), record])


def read_records(path: str | os.PathLike) -> list[dict]:
    """Read the records of a file; raise FileNotFoundError or ValueError if that is impossible."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"There are no results in {os.fspath(path)!r}: run the benchmark that writes them "
            "first, see `python -m benchmarks --help`."
        )
    records = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            records.append(dict(json.loads(line)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number} is not a JSON object: {error}") from None
    return records


def fingerprint(settings: Mapping) -> str:
    """Name settings by their content, whatever the order of their keys.

    >>> fingerprint({"z": 64, "seed": 0}) == fingerprint({"seed": 0, "z": 64})
    True
    >>> fingerprint({"z": 64}) == fingerprint({"z": 128})
    False
    """
    text = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def common_settings(records: Sequence[Mapping]) -> dict:
    """Return the settings that all records share; others do not belong into one table."""
    distinct = {fingerprint(record["settings"]): record["settings"] for record in records}
    if len(distinct) != 1:
        raise ValueError(
            f"The records were made with {len(distinct)} different settings, expected one. "
            "Write the results of each to a file of its own, with --out."
        )
    return next(iter(distinct.values()))


def spread(values: Sequence[float], digits: int, sign: str = "") -> str:
    """Write a mean and the uncorrected standard deviation, which one value does not have.

    >>> spread([1.0, 3.0], 1), spread([2.0], 2, "+")
    ('2.0 ± 1.0', '+2.00')
    """
    mean = f"{statistics.mean(values):{sign}.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.pstdev(values):.{digits}f}"


def describe_machine() -> dict:
    """Describe what a number depends on: processor, accelerator, versions. Names no host."""
    import torch

    import skfp

    return {
        "cpu": _cpu_model(),
        "cores": joblib.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "skfp": skfp.__version__,  # not that of another installation
        **{name: _version(name) for name in PACKAGES},
    }


def describe_threads(n: int) -> str:
    """Say how many threads a number was measured with.

    >>> describe_threads(1), describe_threads(2)
    ('one thread', '2 threads')
    """
    return "one thread" if n == 1 else f"{n} threads"


def _cpu_model() -> str:
    """Return the processor's own name; Python only knows it on some systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def markdown_table(rows: Iterable[Mapping[str, str]]) -> str:
    """Lay out rows of text as a Markdown table, legible as plain text too.

    The first column is aligned left, the others right.

    >>> print(markdown_table([{"method": "PCA", "px": "17.1"}, {"method": "mean", "px": "21"}]))
    | method |   px |
    | ------ | ---: |
    | PCA    | 17.1 |
    | mean   |   21 |
    """
    rows = list(rows)
    header = list(rows[0])
    widths = [max(len(name), 4, *(len(row[name]) for row in rows)) for name in header]
    aligned = ["<"] + [">"] * (len(header) - 1)

    def line(values: Iterable[str]) -> str:
        padded = (f"{v:{a}{w}}" for v, a, w in zip(values, aligned, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *(line(row.values()) for row in rows)])
