"""Predict time, memory, disk and money of millions to a billion images, from costs measured here.

The costs of one image (reading it, what the loss network sees in it, training on it in one epoch,
embedding it) are measured on this machine, on few images. Larger numbers of images cost in
proportion; how much faster other machines are, and what they cost, is assumed, and printed. Whether
the proportion holds is checked against fits and embeddings of larger sizes, measured in processes
of their own. Prints tables and writes a JSON record.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import gen_batches

from benchmarks.records import describe_machine, markdown_table, write_record

OUT = Path("benchmarks/results/scale.json")
SIZES = (10**6, 10**8, 10**9)
CHECKS = (10**4, 10**5)
TOLERANCE = 0.25
IMAGE_SHAPE = (64, 64, 3)
READ_AT_ONCE = 256
GIB = 2**30


class Machine(NamedTuple):
    """A machine, against the one that costs are measured on. All of it is assumed.

    Attributes
    ----------
    name : str
    training, embedding : float
        How many times as fast it trains one encoder, and embeds.
    read : float or None
        Bytes of images that it reads in a second, while it computes; None reads as measured,
        before it computes.
    training_price, embedding_price : float
        US dollars for an hour.
    assumed : str
        The same in words.
    """

    name: str
    training: float
    embedding: float
    read: float | None
    training_price: float
    embedding_price: float
    assumed: str


def machines(n_cores: int) -> list[Machine]:
    """List the machines that are predicted for, where the measured one has so many cores."""
    box = 0.05 * n_cores
    return [
        Machine(
            *("one CPU box", 1, 1, None, box, box),
            "the measured machine, at 0.05 USD per core and hour; it reads from a disk as fast as "
            "from the page cache, where images were when measured",
        ),
        Machine(
            *("one GPU", 100, 100, 2e9, 3, 3),
            "100 times as fast as the CPU box, 3 USD per hour; it reads 2 GB/s",
        ),
        Machine(
            *("eight GPUs", 720, 720, 8e9, 24, 24),
            "eight such GPUs in one box, each at 90 % of its speed, 24 USD per hour; they read "
            "8 GB/s together",
        ),
        Machine(
            *("dask, 64 CPU boxes", 1, 64 * 0.95, None, box, 64 * box),
            "64 of the CPU box embed, each at 95 % of its speed; one of them trains, and is paid "
            "alone while it does",
        ),
    ]


class Costs(NamedTuple):
    """What one image costs on the measured machine, and what is paid once.

    Attributes
    ----------
    read, targets, epoch, embedding : float
        Seconds for one image: to read it, to find what the loss network sees in it, to train on
        it in one epoch, and to embed it.
    components : float
        Seconds to find the principal components, once in a fit.
    image_bytes, target_bytes, embedding_bytes : int
        What one image takes, as it is, as a target of training, and as an embedding.
    process_bytes : int
        Peak memory of a process that fits, beside images and targets.
    """

    read: float
    targets: float
    epoch: float
    embedding: float
    components: float
    image_bytes: int
    target_bytes: int
    embedding_bytes: int
    process_bytes: int


class Prediction(NamedTuple):
    """What a number of images costs on a machine; seconds, bytes and US dollars."""

    pretraining: float
    embedding: float
    memory: float
    disk: float
    money: float


def predict(costs: Costs, n_images: int, n_epochs: int, machine: Machine) -> Prediction:
    """Predict what it costs to pretrain on all of a number of images, and to embed them.

    Targets are computed in one pass over the images, and every epoch is another. Images are read
    batch by batch from the disk, where embeddings go too; targets that take more than
    `skfp._features.extractor.MAX_BYTES_IN_MEMORY` are there as well.

    Examples
    --------
    >>> costs = Costs(0.001, 0.002, 0.003, 0.004, 5.0, 10, 20, 30, 1000)
    >>> box = Machine("box", 1, 1, None, 3600, 3600, "")
    >>> predict(costs, 1000, 2, box)
    Prediction(pretraining=16.0, embedding=5.0, memory=21000, disk=40000, money=21.0)
    """
    from skfp._features.extractor import MAX_BYTES_IN_MEMORY

    def one_pass(seconds: float, speed: float) -> float:
        if machine.read is None:
            return n_images * (costs.read + seconds) / speed
        return n_images * max(costs.image_bytes / machine.read, seconds / speed)

    pretraining = (
        costs.components / machine.training
        + one_pass(costs.targets, machine.training)
        + n_epochs * one_pass(costs.epoch, machine.training)
    )
    embedding = one_pass(costs.embedding, machine.embedding)
    targets = n_images * costs.target_bytes
    on_disk = targets > MAX_BYTES_IN_MEMORY
    return Prediction(
        pretraining=pretraining,
        embedding=embedding,
        memory=costs.process_bytes + (0 if on_disk else targets),
        disk=n_images * (costs.image_bytes + costs.embedding_bytes) + (targets if on_disk else 0),
        money=(pretraining * machine.training_price + embedding * machine.embedding_price) / 3600,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--out", type=Path, default=OUT, help="the record")
    add("--images", type=int, default=5000, help="to measure costs on, at least 4,096")
    add("--sizes", type=int, nargs="+", default=SIZES, help="numbers of images to predict for")
    add("--check", type=int, nargs="*", default=CHECKS, help="numbers of images to check with")
    add("--epochs", type=int, default=10, help="epochs of the predicted pretraining")
    add("--check-epochs", type=int, default=2, help="epochs of the fits that check")
    add("--z", type=int, default=64, help="size of the embedding")


def main(args: argparse.Namespace) -> None:
    """Measure, predict, check, print and write."""
    costs = measure_costs(args.images, args.z)
    machine = describe_machine()
    boxes = machines(machine["cores"])
    checks = [check(costs, n, args.check_epochs, args.z, boxes[0]) for n in args.check]
    record = {
        "settings": {
            "images": args.images,
            "epochs": args.epochs,
            "check_epochs": args.check_epochs,
            "z": args.z,
        },
        "machine": machine,
        "costs": costs._asdict(),
        "assumed": {box.name: box._asdict() for box in boxes},
        "predicted": [
            {
                "images": n_images,
                "machine": box.name,
                **predict(costs, n_images, args.epochs, box)._asdict(),
            }
            for n_images in args.sizes
            for box in boxes
        ],
        "checks": checks,
    }
    write_record(args.out, record)
    print(f"\n{report(record)}\n\nThe record is {args.out}.")


def measure_costs(n_images: int, z: int) -> Costs:
    """Measure what one image costs, in a process of its own."""
    measured = in_new_process(_costs, n_images, z)
    peak = in_new_process(_fit_and_embed, n_images, 1, z)["memory"]
    beside = peak - n_images * (measured["image_bytes"] + measured["target_bytes"])
    return Costs(**measured, process_bytes=beside)


def check(costs: Costs, n_images: int, n_epochs: int, z: int, box: Machine) -> dict:
    """Fit to images and embed them, and compare that with what is predicted for this machine.

    The images are in memory here, so that they count.
    """
    predicted = predict(costs, n_images, n_epochs, box)
    memory = predicted.memory + n_images * costs.image_bytes
    expected = {**predicted._asdict(), "memory": memory}
    measured = in_new_process(_fit_and_embed, n_images, n_epochs, z)
    return {
        "images": n_images,
        **{
            what: {"predicted": expected[what], "measured": value}
            for what, value in measured.items()
        },
    }


def in_new_process(function: Callable, *args: Any) -> Any:
    """Call a function in a process that has done nothing else, so that its memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def _costs(n_images: int, z: int) -> dict[str, float]:
    from torch import nn

    from skfp import FeaturePredictionEncoder
    from skfp._data.image_set import check_images
    from skfp._data.preprocess import Preprocess
    from skfp._features.cache import Cache
    from skfp._features.extractor import FeatureExtractor
    from skfp._loss_network import load_loss_network
    from skfp._utils.devices import OnDevice, choose_device

    _warm_up()
    array = make_images(n_images)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "images.npy", array)
        stored = np.load(Path(folder) / "images.npy", mmap_mode="r")
        batches = list(gen_batches(n_images, READ_AT_ONCE))
        read, _ = _timed(lambda: [np.array(stored[rows]) for rows in batches])

    images = check_images(array)
    network = load_loss_network("alexnet")
    canvas = Preprocess(IMAGE_SHAPE[:2])
    see = OnDevice(nn.Sequential(canvas, network), choose_device("auto"))
    view = FeatureExtractor(images, see, network.n_features(canvas.output_size), Cache(None))
    finding, components = _timed(lambda: view.components("auto"))
    computing, targets = _timed(lambda: view.coefficients(components))

    encoder = FeaturePredictionEncoder(z=z, max_epochs=2, random_state=0).fit(array)
    embedding, embedded = _timed(lambda: encoder.transform(array))
    return {
        "read": read / n_images,
        "targets": computing / n_images,
        # The first epoch also warms up.
        "epoch": encoder.history_[-1]["seconds"] / n_images,
        "embedding": embedding / n_images,
        "components": finding,
        "image_bytes": array[0].nbytes,
        "target_bytes": targets.nbytes // n_images,
        "embedding_bytes": embedded[0].nbytes,
    }


def _fit_and_embed(n_images: int, n_epochs: int, z: int) -> dict[str, float]:
    from skfp import FeaturePredictionEncoder

    _warm_up()
    images = make_images(n_images)
    encoder = FeaturePredictionEncoder(z=z, max_epochs=n_epochs, random_state=0, verbose=1)
    pretraining, _ = _timed(lambda: encoder.fit(images))
    memory = _peak_memory()
    embedding, _ = _timed(lambda: encoder.transform(images))
    return {"pretraining": pretraining, "embedding": embedding, "memory": memory}


def _warm_up() -> None:
    """Fit and embed for the first time, which loads much of torch."""
    from skfp import FeaturePredictionEncoder

    few = make_images(READ_AT_ONCE)
    FeaturePredictionEncoder(z=2, max_epochs=1).fit(few).transform(few)


def make_images(n_images: int) -> np.ndarray:
    """Make noise, the same thousand images again and again: what they show costs nothing."""
    some = np.random.default_rng(0).integers(0, 256, (1000, *IMAGE_SHAPE), dtype=np.uint8)
    images = np.empty((n_images, *IMAGE_SHAPE), dtype=np.uint8)
    for rows in gen_batches(n_images, len(some)):
        images[rows] = some[: rows.stop - rows.start]
    return images


def _timed(function: Callable) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def _peak_memory() -> int:
    """Peak resident memory of this process in bytes. getrusage would count the parent's too."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak) * 1024


def report(record: Mapping) -> str:
    """Lay the record out: costs, predictions, assumptions, and whether the check holds."""
    costs, settings = Costs(**record["costs"]), record["settings"]
    assumed = "\n".join(f"- {name}: {box['assumed']}." for name, box in record["assumed"].items())
    return "\n\n".join(
        [
            f"Measured on {record['machine']['cpu']}, cores: {record['machine']['cores']}, with "
            f"{settings['images']:,} images of {' x '.join(map(str, IMAGE_SHAPE))}, per image: "
            f"reading {1e3 * costs.read:.3f} ms, loss network {1e3 * costs.targets:.3f} ms, "
            f"training {1e3 * costs.epoch:.3f} ms per epoch, embedding "
            f"{1e3 * costs.embedding:.3f} ms; once {costs.components:.1f} s for the components.",
            f"Predicted, epochs on all images: {settings['epochs']}, z = {settings['z']}:",
            _prediction_table(record["predicted"]),
            f"Assumed:\n\n{assumed}\n- Prices are round numbers, and disks cost nothing.",
            _check_report(record["checks"], settings["check_epochs"]),
        ]
    )


def readme_block(root: Path, record: Path) -> str:
    """Make the README's block from the committed record."""
    return report(json.loads((root / record).read_text("utf-8")))


def _prediction_table(rows: Sequence[Mapping]) -> str:
    return markdown_table(
        {
            "images": f"{row['images']:,}",
            "machine": row["machine"],
            "pretraining": _duration(row["pretraining"]),
            "embedding": _duration(row["embedding"]),
            "memory": f"{row['memory'] / GIB:.1f} GiB",
            "disk": f"{row['disk'] / GIB:,.0f} GiB",
            "USD": f"{row['money']:,.2f}",
        }
        for row in rows
    )


def _check_report(checks: Sequence[Mapping], n_epochs: int) -> str:
    units = {"pretraining": (1, "s"), "embedding": (1, "s"), "memory": (GIB, "GiB")}
    rows, errors = [], []
    for point in checks:
        for what, (unit, name) in units.items():
            predicted, measured = point[what]["predicted"], point[what]["measured"]
            errors.append(abs(predicted / measured - 1))
            rows.append(
                {
                    "images": f"{point['images']:,}",
                    "what": what,
                    "predicted": f"{predicted / unit:.1f} {name}",
                    "measured": f"{measured / unit:.1f} {name}",
                    "ratio": f"{predicted / measured:.2f}",
                }
            )
    if not rows:
        return "Not checked."
    verdict = "holds" if max(errors) <= TOLERANCE else "does not hold"
    return (
        f"Checked on this machine, epochs: {n_epochs}, images in memory:\n\n{markdown_table(rows)}"
        f"\n\nThe prediction {verdict}: it is at most {100 * max(errors):.0f} % off, and "
        f"{100 * TOLERANCE:.0f} % are allowed."
    )


def _duration(seconds: float) -> str:
    """Write a time in the unit that suits it.

    >>> [_duration(s) for s in (12.3, 600, 7200, 1e6, 1e9)]
    ['12 s', '10 min', '2.0 h', '11.6 d', '11,574 d']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * 86400:
        return f"{seconds / 3600:.1f} h"
    days = seconds / 86400
    return f"{days:.1f} d" if days < 100 else f"{days:,.0f} d"
