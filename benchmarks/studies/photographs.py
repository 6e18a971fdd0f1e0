"""What photographs of real size cost: seconds of a fit, and images per second of transform.

1,000 crops of 224 by 224 pixels, cut from the two photographs that come with scikit-learn, are in
memory as uint8. A fit of two epochs has to extract the features of its loss network too. Takes some
minutes. The file --out gets a record for each set of parameters.

    python -m benchmarks photographs --out out/photographs.jsonl
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_sample_images

from benchmarks.records import (
    RESULTS,
    common_settings,
    describe_machine,
    describe_threads,
    markdown_table,
    read_records,
    write_records,
)
from skfp import FeaturePredictionEncoder

# Those of photographs, and the paper's network and encoder.
PARAMETERS = {
    'loss_network="photo"': {"loss_network": "photo"},
    "defaults": {},
    "defaults, resize=64": {"resize": 64},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--out", type=Path, default=RESULTS / "photographs.jsonl", help="file of the records")
    add("--images", type=int, default=1000, help="number of images")
    add("--side", type=int, default=224, help="their sides in pixels")
    add("--repeats", type=int, default=3, help="times that each is measured, in turns")


def main(args: argparse.Namespace) -> None:
    """Measure, write the records and print the table."""
    images = cut_photographs(args.images, args.side)
    fits: dict[str, list[float]] = {name: [] for name in PARAMETERS}
    speeds: dict[str, list[float]] = {name: [] for name in PARAMETERS}
    for _ in range(args.repeats):
        for name, parameters in PARAMETERS.items():
            encoder = FeaturePredictionEncoder(max_epochs=2, random_state=0, **parameters)
            start = time.perf_counter()
            encoder.fit(images)
            fits[name].append(time.perf_counter() - start)
            start = time.perf_counter()
            encoder.transform(images)
            speeds[name].append(len(images) / (time.perf_counter() - start))
            print(
                f"{name}: fit {fits[name][-1]:.0f} s, {speeds[name][-1]:,.0f} images/s", flush=True
            )
    settings = {"images": args.images, "side": args.side, "threads": torch.get_num_threads()}
    records = [
        {
            "parameters": name,
            "settings": settings,
            "machine": describe_machine(),
            "fit_seconds": fits[name],
            "images_per_second": speeds[name],
        }
        for name in PARAMETERS
    ]
    write_records(args.out, records)
    print(table(records))


def cut_photographs(n_images: int, side: int) -> np.ndarray:
    """Cut crops at random.

    >>> cut_photographs(4, 32).shape
    (4, 32, 32, 3)
    """
    random = np.random.default_rng(0)
    photographs = load_sample_images().images
    crops = []
    for number in range(n_images):
        photograph = photographs[number % len(photographs)]
        top, left = random.integers(0, np.array(photograph.shape[:2]) - side)
        crops.append(photograph[top : top + side, left : left + side])
    return np.stack(crops)


def table(records: Sequence[Mapping]) -> str:
    """Lay out the medians as Markdown."""
    return markdown_table(
        {
            "parameters": f"`{record['parameters']}`",
            "fit of 2 epochs, s": f"{statistics.median(record['fit_seconds']):.0f}",
            "transform, images/s": f"{statistics.median(record['images_per_second']):,.0f}",
        }
        for record in sorted(
            records, key=lambda record: list(PARAMETERS).index(record["parameters"])
        )
    )


def block(results: Path) -> str:
    """Write the block of the user guide."""
    records = read_records(results / "photographs.jsonl")
    settings, machine = common_settings(records), records[0]["machine"]
    return (
        f"{table(records)}\n\n{settings['images']:,} images of {settings['side']} by "
        f"{settings['side']} pixels; medians of {len(records[0]['fit_seconds'])} runs in turns, "
        f"{describe_threads(settings['threads'])} on {machine['cpu']}."
    )
