"""Speed of a second process: dask workers that embed, accelerate processes that train.

Every process has one thread. Frames are embedded from one zarr array into another: by a plain loop,
by one dask worker, which shows what dask costs, and by two. Then one accelerate process trains, and
two, on the same batches. Takes ten minutes on two cores. Prints a table, and writes the record to
the file --out.

    python -m benchmarks engines --images 5000 --repeats 1 --out out/engines.jsonl
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from sklearn.utils import gen_batches

from benchmarks.isolate import in_new_process
from benchmarks.records import (
    RESULTS,
    describe_machine,
    markdown_table,
    read_records,
    write_records,
)
from benchmarks.splits import STEPS, fetch_frames

CHUNK = 1000
Z = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--out", type=Path, default=RESULTS / "engines.jsonl", help="file of the record")
    add("--images", type=int, default=50_000, help="frames to embed")
    add("--train-images", type=int, default=5000, help="frames to train on")
    add("--epochs", type=int, default=2, help="of training; the last one is timed")
    add("--batch-size", type=int, default=512, help="images in a batch, over all processes")
    add("--repeats", type=int, default=3, help="times that everything is measured")
    add("--processes", type=int, nargs="+", default=[1, 2], help="numbers of processes")
    add("--data-home", type=Path, help="where frames are kept between runs")
    add("--n-jobs", type=int, default=-1, help="processes for frames")


def main(args: argparse.Namespace) -> None:
    """Measure, print and write."""
    import zarr

    from skfp import FeaturePredictionEncoder

    n_rollouts = math.ceil(max(args.images, args.train_images) / STEPS)
    frames = fetch_frames(1, n_rollouts, 1, args.data_home, args.n_jobs).images
    measured = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/frames.zarr", f"{folder}/embedding.zarr"
        chunks = (min(CHUNK, args.images), *frames.shape[1:])
        zarr.create_array(source, data=frames[: args.images], chunks=chunks)
        np.save(f"{folder}/frames.npy", frames[: args.train_images])
        encoder = f"{folder}/encoder.safetensors"
        FeaturePredictionEncoder(Z, max_epochs=1, random_state=0).fit(frames[:2000]).save(encoder)

        for _ in range(args.repeats):
            seconds = in_new_process(embed_in_loop, encoder, source, target)
            measured["plain loop"].append(args.images / seconds)
            for n in args.processes:
                seconds = embed_with_dask(encoder, source, target, n)
                measured[f"dask, {n} workers"].append(args.images / seconds)
            for n in args.processes:
                seconds = train_with_accelerate(folder, args.epochs, args.batch_size, n)
                measured[f"accelerate, {n} processes"].append(args.train_images / seconds)

    names = ("images", "train_images", "batch_size", "repeats", "processes")
    record = {
        "settings": {name: getattr(args, name) for name in names} | {"chunk": CHUNK, "z": Z},
        "machine": describe_machine(),
        "images_per_second": measured,
    }
    write_records(args.out, [record])
    print(f"\n{report(record)}\n\nThe record is {args.out}.")


def embed_in_loop(encoder: str, source: str, target: str) -> float:
    """Embed a zarr array chunk by chunk, with one thread, and return the seconds."""
    import torch
    import zarr

    from skfp import FeaturePredictionEncoder

    torch.set_num_threads(1)
    fitted = FeaturePredictionEncoder.load(encoder)
    images = zarr.open_array(source, mode="r")
    fitted.transform(images[:CHUNK])
    start = time.perf_counter()
    embedding = zarr.open_array(
        target, mode="w", shape=(images.shape[0], Z), chunks=(CHUNK, Z), dtype=np.float32
    )
    for rows in gen_batches(images.shape[0], CHUNK):
        embedding[rows] = fitted.transform(images[rows])
    return time.perf_counter() - start


def embed_with_dask(encoder: str, source: str, target: str, n_workers: int) -> float:
    """Embed a zarr array on so many dask workers of one thread each, and return the seconds."""
    import dask.array as da
    from dask.distributed import Client

    from skfp import FeaturePredictionEncoder

    with Client(n_workers=n_workers, threads_per_worker=1, dashboard_address=None) as client:
        images = da.from_zarr(source)
        fitted = FeaturePredictionEncoder.load(encoder)
        # A running cluster is measured, not its start: every worker imports torch first.
        client.run(embed_first_chunk, encoder, source)
        start = time.perf_counter()
        embedding = images.map_blocks(
            fitted.transform,
            dtype=np.float32,
            drop_axis=[1, 2, 3],
            new_axis=1,
            chunks=(images.chunks[0], (Z,)),
        )
        embedding.to_zarr(target, overwrite=True)
        return time.perf_counter() - start


def embed_first_chunk(encoder: str, source: str) -> None:
    """Embed one chunk, which imports and warms up all that is needed."""
    import zarr

    from skfp import FeaturePredictionEncoder

    FeaturePredictionEncoder.load(encoder).transform(zarr.open_array(source, mode="r")[:CHUNK])


def train_with_accelerate(folder: str, epochs: int, batch_size: int, n_processes: int) -> float:
    """Train with so many processes of one thread each, and return the seconds of an epoch."""
    # This is torchrun: `accelerate launch` starts several processes on GPUs only.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(n_processes), "--module", __name__]
    command += [folder, str(epochs), str(batch_size)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return json.loads(Path(folder, "seconds.json").read_text("utf-8"))


def _train(folder: str, epochs: str, batch_size: str) -> None:
    """Train as one of the processes that torchrun has started."""
    from accelerate import Accelerator

    from skfp import FeaturePredictionEncoder

    accelerator = Accelerator(cpu=True)
    encoder = FeaturePredictionEncoder(
        Z, max_epochs=int(epochs), batch_size=int(batch_size), random_state=0, device="cpu"
    ).fit(np.load(f"{folder}/frames.npy"))
    if accelerator.is_main_process:
        seconds = json.dumps(encoder.history_[-1]["seconds"])
        Path(folder, "seconds.json").write_text(seconds, "utf-8")
    accelerator.end_training()


def report(record: Mapping) -> str:
    """Lay out the record as Markdown: speeds, also relative to one process."""
    speeds, settings = record["images_per_second"], record["settings"]
    alone = {name.split(",")[0]: name for name in reversed(speeds)}

    def ratio(series: str, to: str) -> str:
        ratios = [a / b for a, b in zip(speeds[series], speeds[to], strict=True)]
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"

    table = markdown_table(
        {
            "one thread per process": name,
            "images/s": f"{statistics.median(values):,.0f}",
            "relative to its first row": ratio(name, alone[name.split(",")[0]]),
            "relative to the plain loop": "" if "accelerate" in name else ratio(name, "plain loop"),
        }
        for name, values in speeds.items()
    )
    machine = record["machine"]
    return (
        f"{table}\n\n{settings['images']:,} LunarLander frames embedded from zarr to zarr in "
        f"chunks of {settings['chunk']:,}; training on {settings['train_images']:,} in batches of "
        f"{settings['batch_size']}; medians of {settings['repeats']} repeats, least and greatest "
        f"in brackets; {machine['cores']} cores of {machine['cpu']}, torch {machine['torch']}."
    )


def block(results: Path) -> str:
    """Write the block of the user guide."""
    (record,) = read_records(results / "engines.jsonl")
    return report(record)


if __name__ == "__main__":
    _train(*sys.argv[1:])
