"""What each form of a fitted encoder gives: speed, neighbours kept, size of file, time to start.

Encoders are fitted on crops of 64 by 64 pixels, cut from the two photographs that come with
scikit-learn. Other crops, uint8 in memory, are embedded with torch, and with ONNX Runtime from a
file of each type, in turns; new processes embed one image. The file --out gets a record for each
encoder and form.

    python -m benchmarks serving --out out/serving.jsonl
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.internals import N_NEIGHBOURS, neighbours, overlap
from benchmarks.records import (
    RESULTS,
    common_settings,
    describe_machine,
    describe_threads,
    markdown_table,
    read_records,
    write_records,
)
from benchmarks.studies.photographs import cut_photographs
from skfp import FeaturePredictionEncoder, OnnxEncoder

ENCODERS = ("image", "pretrained")
DTYPES = ("float32", "float16", "int8")
# What makes the encoder of each form from its file, in a new process.
FORMS = {"torch": "FeaturePredictionEncoder.load", **dict.fromkeys(DTYPES, "OnnxEncoder")}
SIDE, CALIBRATION = 64, 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--out", type=Path, default=RESULTS / "serving.jsonl", help="file of the records")
    add("--fit-images", type=int, default=5000, help="number of images to fit on")
    add("--images", type=int, default=5000, help="number of images to embed")
    add("--z", type=int, default=64, help="size of the embedding")
    add("--max-epochs", type=int, default=10, help="epochs of each fit")
    add("--repeats", type=int, default=7, help="times that each is measured, in turns")


def main(args: argparse.Namespace) -> None:
    """Measure, write the records and print the table."""
    crops = cut_photographs(args.fit_images + args.images, SIDE)
    settings = {
        "fit_images": args.fit_images,
        "images": args.images,
        "z": args.z,
        "max_epochs": args.max_epochs,
        "threads": torch.get_num_threads(),
        "onnxruntime": onnxruntime.__version__,
    }
    records = []
    for name in ENCODERS:
        encoder = FeaturePredictionEncoder(
            z=args.z, encoder=name, max_epochs=args.max_epochs, random_state=0
        ).fit(crops[: args.fit_images])
        measured = measure(
            encoder, crops[: args.fit_images], crops[args.fit_images :], args.repeats
        )
        machine = describe_machine()
        records += [
            {"encoder": name, "form": form, "settings": settings, "machine": machine, **values}
            for form, values in measured.items()
        ]
    write_records(args.out, records)
    print(table(records))


def measure(
    encoder: Any, fitted: np.ndarray, images: np.ndarray, repeats: int
) -> dict[str, dict[str, Any]]:
    """Measure all forms of a fitted encoder."""
    with TemporaryDirectory() as folder:
        paths = {form: Path(folder, form) for form in FORMS}
        encoder.save(paths["torch"])
        for dtype in DTYPES:
            encoder.to_onnx(paths[dtype], dtype=dtype, X=fitted[:CALIBRATION])
        forms = {"torch": encoder, **{dtype: OnnxEncoder(paths[dtype]) for dtype in DTYPES}}
        embeddings = {form: model.transform(images) for form, model in forms.items()}  # warms up
        speeds: dict[str, list[float]] = {form: [] for form in FORMS}
        starts: dict[str, list[float]] = {form: [] for form in FORMS}
        for _ in range(repeats):
            for form, model in forms.items():
                start = time.perf_counter()
                model.transform(images)
                speeds[form].append(len(images) / (time.perf_counter() - start))
            for form, path in paths.items():
                starts[form].append(seconds_to_start(FORMS[form], path))
        return {
            form: {
                "images_per_second": speeds[form],
                "seconds_to_start": starts[form],
                "neighbours_kept": neighbours_kept(embeddings[form], embeddings["float32"]),
                "bytes": paths[form].stat().st_size,
            }
            for form in FORMS
        }


def seconds_to_start(make: str, path: Path) -> float:
    """Time a new process that makes an encoder from a file and embeds one image."""
    image = f"numpy.zeros((1, {SIDE}, {SIDE}, 3), 'uint8')"
    code = f"import sys, numpy, skfp; skfp.{make}(sys.argv[1]).transform({image})"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    return time.perf_counter() - start


def neighbours_kept(embedding: np.ndarray, reference: np.ndarray) -> float:
    """Return the share of the nearest neighbours in a reference that an embedding has too.

    >>> points = np.random.default_rng(0).normal(size=(30, 2))
    >>> neighbours_kept(2 * points, points)
    1.0
    """
    return overlap(neighbours(embedding), neighbours(reference))


def table(records: Sequence[Mapping]) -> str:
    """Lay out the medians as Markdown, the encoders in turn; ratios are of the same round."""
    found = {(record["encoder"], record["form"]): record for record in records}

    def row(name: str, form: str) -> dict[str, str]:
        record, speeds = found[name, form], found[name, form]["images_per_second"]
        pairs = zip(speeds, found[name, "torch"]["images_per_second"], strict=True)
        return {
            "encoder": f'"{name}"',
            "form": form if form == "torch" else f"ONNX, {form}",
            "images/s": f"{statistics.median(speeds):,.0f}",
            "of torch": f"{statistics.median(one / torch for one, torch in pairs):.2f}",
            f"neighbours@{N_NEIGHBOURS} kept": f"{record['neighbours_kept']:.3f}",
            "file, MB": f"{record['bytes'] / 1e6:.1f}",
            "first embedding, s": f"{statistics.median(record['seconds_to_start']):.1f}",
        }

    return markdown_table(row(name, form) for name in ENCODERS for form in FORMS)


def block(results: Path) -> str:
    """Write the block of the user guide."""
    records = read_records(results / "serving.jsonl")
    settings, machine = common_settings(records), records[0]["machine"]
    threads = describe_threads(settings["threads"])
    return (
        f"{table(records)}\n\n{settings['images']:,} crops of photographs, {SIDE} by {SIDE} "
        f"pixels; z = {settings['z']}; neighbours against those of ONNX, float32; the file of "
        "torch is that of `save`; the first embedding is that of a new process, imports included. "
        f"Medians of {len(records[0]['images_per_second'])} runs in turns, {threads} on "
        f"{machine['cpu']}."
    )
