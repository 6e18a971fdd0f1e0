"""Peak memory of fitting and embedding, each collection of images in a process of its own.

The collections are the rows of a table: images in memory, and images that are made when they are
read, so that there may be any number of them. All take an hour on one core; --rows chooses some.
Each gets a record in the file --out. The same command goes on after a kill.

    python -m benchmarks memory --rows 5000 --out out/memory.jsonl
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.grid import run_grid
from benchmarks.isolate import in_new_process, peak_memory
from benchmarks.records import RESULTS, describe_machine, markdown_table, read_records

GIB = 2**30
# Pooling takes means of 8 by 8 pixels, where AlexNet would take hours.
ROWS = {
    "105000": {"virtual": False, "encoder": "image", "loss_network": "alexnet"},
    "5000": {"virtual": True, "encoder": "image", "loss_network": "alexnet"},
    "50000": {"virtual": True, "encoder": "image", "loss_network": "alexnet"},
    "100000": {"virtual": True, "encoder": "features", "loss_network": "pooling"},
    "1000000": {"virtual": True, "encoder": "features", "loss_network": "pooling"},
}


class VirtualImages:
    """RGB images of 64 by 64 pixels that are not in memory: image i is made from i alone."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, n_images: int) -> None:
        self.shape = (n_images, 64, 64, 3)
        # Noise: the content of images does not change the memory they take.
        self._noise = np.random.default_rng(0).integers(0, 256, (997, 64, 64, 3), dtype=np.uint8)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Make the images of a slice."""
        times, place = np.divmod(np.arange(*rows.indices(self.shape[0])), len(self._noise))
        return self._noise[place] + times.astype(np.uint8)[:, None, None, None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    what = f"numbers of images: {', '.join(ROWS)}"
    add("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="N", help=what)
    add("--max-epochs", type=int, default=1, help="epochs of each fit")
    add("--out", type=Path, default=RESULTS / "memory.jsonl", help="file of the records")


def main(args: argparse.Namespace) -> int:
    """Compute what is missing and print the table."""
    status = run_grid(
        [
            {"settings": {"images": int(row), **ROWS[row], "max_epochs": args.max_epochs}}
            for row in args.rows
        ],
        lambda run, data, checkpoint_dir: in_new_process(measure, **run["settings"]),
        args.out,
        describe=lambda record: f"{record['images']:,} images, {record['peak_gib']:.2f} GiB",
    )
    if args.out.exists():
        print(table(read_records(args.out)))
    return status


def measure(
    images: int, *, virtual: bool, encoder: str, loss_network: str, max_epochs: int
) -> dict:
    """Fit and embed so many images in this process, and return the memory and time that took."""
    import torch

    from skfp import FeaturePredictionEncoder

    collection = VirtualImages(images)
    if not virtual:
        made = np.empty(collection.shape, collection.dtype)
        for start in range(0, images, 1024):
            made[start : start + 1024] = collection[start : start + 1024]
        collection = made
    estimator = FeaturePredictionEncoder(
        encoder=encoder,
        loss_network=torch.nn.AvgPool2d(8) if loss_network == "pooling" else loss_network,
        max_epochs=max_epochs,
        random_state=0,
        verbose=1,
    )
    before = peak_memory()
    start = time.perf_counter()
    estimator.fit(collection)
    fitted, fitted_peak = time.perf_counter(), peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        shape = (images, estimator.z)
        out = np.memmap(Path(folder, "embedding"), dtype=np.float32, mode="w+", shape=shape)
        estimator.transform(collection, out=out)
    return {
        "machine": describe_machine(),
        "images": images,
        "images_gib": float(np.prod(collection.shape) / GIB),
        "peak_before_fit_gib": before / GIB,
        "peak_of_fit_gib": fitted_peak / GIB,
        "peak_gib": peak_memory() / GIB,
        "fit_seconds": fitted - start,
        "transform_seconds": time.perf_counter() - fitted,
    }


def table(records: Sequence[Mapping]) -> str:
    """Lay out the peaks as Markdown, without times, which depend on the day."""
    ordered = sorted(
        records,
        key=lambda r: (r["settings"]["virtual"], r["settings"]["loss_network"], r["images"]),
    )
    return markdown_table(
        {
            "64x64 images": f"{record['images']:,}",
            "which are": "made when read" if record["settings"]["virtual"] else "in memory",
            "encoder": record["settings"]["encoder"],
            "loss network": record["settings"]["loss_network"],
            "they take, GiB": f"{record['images_gib']:.2f}",
            "peak of the process, GiB": f"{record['peak_gib']:.2f}",
        }
        for record in ordered
    )


def block(results: Path) -> str:
    """Write the block of the user guide."""
    return (
        f"{table(read_records(results / 'memory.jsonl'))}\n\nFit, one epoch, and transform into a "
        "memory map; pooling are means of 8 by 8 pixels (`python -m benchmarks memory`)."
    )
