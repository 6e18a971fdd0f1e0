"""Peak memory of pretraining on the paper's number of images: 105,000 of 64 by 64 pixels."""

from __future__ import annotations

import argparse
import resource
from pathlib import Path

import numpy as np

from benchmarks.records import describe_machine, write_record

GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--images", type=int, default=105_000)
    parser.add_argument("--max-epochs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/memory.json"))


def main(args: argparse.Namespace) -> None:
    """Fit, and say how much memory the process has held at most."""
    from skfp import FeaturePredictionEncoder

    # Noise, made in parts: what is in the images does not change the memory they take.
    random = np.random.default_rng(0)
    images = np.empty((args.images, 64, 64, 3), dtype=np.uint8)
    for image in images:
        image[:] = random.integers(0, 256, image.shape, dtype=np.uint8)
    before = _peak()
    FeaturePredictionEncoder(max_epochs=args.max_epochs, random_state=0, verbose=1).fit(images)
    record = {
        "settings": {"images": args.images, "max_epochs": args.max_epochs},
        "machine": describe_machine(),
        "images_gib": images.nbytes / GIB,
        "peak_before_fit_gib": before,
        "peak_gib": _peak(),
    }
    write_record(args.out, record)
    print(
        f"{args.images:,} images take {record['images_gib']:.2f} GiB; the process has held "
        f"{before:.2f} GiB before fit and {record['peak_gib']:.2f} GiB at most."
    )


def _peak() -> float:
    """Peak resident memory of this process in GiB; Linux counts it in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
