"""Embed the files of a folder: with all processors, in little memory, and from where it was killed.

Beside the table that is written, a folder with the ending ``.part`` holds what is done so far: the
embeddings as float32, and a line of JSON for each chunk of files.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from sklearn.utils import gen_batches
from tqdm import tqdm

from ._image_loader import ImageLoader
from ._images.image_files import Range, load
from ._onnx_encoder import OnnxEncoder

_CHUNK = 256  # files per task
_ROWS = 8192  # rows written at once
FORMATS = (".parquet", ".csv", ".npz")


class Embedded(NamedTuple):
    """What became of the files of a folder."""

    paths: list[str]
    errors: dict[str, str]
    images_per_second: float
    rows: np.ndarray | None


class Reading(NamedTuple):
    """How files become images."""

    size: tuple[int, int]
    mode: str
    deep_range: Range | None


def list_files(folder: Path) -> list[str]:
    """List all files in a folder and those in it, without hidden ones, relative to it."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = [name for name in files if not name.startswith(".")]
        found += [Path(place, name).relative_to(folder).as_posix() for name in names]
    return sorted(found)


def embed_folder(
    folder: Path, path: Path, out: Path, n_jobs: int, *, return_rows: bool = False
) -> Embedded:
    """Embed the image files of a folder with an encoder, and write a table if there are any.

    Raises
    ------
    ImportError
        If onnxruntime is missing, or pyarrow for a Parquet file.
    ValueError
        If there is no file, or the encoder cannot be used, or takes no grey or RGB images.
    """
    _check_out(out)
    encoder = OnnxEncoder(path).fit()
    part = Path(f"{out}.part")
    # What an earlier call may have left in the folder.
    own = {*map(os.path.abspath, (out, _errors_of(out), part))}
    files = [file for file in list_files(folder) if own.isdisjoint(_with_parents(folder / file))]
    if not files:
        raise ValueError(f"There is no file in {str(folder)!r}.")
    reading = _reading(encoder, path, [folder / file for file in files])
    names = encoder.get_feature_names_out().tolist()
    progress = _Progress(part, str(folder.resolve()), path, len(names))
    done = {*progress.paths, *progress.errors}
    waiting = [file for file in files if file not in done]
    start = time.perf_counter()
    tasks = (
        delayed(_embed_files)(str(folder), waiting[rows], str(path), reading)
        for rows in gen_batches(len(waiting), _CHUNK)
    )
    with tqdm(total=len(files), initial=len(done), unit=" images") as bar:
        # A generator: each result is on disk as soon as it is there.
        for readable, errors, rows in Parallel(n_jobs=n_jobs, return_as="generator")(tasks):
            progress.add(readable, errors, rows)
            bar.update(len(readable) + len(errors))
    speed = len(waiting) / (time.perf_counter() - start)
    if progress.paths:
        _write(out, part, progress.paths, names, progress.rows())
        _write_errors(out, progress.errors)
    kept = np.array(progress.rows()) if return_rows and progress.paths else None
    shutil.rmtree(part)
    return Embedded(progress.paths, progress.errors, speed, kept)


@functools.cache
def _encoder(path: str) -> OnnxEncoder:
    return OnnxEncoder(path).fit()


def _embed_files(
    folder: str, files: list[str], path: str, reading: Reading
) -> tuple[list[str], dict[str, str], np.ndarray]:
    """Embed some files; return which could be read, why others could not, and the embeddings."""
    encoder = _encoder(path)
    images, readable, errors = [], [], {}
    size, mode, deep_range = reading
    with warnings.catch_warnings():
        # Of single chunks, which are no sample of all images.
        warnings.simplefilter("ignore")
        for file in files:
            try:
                images.append(
                    load(os.path.join(folder, file), size, mode, "white", None, deep_range)
                )
                readable.append(file)
            except Exception as error:  # Pillow's readers raise almost anything on a broken file.
                errors[file] = f"{type(error).__name__}: {error}"
        rows = encoder.transform(np.stack(images)) if images else np.empty((0, 0), np.float32)
    return readable, errors, rows


def _reading(encoder: OnnxEncoder, path: Path, files: list[Path]) -> Reading:
    """Find how files are read for an encoder."""
    format = encoder._loaded().notes.format
    mode = {1: "L", 3: "RGB"}.get(format.channels)
    if mode is None or format.layout == "row":
        raise ValueError(
            f"The encoder in {str(path)!r} was fitted on images of shape {format.shape}. Expected "
            "grey or RGB images, as files hold them."
        )
    size = format.network_size if 0 in format.shape else format.size
    loader = ImageLoader(size, mode=mode).fit(files)
    return Reading(size, mode, getattr(loader, "value_range_", None))


class _Progress:
    """What is done so far, kept in a folder; a line that was not finished does not count."""

    def __init__(self, part: Path, folder: str, path: Path, z: int) -> None:
        self.paths: list[str] = []
        self.errors: dict[str, str] = {}
        self._log, self._rows, self._z = part / "log.jsonl", part / "rows.float32", z
        task = {"folder": folder, "encoder": hashlib.sha256(path.read_bytes()).hexdigest()}
        part.mkdir(exist_ok=True)
        lines = self._log.read_text().splitlines(True) if self._log.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        if whole and json.loads(whole[0]) != task:
            raise ValueError(
                f"{str(part)!r} holds embeddings of another folder or encoder. Remove it, or pass "
                "another --out."
            )
        for line in whole[1:]:
            paths, errors = json.loads(line)
            self.paths += paths
            self.errors |= errors
        self._log.write_text("".join(whole) or json.dumps(task) + "\n")
        with self._rows.open("ab") as rows:
            rows.truncate(len(self.paths) * z * 4)

    def add(self, paths: list[str], errors: dict[str, str], rows: np.ndarray) -> None:
        """Keep what became of some files: the line that says so is written last."""
        for file, content in (
            (self._rows, rows.tobytes()),
            (self._log, json.dumps([paths, errors]).encode() + b"\n"),
        ):
            with file.open("ab") as target:
                target.write(content)
                target.flush()
                os.fsync(target.fileno())
        self.paths += paths
        self.errors |= errors

    def rows(self) -> np.ndarray:
        """Map all embeddings."""
        return np.memmap(self._rows, np.float32, "r", shape=(len(self.paths), self._z))


def _check_out(out: Path) -> None:
    if out.suffix not in FORMATS:
        raise ValueError(
            f"--out is {str(out)!r}. Expected a file that ends in {', '.join(FORMATS)}."
        )
    if not out.parent.is_dir():
        raise ValueError(f"There is no folder {str(out.parent)!r} for --out. Make it first.")
    if out.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "Parquet files need pyarrow: pip install pyarrow, or write .csv or .npz."
            ) from error


def _write(out: Path, part: Path, paths: list[str], names: list[str], rows: np.ndarray) -> None:
    """Write a table, which appears when it is complete: a column of paths, and one per number."""
    temporary = part / out.name
    if out.suffix == ".npz":
        np.savez(temporary, paths=paths, names=names, embedding=rows)
    elif out.suffix == ".csv":
        with temporary.open("w", newline="") as table:
            writer = csv.writer(table)
            writer.writerow(["path", *names])
            for batch, numbers in _batches(paths, rows):
                writer.writerows(
                    [file, *row] for file, row in zip(batch, numbers.tolist(), strict=True)
                )
    else:
        import pyarrow
        from pyarrow import parquet

        types = [("path", pyarrow.string()), *((name, pyarrow.float32()) for name in names)]
        with parquet.ParquetWriter(temporary, schema := pyarrow.schema(types)) as writer:
            for batch, numbers in _batches(paths, rows):
                writer.write_table(pyarrow.table([batch, *np.array(numbers.T)], schema))
    os.replace(temporary, out)


def _batches(paths: list[str], rows: np.ndarray) -> Iterator[tuple[list[str], Any]]:
    for batch in gen_batches(len(paths), _ROWS):
        yield paths[batch], rows[batch]


def _errors_of(out: Path) -> Path:
    return out.with_suffix(".errors.csv")


def _with_parents(path: Path) -> list[str]:
    path = Path(os.path.abspath(path))
    return [str(path), *map(str, path.parents)]


def _write_errors(out: Path, errors: dict[str, str]) -> None:
    """Name files that could not be read in a table of their own, or remove an earlier one."""
    path = _errors_of(out)
    if not errors:
        path.unlink(missing_ok=True)
        return
    with path.open("w", newline="") as table:
        csv.writer(table).writerows([("path", "error"), *errors.items()])
