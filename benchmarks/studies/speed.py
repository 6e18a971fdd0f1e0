"""Speed of training and embedding against plain PyTorch, on the CPU.

Takes twenty minutes on two cores. Prints tables, and writes the record to the file --out and a
picture beside it.

    python -m benchmarks speed --repeats 1 --procedures I-F-FP --out out/speed.jsonl

Everything is measured in turns: each repeat times every contender once, so that a machine that
slows down slows all of them. A ratio is taken within each repeat; tables give medians, and the
least and the greatest value.

Training is timed without what comes before it on either side. The package's is one epoch of fit,
its first, with two validation images; what fit does once (the features of all images, and their
principal components) is reported beside it, and as the speed of a whole fit of 10 epochs. The
textbook's is two steps after one for warming up, with the loss network in each of them.

Every contender runs each time in a new process, as a user's program would, and warms up there: in
one process, this package's way of keeping freed memory would speed up the others too.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks import textbook
from benchmarks.internals import Preprocess, ProjectedFeatureLoss, keep_freed_memory
from benchmarks.isolate import in_new_process
from benchmarks.methods import METHODS, PROCEDURES
from benchmarks.records import (
    RESULTS,
    describe_machine,
    markdown_table,
    read_records,
    save_figure,
    write_records,
)
from benchmarks.splits import STEPS, fetch_frames

DEFAULT = "I-F-FP"  # the package's default procedure, which must be in every run
Z = 64
FIT_EPOCHS = 10
TEXTBOOK_STEPS = 2
# Image decoders are several times slower than feature decoders: they get a part of the images.
DECODED_SHARE = 4
WARM_UP = 256
EMBEDDED_AT_ONCE = 512
EMBEDDED_AT_ONCE_224 = 64  # images of 224x224 are 12 times as large
MATRIX_SIZES = (1024, 2048, 3072)


# Title, series, the series it is divided by, and the target of the ratio.
RATIOS = (
    (
        "FeaturePredictionEncoder (I-F-FP) / its textbook loop",
        ("package I-F-FP", "textbook I-F-FP", 2.5),
    ),
    (
        "FeaturePredictionEncoder (I-F-FP) / textbook loop of I-I-PS",
        ("package I-F-FP", "textbook I-I-PS", 5),
    ),
    (
        "PerceptualAutoencoder (I-I-PS) / its textbook loop",
        ("package I-I-PS", "textbook I-I-PS", 1.3),
    ),
    (
        "FeaturePredictionEncoder (F-F-FP) / its textbook loop",
        ("package F-F-FP", "textbook F-F-FP", 1.5),
    ),
    (
        "training with skorch (I-F-FP) / the same step in a bare loop",
        ("package I-F-FP", "bare loop", 0.95),
    ),
    ("transform / encoder, BatchNorm not folded", ("transform", "encoder", 1.4)),
    ("arithmetic of training (I-F-FP) / peak", ("arithmetic", "matrix product", 0.5)),
)

# Titles of the series that embed.
EMBEDDING = {
    "transform": "transform, from uint8 arrays",
    "encoder": "encoder alone, BatchNorm not folded",
    "loss network": "loss network (AlexNet to its 2nd ReLU)",
    "mobilenet_v3_small 64": "mobilenet_v3_small, 64x64",
    "mobilenet_v3_small 224": "mobilenet_v3_small, 224x224",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--out", type=Path, default=RESULTS / "speed.jsonl", help="file of the record")
    add("--repeats", type=int, default=5, help="times that everything is measured")
    add("--images", type=int, default=4096, help=f"frames; a {DECODED_SHARE}th where decoded")
    what = f"{', '.join(PROCEDURES)}; {DEFAULT} always is compared"
    add(
        "--procedures", nargs="+", choices=PROCEDURES, default=PROCEDURES, metavar="NAME", help=what
    )
    add("--seconds", type=float, default=2.0, help="that a forward pass is timed for")
    add("--textbook-batch", type=int, default=512, help="images in a step of the textbook loop")
    add("--data-home", type=Path, help="where frames are kept between runs")
    add("--n-jobs", type=int, default=-1, help="processes for frames")


def main(args: argparse.Namespace) -> None:
    """Measure, print and write."""
    n_rollouts = math.ceil(args.images / STEPS)
    images = fetch_frames(1, n_rollouts, 1, args.data_home, args.n_jobs).images[: args.images]
    measured: dict[str, list[float]] = defaultdict(list)
    contenders, flops_per_image = make_contenders(args, images)
    with tqdm(total=args.repeats * len(contenders), unit="slice", disable=None) as bar:
        for _ in range(args.repeats):
            for contend in contenders:
                for series, value in contend().items():
                    measured[series].append(value)
                bar.update()
    measured["arithmetic"] = [speed * flops_per_image for speed in measured[f"package {DEFAULT}"]]

    settings = {name: getattr(args, name) for name in ("repeats", "seconds", "textbook_batch")}
    settings |= {"images": len(images), "z": Z, "threads": torch.get_num_threads()}
    record = {
        "settings": settings,
        "machine": describe_machine(),
        "flops_per_image": flops_per_image,
        "measured": measured,
    }
    write_records(args.out, [record])
    picture = save_figure(args.out.with_suffix(".png"), draw(record))
    print(f"\n{report(record)}\n\nThe record is {args.out}, the picture {picture}.")


def make_contenders(
    args: argparse.Namespace, images: np.ndarray
) -> tuple[list[Callable[[], dict[str, float]]], float]:
    """Prepare everything that is timed, and count the operations of training on one image.

    Each contender times itself once in a new process and returns values by series: images per
    second, milliseconds per image ("once ...") or FLOP/s ("matrix product").
    """
    from torchvision.models import mobilenet_v3_small

    def make(procedure):
        return METHODS[procedure].make(z=Z, max_epochs=1, random_state=0, device="cpu")

    def training(procedure):
        decodes_images = textbook.PROCEDURES[procedure].loss != "FP"
        n_images = len(images) // (DECODED_SHARE if decodes_images else 1)
        return in_new_process(time_fit, procedure, make(procedure), images[:n_images])

    def textbook_training(procedure):
        settings = {"steps": TEXTBOOK_STEPS, "z": Z, "batch_size": args.textbook_batch}
        speed, _ = in_new_process(textbook.train, procedure, images, **settings)
        return {f"textbook {procedure}": speed}

    def forward(series, module, size, n_images):
        run = partial(in_new_process, time_forward, module, images[:n_images], size, args.seconds)
        return lambda: {series: run()}

    default = make(DEFAULT).fit(images, X_val=images[:2])
    contenders: list[Callable] = [lambda: in_new_process(time_bare_loop, default, images)]
    for procedure in sorted({*args.procedures, DEFAULT}, key=list(PROCEDURES).index):
        contenders += [partial(training, procedure), partial(textbook_training, procedure)]

    mobilenet = mobilenet_v3_small(weights=None)
    contenders += [
        lambda: {"transform": in_new_process(time_transform, default, images, args.seconds)},
        forward("encoder", default.encoder_, 64, EMBEDDED_AT_ONCE),
        forward("loss network", default.loss_network_, 64, EMBEDDED_AT_ONCE),
        forward("mobilenet_v3_small 64", mobilenet, 64, EMBEDDED_AT_ONCE),
        forward("mobilenet_v3_small 224", mobilenet, 224, EMBEDDED_AT_ONCE_224),
        lambda: in_new_process(matrix_product_peak, args.seconds),
    ]
    return contenders, BareLoop(default, images).flops_per_image()


def per_second(function: Callable, n_images: int, seconds: float) -> float:
    """Call a function for some seconds, once for warming up, and count images per second."""
    function()
    rounds = 0
    start = time.perf_counter()
    while True:
        function()
        rounds += 1
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return rounds * n_images / elapsed


def time_transform(estimator, images, seconds: float) -> float:
    """Time the embedding of images, in images per second."""
    return per_second(lambda: estimator.transform(images), len(images), seconds)


def time_bare_loop(fitted, images) -> dict[str, float]:
    """Time the bare loop over all images, after one over a few."""
    BareLoop(fitted, images[:WARM_UP]).images_per_second()
    return {"bare loop": BareLoop(fitted, images).images_per_second()}


def time_forward(module, images, size: int, seconds: float) -> float:
    """Time the forward pass of a module over one batch of floats, in images per second."""
    module = module.eval().to(memory_format=torch.channels_last)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    if batch.shape[-1] != size:
        batch = F.interpolate(batch, size=(size, size), mode="bilinear")
    batch = batch.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        return per_second(lambda: module(batch), len(batch), seconds)


def time_fit(procedure: str, estimator, images) -> dict[str, float]:
    """Fit an estimator for one epoch, and time the epoch and the rest apart."""
    estimator.fit(images[:WARM_UP], X_val=images[:2])
    start = time.perf_counter()
    estimator.fit(images, X_val=images[:2])
    epoch = estimator.history_[0]["seconds"]
    once = time.perf_counter() - start - epoch
    return {
        f"package {procedure}": len(images) / epoch,
        f"once {procedure}": 1e3 * once / len(images),
        f"fit {procedure}": FIT_EPOCHS * len(images) / (once + FIT_EPOCHS * epoch),
    }


class BareLoop:
    """The training step of a fitted encoder over tensors that are ready, and nothing else."""

    def __init__(self, fitted, images):
        size = images.shape[1:3]
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)
        self.batch_size = fitted.batch_size_
        self.preprocess = Preprocess()
        self.loss = ProjectedFeatureLoss(fitted.loss_network_.n_features(size))
        n_outputs = fitted.decoder_[-1].out_features
        self.targets = torch.randn(len(images), n_outputs + 1)  # the residual is the last column
        self.encoder = copy.deepcopy(fitted.encoder_).train()
        self.decoder = copy.deepcopy(fitted.decoder_).train()
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=fitted._lr(), fused=True)

    def step(self, rows) -> None:
        """Train on some images."""
        self.optimizer.zero_grad()
        decoded = self.decoder(self.encoder(self.preprocess(self.images[rows])))
        self.loss(decoded, self.targets[rows]).backward()
        self.optimizer.step()

    @keep_freed_memory()
    def images_per_second(self) -> float:
        """Train on all images once, in random order."""
        start = time.perf_counter()
        order = torch.randperm(len(self.images))
        for rows in order.split(self.batch_size):
            self.step(rows)
        return len(order) / (time.perf_counter() - start)

    def flops_per_image(self) -> float:
        """Count floating-point operations of convolutions and matrix products in a step."""
        rows = torch.arange(min(self.batch_size, len(self.images)))
        with FlopCounterMode(display=False) as counter:
            self.step(rows)
        return counter.get_total_flops() / len(rows)


def matrix_product_peak(seconds: float) -> dict[str, float]:
    """Measure FLOP/s of float32 matrix products, of the size at which they are fastest."""
    speeds = []
    for size in MATRIX_SIZES:
        a, b, out = torch.randn(3, size, size).unbind()
        products = per_second(partial(torch.mm, a, b, out=out), 1, seconds / len(MATRIX_SIZES))
        speeds.append(2 * size**3 * products)
    return {"matrix product": max(speeds)}


def median_ratio(record: Mapping, of: str, to: str) -> tuple[float, float, float]:
    """Divide two series repeat by repeat; return the median, the least and the greatest ratio."""
    pairs = zip(record["measured"][of], record["measured"][to], strict=True)
    ratios = [a / b for a, b in pairs]
    return statistics.median(ratios), min(ratios), max(ratios)


def ratio_table(record: Mapping) -> str:
    """Lay out the ratios and their targets."""
    rows = []
    for title, (of, to, target) in RATIOS:
        if {of, to} <= record["measured"].keys():
            median, least, greatest = median_ratio(record, of, to)
            rows.append(
                {
                    "ratio": title,
                    "median": f"{median:.2f}",
                    "range": f"{least:.2f} to {greatest:.2f}",
                    "at least": f"{target:g}",
                    "met": "yes" if median >= target else "no",
                }
            )
    return markdown_table(rows)


def training_table(record: Mapping) -> str:
    """Lay out the training speed of the procedures, package and textbook."""
    rows = []
    for procedure in _procedures(record):
        package, loop = f"package {procedure}", f"textbook {procedure}"
        rows.append(
            {
                "training": procedure,
                "textbook, images/s": _speed(record, loop),
                "this package, images/s": _speed(record, package),
                "ratio": f"{median_ratio(record, package, loop)[0]:.2f}",
                "once per fit, ms/image": f"{_median(record, f'once {procedure}'):.2f}",
                f"ratio over a fit of {FIT_EPOCHS} epochs": (
                    f"{median_ratio(record, f'fit {procedure}', loop)[0]:.2f}"
                ),
            }
        )
    return markdown_table(rows)


def embedding_table(record: Mapping) -> str:
    """Lay out the speed of embedding, and of the networks that one would use instead."""
    return markdown_table(
        {
            "embedding": title,
            "images/s": _speed(record, series),
            "transform against it": f"{median_ratio(record, 'transform', series)[0]:.2f}",
        }
        for series, title in EMBEDDING.items()
    )


def caption(record: Mapping) -> str:
    """Say in words what the numbers of the tables are."""
    settings, machine = record["settings"], record["machine"]
    n_images = settings["images"]
    return (
        f"Medians of {settings['repeats']} interleaved repeats, least and greatest in brackets; "
        f"64x64 LunarLander frames, z = {settings['z']}, {settings['threads']} threads on "
        f"{machine['cores']} cores of {machine['cpu']}, torch {machine['torch']}. Training is an "
        f"epoch of fit with default parameters, on {n_images:,} images, or "
        f"{n_images // DECODED_SHARE:,} where images are decoded; what fit does once (features "
        "and their principal components) is timed apart. The textbook loop runs the loss network "
        f"in every step: float32 NCHW, TensorDataset and DataLoader, batches of "
        f"{settings['textbook_batch']}, plain Adam. Training I-F-FP takes "
        f"{record['flops_per_image'] / 1e6:.0f} MFLOP per image and runs at "
        f"{_median(record, 'arithmetic') / 1e9:.0f} GFLOP/s; the fastest matrix product runs at "
        f"{_median(record, 'matrix product') / 1e9:.0f} GFLOP/s."
    )


def report(record: Mapping) -> str:
    """Lay out everything as Markdown."""
    sections = (training_table, ratio_table, embedding_table, caption)
    return "\n\n".join(section(record) for section in sections)


def block(results: Path) -> str:
    """Write the block of the user guide."""
    (record,) = read_records(results / "speed.jsonl")
    alt = "Images per second of training and of embedding, this package and plain PyTorch"
    return f"{report(record)}\n\n![{alt}](speed.png)"


def costs_block(results: Path) -> str:
    """Write the block of the user guide on the time of many images."""
    (record,) = read_records(results / "speed.jsonl")
    machine = record["machine"]
    features, epoch, embedding = (
        1e3 / _median(record, series)
        for series in ("loss network", f"package {DEFAULT}", "transform")
    )
    minutes = (features + 10 * epoch) * 1e6 / 60e3
    return (
        f"On {machine['cores']} cores of {machine['cpu']}, an image of 64 by 64 pixels takes "
        f"{features:.2f} ms in the loss network, once per fit, {epoch:.2f} ms in each epoch, and "
        f"{embedding:.2f} ms to embed. Time grows in proportion to the number of images: ten "
        f"epochs on a million take {minutes:.0f} minutes."
    )


def draw(record: Mapping):
    """Draw images per second as bars, with the least and the greatest value of the repeats."""
    from matplotlib.figure import Figure

    # Brightness and hatching differ for print in grey; colours of Okabe and Ito.
    package = {"color": "#0072B2", "edgecolor": "black"}
    other = {"color": "#E8D9A0", "edgecolor": "black", "hatch": "//"}
    figure = Figure(figsize=(12, 5.2), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)

    def bars(axes, places, series, **style):
        middle = np.array([_median(record, name) for name in series])
        spread = np.abs(np.array([_ends(record, name) for name in series]).T - middle)
        drawn = axes.barh(places, middle, xerr=spread, capsize=3, ecolor="0.35", **style)
        axes.bar_label(drawn, [f"{value:,.0f}" for value in middle], padding=5, fontsize=10)

    procedures = _procedures(record)
    places = np.arange(len(procedures))
    for who, label, shift, style in (
        ("package", "this package", -0.19, package),
        ("textbook", "textbook loop", 0.19, other),
    ):
        series = [f"{who} {name}" for name in procedures]
        bars(left, places + shift, series, height=0.38, label=label, **style)
    left.set_yticks(places, procedures, fontsize=11)
    left.set_title("Training", fontsize=13)
    left.legend(loc="lower right", fontsize=11)

    bars(right, [0], ["transform"], height=0.6, **package)
    bars(right, range(1, len(EMBEDDING)), list(EMBEDDING)[1:], height=0.6, **other)
    titles = [title.replace(", ", ",\n").replace(" (", "\n(") for title in EMBEDDING.values()]
    right.set_yticks(range(len(EMBEDDING)), titles, fontsize=11)
    right.set_title("Embedding", fontsize=13)
    for axes in (left, right):
        axes.invert_yaxis()
        axes.set_xlabel("images per second", fontsize=11)
        axes.margins(x=0.18)
        axes.set_xlim(left=0)
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
    return figure


def _procedures(record: Mapping) -> list[str]:
    return [name for name in PROCEDURES if f"textbook {name}" in record["measured"]]


def _median(record: Mapping, series: str) -> float:
    return statistics.median(record["measured"][series])


def _ends(record: Mapping, series: str) -> tuple[float, float]:
    values = record["measured"][series]
    return min(values), max(values)


def _speed(record: Mapping, series: str) -> str:
    least, greatest = _ends(record, series)
    return f"{_median(record, series):,.0f} ({least:,.0f} to {greatest:,.0f})"
