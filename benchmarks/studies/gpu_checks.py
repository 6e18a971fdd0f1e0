"""What `python -m benchmarks gpu` asks of a GPU; each check takes a `Bench` and returns a dict.

The dict is ready for JSON. Its "failed" lists what is not as it should be; without that, a check
only measures. What it cannot do at all, it raises.
"""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from skorch.callbacks import Callback

from benchmarks.methods import PROCEDURES, checkpointed_epochs
from skfp import FeaturePredictionEncoder

GIB = 2**30
# Root mean square of differences, relative to the spread of the embedding on the CPU. torch runs
# convolutions in TF32 on GPUs, with 10 bits after the point instead of 23; bfloat16 has 7.
EMBEDDING_TOLERANCES = {"float32": 1e-4, "TF32": 1e-2, "bfloat16": 5e-2}
# Of validation losses, relative: rounding errors grow from step to step.
TRAINING_TOLERANCES = {"float32": 0.02, "bfloat16": 0.05}
KILLED_TOLERANCE = 0.02


class Bench(NamedTuple):
    """Where checks run, and on how much."""

    device: str
    images: np.ndarray  # to train on; embeddings of the first 1,024 are compared
    n_embedded: int  # images whose transform is timed
    n_large: int  # images in a batch that takes more memory than there is
    z: int
    epochs: int
    compile_backend: str


def on_gpu() -> Bench:
    """Choose sizes that keep a GPU busy for a few minutes."""
    return Bench("cuda", blobs(8192), 65_536, 16_384, 128, 4, "inductor")


def on_cpu() -> Bench:
    """Choose the smallest sizes that run all the code; "eager" needs no compiler."""
    return Bench("cpu", blobs(40), 40, 40, 4, 2, "eager")


def blobs(n_images: int, side: int = 64) -> np.ndarray:
    """Make smooth random images: 8 by 8 random colours, interpolated.

    >>> blobs(2).shape, blobs(2).dtype
    ((2, 64, 64, 3), dtype('uint8'))
    """
    colours = np.random.default_rng(0).random((n_images, 8, 8, 3), dtype=np.float32)
    places = np.linspace(0, 7, side)
    weights = np.stack([np.interp(places, np.arange(8), unit) for unit in np.eye(8)], axis=1)
    weights = weights.astype(np.float32)
    images = np.einsum("ui,nijc,vj->nuvc", weights, colours, weights, optimize=True)
    return (255 * images).astype(np.uint8)


def embedding(bench: Bench, encoder: str) -> dict:
    """Compare embeddings with the CPU's, in each precision."""
    fitted = fit(bench, encoder=encoder, max_epochs=1)
    images = bench.images[:1024]
    expected = fitted.set_params(device="cpu").transform(images)
    fitted.set_params(device=bench.device)
    found = {"TF32": fitted.transform(images)}
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        found["float32"] = fitted.transform(images)
    network = copy.deepcopy(fitted.encoder_).to(bench.device)
    pixels = torch.from_numpy(images).to(bench.device).permute(0, 3, 1, 2) / 255
    with torch.inference_mode(), torch.autocast(bench.device, torch.bfloat16):
        found["bfloat16"] = network(pixels).float().cpu().numpy()
    spread = expected.std()
    differences = {
        name: float(np.sqrt(np.mean((found[name] - expected) ** 2)) / spread)
        for name in EMBEDDING_TOLERANCES
    }
    return judge(differences, EMBEDDING_TOLERANCES)


def training_precision(bench: Bench) -> dict:
    """Compare validation losses with that of the same fit in float32 on the CPU."""
    expected = fit(bench, device="cpu", net_params={"autocast": False}).validation_loss_
    losses = {
        "float32": fit(bench, net_params={"autocast": False}).validation_loss_,
        "bfloat16": fit(bench, net_params={"autocast": True}).validation_loss_,
    }
    differences = {name: abs(loss / expected - 1) for name, loss in losses.items()}
    return {"cpu_loss": expected, "losses": losses, **judge(differences, TRAINING_TOLERANCES)}


def judge(differences: Mapping[str, float], tolerances: Mapping[str, float]) -> dict:
    """Say which differences are larger than they may be.

    >>> judge({"a": 1.0, "b": 3.0}, {"a": 2.0, "b": 2.0})["failed"]
    ['b']
    """
    failed = [name for name, value in differences.items() if not value <= tolerances[name]]
    return {"differences": dict(differences), "tolerances": dict(tolerances), "failed": failed}


def training(bench: Bench, make: Callable, **parameters: Any) -> dict:
    """Time a fit and its epochs, validation included; the first epoch warms up."""
    start = time.perf_counter()
    fitted = fit(bench, make, **parameters)
    seconds = time.perf_counter() - start
    first, *others = (row["seconds"] for row in fitted.history_)
    n_trained = (1 - fitted.validation_fraction) * len(bench.images)
    return {
        "images_per_second": n_trained / statistics.median(others),
        "batch_size": fitted.batch_size_,
        "first_epoch_seconds": first,
        "fit_seconds": seconds,
        "validation_loss": fitted.validation_loss_,
    }


def compiled(bench: Bench) -> dict:
    """Time training with and without torch.compile."""
    on = {"compile": True, "compile__backend": bench.compile_backend}
    return {
        "off": training(bench, FeaturePredictionEncoder),
        "on": training(bench, FeaturePredictionEncoder, net_params=on),
    }


def transform(bench: Bench, encoder: str, repeats: int = 3) -> dict:
    """Time transform of the same images in host memory and in device memory."""
    fitted = fit(bench, encoder=encoder, max_epochs=1)
    host = np.resize(bench.images, (bench.n_embedded, *bench.images.shape[1:]))
    collections = {"host": host, "device": torch.from_numpy(host).to(bench.device)}
    speeds: dict[str, float] = {}
    embeddings = {}
    for name, images in collections.items():
        fitted.transform(images[:1024])  # warms up
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            embeddings[name] = torch.as_tensor(fitted.transform(images))
            synchronize(bench)
            seconds.append(time.perf_counter() - start)
        speeds[name] = len(images) / statistics.median(seconds)
    same_device = embeddings["device"].device == collections["device"].device
    equal = torch.allclose(embeddings["device"].cpu(), embeddings["host"], rtol=1e-3, atol=1e-3)
    failed = [
        *([] if same_device else ["an embedding of a tensor is on another device"]),
        *([] if equal else ["embeddings of an array and of a tensor differ"]),
    ]
    return {"images_per_second": speeds, "failed": failed}


def out_of_memory(bench: Bench) -> dict:
    """Fit with a batch that does not fit into memory, then with one that does."""
    images = np.resize(bench.images, (bench.n_large, *bench.images.shape[1:]))
    bench = bench._replace(images=images, epochs=1)
    with little_memory() as limit_gib:
        before = torch.cuda.memory_allocated()
        try:
            fit(bench, PROCEDURES["I-I-PW"].make, batch_size=len(images))
        except Exception as error:
            outcome = {"error_type": type(error).__name__, "error_message": str(error)}
        else:
            raise RuntimeError(f"A batch of {len(images):,} images fitted into {limit_gib} GiB.")
        gc.collect()
        left_behind = torch.cuda.memory_allocated() - before
        smaller = fit(bench, PROCEDURES["I-I-PW"].make)
    failed = [] if outcome["error_type"] == "OutOfMemoryError" else ["the type of the error"]
    return {
        "limit_gib": limit_gib,
        "batch_size": len(images),
        **outcome,
        "left_behind_gib": left_behind / GIB,
        "smaller_batch_size": smaller.batch_size_,
        "smaller_batch_loss": smaller.validation_loss_,
        "failed": failed,
    }


@contextmanager
def little_memory(gib: float = 1.0) -> Iterator[float]:
    """Let this process take no more than so much device memory, beyond what it holds."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties("cuda").total_memory
    fraction = (torch.cuda.memory_reserved() + gib * GIB) / total
    torch.cuda.set_per_process_memory_fraction(min(1.0, fraction))
    try:
        yield gib
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def killed(bench: Bench) -> dict:
    """Kill a fit in another process with SIGKILL, go on here, and compare with an unbroken fit."""
    bench = bench._replace(epochs=4)
    with tempfile.TemporaryDirectory() as folder:
        fit_elsewhere = partial(fit, bench, checkpoint_dir=folder, callbacks=[KillInEpoch(3)])
        process = multiprocessing.get_context("spawn").Process(target=fit_elsewhere)
        process.start()
        try:
            process.join()
        finally:
            process.kill()
        if process.exitcode != -signal.SIGKILL:
            raise RuntimeError(f"The fit ended with {process.exitcode}, before it was killed.")
        kept, counter = checkpointed_epochs(folder), CountEpochs()
        resumed = fit(bench, checkpoint_dir=folder, callbacks=[counter])
    expected = fit(bench).validation_loss_
    difference = abs(resumed.validation_loss_ / expected - 1)
    judged = judge({"loss": difference}, {"loss": KILLED_TOLERANCE})
    if (kept, counter.n_epochs, resumed.n_epochs_) != (2, 2, 4):
        judged["failed"].append("epochs")
    return {"epochs_kept": kept, "epochs_trained_after": counter.n_epochs, **judged}


class KillInEpoch(Callback):
    """Kill the process when an epoch begins."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Kill the process, without a chance to clean up."""
        if len(net.history) == self.epoch:
            os.kill(os.getpid(), signal.SIGKILL)


class CountEpochs(Callback):
    """Count the epochs that are trained in this process."""

    n_epochs = 0

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Count one more."""
        self.n_epochs += 1


def fit(bench: Bench, make: Callable = FeaturePredictionEncoder, **parameters: Any) -> Any:
    """Fit an estimator to the images; `make` makes it from its parameters."""
    ours = {"z": bench.z, "max_epochs": bench.epochs, "device": bench.device, "random_state": 0}
    return make(**{**ours, **parameters}).fit(bench.images)


def synchronize(bench: Bench) -> None:
    """Wait until the GPU has done all that was asked of it."""
    if bench.device == "cuda":
        torch.cuda.synchronize()


DEEP = partial(FeaturePredictionEncoder, loss_network="photo", encoder="pretrained")

# What matters most and takes least comes first: time may run out.
CHECKS: dict[str, Callable[[Bench], dict]] = {
    "embedding-image": partial(embedding, encoder="image"),
    "embedding-pretrained": partial(embedding, encoder="pretrained"),
    "training-precision": training_precision,
    **{
        f"training-{name}": partial(training, make=method.make)
        for name, method in PROCEDURES.items()
    },
    "training-deep": partial(training, make=DEEP),
    "transform-image": partial(transform, encoder="image"),
    "transform-pretrained": partial(transform, encoder="pretrained"),
    "killed": killed,
    "out-of-memory": out_of_memory,
    "compile": compiled,
}
# A CPU has no limit of memory that a process could set itself.
NEEDS_GPU = {"out-of-memory"}
