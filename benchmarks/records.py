"""Result records: one JSON file each, written whole or not at all, and tables made of them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import joblib

PACKAGES = ("skfp", "torch", "scikit-learn", "skorch", "numpy", "gymnasium")


def write_atomically(path, write) -> Path:
    """Let `write(temporary_path)` make a file, then put it in place in one step.

    A program killed in the middle leaves the old file, or none, but never half of one. The
    temporary file keeps the suffix, which tells writers such as matplotlib the format.
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


def write_record(path, record: Mapping) -> Path:
    """Write a record as JSON, atomically.

    Raises
    ------
    TypeError, ValueError
        If the record holds something JSON has no form for, such as an array or NaN.
    """
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    return write_atomically(path, lambda temporary: Path(temporary).write_text(text, "utf-8"))


def read_records(folder) -> list[dict]:
    """Read every record of a folder, in the order of the file names.

    Raises
    ------
    FileNotFoundError
        If the folder holds no record.
    """
    paths = sorted(path for path in Path(folder).glob("*.json") if not path.name.startswith("."))
    if not paths:
        raise FileNotFoundError(
            f"No result records (*.json) in {os.fspath(folder)!r}: run the benchmark that writes "
            "them first, see `python -m benchmarks --help`."
        )
    return [json.loads(path.read_text("utf-8")) for path in paths]


def fingerprint(settings: Mapping) -> str:
    """Name settings by their content, whatever the order of their keys.

    >>> fingerprint({"z": 64, "seed": 0}) == fingerprint({"seed": 0, "z": 64})
    True
    >>> fingerprint({"z": 64}) == fingerprint({"z": 128})
    False
    """
    text = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def common_settings(records: Iterable[Mapping]) -> dict:
    """Return the settings that all records share.

    Raises
    ------
    ValueError
        If they were not all made with the same settings: such numbers do not belong in one table.
    """
    distinct = {fingerprint(record["settings"]): record["settings"] for record in records}
    if len(distinct) != 1:
        raise ValueError(
            f"The records were made with {len(distinct)} different settings, expected one. "
            "Run the benchmark again into an empty folder."
        )
    return next(iter(distinct.values()))


def describe_machine() -> dict:
    """Describe what a number depends on: processor, accelerator, versions. Names no host."""
    import torch

    return {
        "cpu": _cpu_model(),
        "cores": joblib.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


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
    """Lay out rows of ready text as a Markdown table, legible as plain text too.

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

    def line(cells):
        padded = (f"{c:{a}{w}}" for c, a, w in zip(cells, aligned, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *(line(row.values()) for row in rows)])
