r"""Peak memory of pretraining and embedding, each collection of images in a process of its own.

By default, the paper's 105,000 images of 64 by 64 pixels, held in memory. With --virtual, images
are made when they are read, so that a collection may be of any size:

    python -m benchmarks memory --virtual --images 100000 1000000 --loss-network pooling \
        --encoder features
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.records import describe_machine, markdown_table, write_record

GIB = 2**30
RESULTS = Path("benchmarks/results")


class VirtualImages:
    """RGB images of 64 by 64 pixels, of which none is kept: image i is made of i alone.

    Parameters
    ----------
    n_images : int
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, n_images: int) -> None:
        self.shape = (n_images, 64, 64, 3)
        # Noise: what is in the images does not change the memory they take.
        self._noise = np.random.default_rng(0).integers(0, 256, (997, 64, 64, 3), dtype=np.uint8)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Make the images of a slice."""
        times, place = np.divmod(np.arange(*rows.indices(self.shape[0])), len(self._noise))
        return self._noise[place] + times.astype(np.uint8)[:, None, None, None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--images", type=int, nargs="+", default=[105_000], metavar="N")
    parser.add_argument("--virtual", action="store_true", help="make images when they are read")
    parser.add_argument("--encoder", choices=("image", "features"), default="image")
    parser.add_argument(
        "--loss-network",
        choices=("alexnet", "pooling"),
        default="alexnet",
        help="pooling: means of 8 by 8 pixels, where AlexNet would take hours",
    )
    parser.add_argument("--max-epochs", type=int, default=1)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/memory*.json")


def main(args: argparse.Namespace) -> None:
    """Fit and embed each collection, and say how much memory the process has held at most."""
    settings = {
        "virtual": args.virtual,
        "encoder": args.encoder,
        "loss_network": args.loss_network,
        "max_epochs": args.max_epochs,
    }
    collections = []
    for n_images in args.images:
        # A new process, started before this one grows: its peak is that of its own work.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
            collections.append(process.submit(measure, n_images, **settings).result())
        print(describe([collections[-1]]), flush=True)
    out = args.out or RESULTS / ("memory-virtual.json" if args.virtual else "memory.json")
    write_record(
        out, {"settings": settings, "machine": describe_machine(), "collections": collections}
    )
    print(describe(collections))


def measure(
    n_images: int, *, virtual: bool, encoder: str, loss_network: str, max_epochs: int
) -> dict:
    """Fit and embed a collection of images in this process.

    Returns
    -------
    collection : dict
        Its size, and what this process has held and taken.
    """
    import torch

    from skfp import FeaturePredictionEncoder

    images = VirtualImages(n_images)
    if not virtual:
        made = np.empty(images.shape, images.dtype)
        for start in range(0, n_images, 1024):
            made[start : start + 1024] = images[start : start + 1024]
        images = made
    estimator = FeaturePredictionEncoder(
        encoder=encoder,
        loss_network=torch.nn.AvgPool2d(8) if loss_network == "pooling" else loss_network,
        max_epochs=max_epochs,
        random_state=0,
        verbose=1,
    )
    before = _peak()
    start = time.perf_counter()
    estimator.fit(images)
    fitted, fitted_peak = time.perf_counter(), _peak()
    with tempfile.TemporaryDirectory() as folder:
        shape = (n_images, estimator.z)
        out = np.memmap(Path(folder, "embedding"), dtype=np.float32, mode="w+", shape=shape)
        estimator.transform(images, out=out)
    return {
        "images": n_images,
        "images_gib": np.prod(images.shape) / GIB,
        "peak_before_fit_gib": before,
        "peak_of_fit_gib": fitted_peak,
        "peak_gib": _peak(),
        "fit_seconds": fitted - start,
        "transform_seconds": time.perf_counter() - fitted,
    }


def describe(collections: list[dict]) -> str:
    """Lay out the peaks as a table."""
    return markdown_table(
        {
            "images": f"{row['images']:,}",
            "they take, GiB": f"{row['images_gib']:.2f}",
            "peak before fit, GiB": f"{row['peak_before_fit_gib']:.2f}",
            "of fit, GiB": f"{row['peak_of_fit_gib']:.2f}",
            "of fit and transform, GiB": f"{row['peak_gib']:.2f}",
            "fit, s": f"{row['fit_seconds']:.0f}",
            "transform, s": f"{row['transform_seconds']:.0f}",
        }
        for row in collections
    )


def readme_block(root: Path, folder: Path) -> str:
    """Make the README's block from the committed records: peaks alone, as times are of any day."""
    records = [
        json.loads((root / folder / f"{name}.json").read_text("utf-8"))
        for name in ("memory", "memory-virtual-alexnet", "memory-virtual")
    ]
    table = markdown_table(
        {
            "64x64 images": f"{row['images']:,}",
            "which are": "made when read" if record["settings"]["virtual"] else "in memory",
            "encoder": record["settings"]["encoder"],
            "loss network": record["settings"]["loss_network"],
            "they take, GiB": f"{row['images_gib']:.2f}",
            "peak of the process, GiB": f"{row['peak_gib']:.2f}",
        }
        for record in records
        for row in record["collections"]
    )
    return (
        f"{table}\n\nFit, one epoch, and transform into a memory map; pooling are means of 8 by 8 "
        "pixels (`python -m benchmarks memory`)."
    )


def _peak() -> float:
    """Peak resident memory of this process in GiB; Linux counts it in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
