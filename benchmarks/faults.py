"""Break things while the package works, and count what is lost.

Every fault is a real one: processes are killed with SIGKILL, disks are full or read-only file
systems, bytes of files are flipped. Only a GPU that is out of memory is simulated. The work that a
fault may cost is counted in the unit that the table names; an epoch that was not over when its
process died is trained again, and counts as no loss.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from skorch.callbacks import Callback

from benchmarks.records import (
    describe_machine,
    markdown_table,
    read_records,
    write_record,
)
from skfp import FeaturePredictionEncoder
from skfp._utils.tensor_file import read_tensors
from skfp.datasets import fetch_lunarlander

EPOCHS = 6


class Outcome(NamedTuple):
    """What came of a fault.

    Attributes
    ----------
    injected : int
        How often it happened.
    lost : int
        Units of work that were done before it and had to be done again, or were never done.
    """

    injected: int
    lost: int


class Unavailable(Exception):
    """The machine does not allow the fault."""


def frames() -> np.ndarray:
    """Return a few real images, the same in every process."""
    with tempfile.TemporaryDirectory() as home:
        return fetch_lunarlander(n_rollouts=6, n_steps=30, stride=3, data_home=home).images


def make(**parameters) -> FeaturePredictionEncoder:
    """Make the encoder that all faults meet."""
    settings = {"z": 4, "max_epochs": EPOCHS, "batch_size": 16, "random_state": 0}
    return FeaturePredictionEncoder(**{**settings, **parameters})


def fit_to_file(images: str, out: str, checkpoint_dir: str) -> None:
    """Fit in a process of its own: say when training starts, save the encoder when it is over."""
    encoder = make(checkpoint_dir=checkpoint_dir or None)
    array = np.load(images)
    Path(out).with_suffix(".started").touch()
    encoder.fit(array).save(out)


def start(function: Callable, *arguments) -> subprocess.Popen:
    """Run a function of this module in a new process."""
    code = f"import sys; from benchmarks.faults import {function.__name__} as f; f(*sys.argv[1:])"
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )


def wait_until(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    """Wait for a condition, or for the end of a process."""
    while not condition() and process.poll() is None:
        time.sleep(0.001)


def kill(process: subprocess.Popen) -> bool:
    """Kill a process with SIGKILL; tell whether it was still at work."""
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def same_weights(one: Path, other: Path) -> bool:
    """Compare two saved encoders bit for bit."""
    (first, _), (second, _) = map(read_tensors, (one, other))
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


def epochs_on_disk(folder: Path) -> int:
    """Count the epochs that a checkpoint holds; a file that cannot be read holds none."""
    path = folder / "checkpoint.safetensors"
    return len(read_tensors(path)[1]["history"]) if path.exists() else 0


@contextlib.contextmanager
def small_disk(folder: Path, kib: int, options: str = "") -> Iterator[Path]:
    """Mount a file system of so many KiB in memory.

    Raises
    ------
    Unavailable
        If this user or system may not mount one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k{options}", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"no file system can be mounted here ({error})") from error
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def expect_warning(text: str) -> Iterator[None]:
    """Check that a fault is told.

    Raises
    ------
    AssertionError
        If no warning holds the text.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    told = [str(warning.message) for warning in caught]
    assert any(text in message for message in told), f"{text!r} is not among {told}"


class Killed:
    """Fits that are killed and started again, and one that is not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "images.npy"
        np.save(self.images, frames())
        self.unbroken = folder / "unbroken.safetensors"
        process = start(fit_to_file, self.images, self.unbroken, "")
        wait_until(self.unbroken.with_suffix(".started").exists, process)
        begun = time.monotonic()
        assert process.wait() == 0
        self.seconds = time.monotonic() - begun

    def run(self, times: int, strike: Callable[[Path, subprocess.Popen], None]) -> Outcome:
        """Kill fits until that has happened often enough, each until it is done.

        Parameters
        ----------
        times : int
        strike : callable
            Gets the folder of the checkpoint and the process, and returns when it is time.
        """
        injected = lost = n_fits = 0
        while injected < times:
            n_fits += 1
            checkpoints = self.folder / f"checkpoints-{n_fits}"
            out = self.folder / f"encoder-{n_fits}.safetensors"
            while not out.exists():
                before = epochs_on_disk(checkpoints)
                process = start(fit_to_file, self.images, out, checkpoints)
                if injected < times:
                    wait_until(out.with_suffix(".started").exists, process)
                    strike(checkpoints, process)
                    injected += kill(process)
                    out.with_suffix(".started").unlink()
                else:
                    assert process.wait() == 0
                lost += max(before - epochs_on_disk(checkpoints), 0)
            # A fit that ends elsewhere than the unbroken one has lost all that it did.
            lost += 0 if same_weights(out, self.unbroken) else EPOCHS
        return Outcome(injected, lost)


def killed_at_any_moment(times: int, folder: Path, chance: random.Random) -> Outcome:
    """Kill fits at random moments."""
    fits = Killed(folder)
    return fits.run(times, lambda *_: time.sleep(chance.uniform(0, fits.seconds)))


def killed_while_writing(times: int, folder: Path, chance: random.Random) -> Outcome:
    """Kill fits while a checkpoint is being written."""

    def strike(checkpoints: Path, process: subprocess.Popen) -> None:
        skipped = chance.randrange(EPOCHS // 2)
        for _ in range(skipped):
            wait_until(lambda: any(checkpoints.glob(".checkpoint*")), process)
            wait_until(lambda: not any(checkpoints.glob(".checkpoint*")), process)
        wait_until(lambda: any(checkpoints.glob(".checkpoint*/*")), process)

    return Killed(folder).run(times, strike)


def interrupted(times: int, folder: Path, chance: random.Random) -> Outcome:
    """Interrupt fits (Ctrl-C): each keeps its best epoch and continues when called again."""

    class Interrupt(Callback):
        def __init__(self, epoch: int) -> None:
            self.epoch = epoch

        def on_batch_end(self, net, training, **kwargs):
            if training and len(net.history) == self.epoch:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)  # a signal arrives between two instructions

    # A process in the background is started with this signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    images, lost = frames(), 0
    unbroken = make().fit(images)
    for number in range(times):
        epoch = chance.randrange(2, EPOCHS)
        encoder = make(checkpoint_dir=folder / str(number), callbacks=[Interrupt(epoch)])
        with expect_warning("Training was interrupted"):
            encoder.fit(images)
        lost += (epoch - 1) - encoder.n_epochs_
        again = make(checkpoint_dir=folder / str(number)).fit(images)
        lost += 0 if _same_embedding(again, unbroken, images) else EPOCHS
    return Outcome(times, lost)


def checkpoint_on_full_disk(times: int, folder: Path, chance: random.Random) -> Outcome:
    """Fill the disk under a checkpoint: training goes on, the last whole checkpoint stays."""
    images, lost = frames(), 0
    unbroken = make().fit(images)
    for number in range(times):
        with small_disk(folder / str(number), kib=100_000) as disk:
            filler = _FillDisk(disk, epoch=chance.randrange(2, EPOCHS))
            with expect_warning("could not be written"):
                encoder = make(checkpoint_dir=disk, callbacks=[filler]).fit(images)
            lost += 0 if _same_embedding(encoder, unbroken, images) else EPOCHS
            lost += max(filler.epoch - 1 - epochs_on_disk(disk), 0)
            (disk / "filler").unlink()
            again = make(checkpoint_dir=disk).fit(images)
            lost += 0 if _same_embedding(again, unbroken, images) else EPOCHS
    return Outcome(times, lost)


class _FillDisk(Callback):
    """Leaves no byte free from an epoch on."""

    def __init__(self, disk: Path, epoch: int) -> None:
        self.disk, self.epoch = disk, epoch

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch:
            fill(self.disk)


def fill(disk: Path) -> None:
    """Write zeros until there is no space left."""
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def cache_on_full_disk(times: int, folder: Path, chance: random.Random) -> Outcome:
    """Give the cache a disk that is too small: what is seen is computed, and the fit goes on."""
    images, lost = frames(), 0
    unbroken = make().fit(images)
    for number in range(times):
        with small_disk(folder / str(number), kib=chance.randrange(8, 100)) as disk:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                encoder = make(memory=disk / "memory").fit(images)
            lost += 0 if _same_embedding(encoder, unbroken, images) else EPOCHS
    return Outcome(times, lost)


def result_on_full_disk(times: int, folder: Path, chance: random.Random) -> Outcome:
    """Fill the disk under a result file and a saved encoder: the old ones stay, an error tells."""
    images, lost = frames(), 0
    encoder = make().fit(images)
    for number in range(times):
        with small_disk(folder / str(number), kib=60_000) as disk:
            record, saved = disk / "record.json", disk / "encoder.safetensors"
            write_record(record, {"a": 1})
            encoder.save(saved)
            fill(disk)
            for write in (
                lambda path=record: write_record(
                    path, {"a": "long" * chance.randrange(5000, 9000)}
                ),
                lambda path=saved: encoder.save(path),
            ):
                try:
                    write()
                except OSError:
                    continue
                lost += 1  # as nothing was told
            lost += read_records(disk) != [{"a": 1}]
            loaded = FeaturePredictionEncoder.load(saved)
            lost += not _same_embedding(loaded, encoder, images)
            lost += len(list(disk.glob(".*")))
    return Outcome(2 * times, lost)


def read_only_home(times: int, folder: Path, chance: random.Random) -> Outcome:
    """Let the cache and the data sets be on a read-only disk: both do without, and say so."""
    images, lost = frames(), 0
    unbroken = make().fit(images)
    for number in range(times):
        with small_disk(folder / str(number), kib=1000, options=",ro") as disk:
            with expect_warning("cannot be written"):
                encoder = make(memory=disk / "memory").fit(images)
            lost += 0 if _same_embedding(encoder, unbroken, images) else EPOCHS
            with expect_warning("could not be cached"):
                data = fetch_lunarlander(n_rollouts=6, n_steps=30, stride=3, data_home=disk)
            lost += 0 if np.array_equal(data.images, images) else 1
            try:
                make(checkpoint_dir=disk / "checkpoints").fit(images)
                lost += 1
            except OSError:
                pass  # before anything is trained
    return Outcome(3 * times, lost)


def damaged_cache(times: int, folder: Path, chance: random.Random) -> Outcome:
    """Flip a byte of a cache entry: it is computed again."""
    images, lost = frames(), 0
    unbroken = make().fit(images)
    for number in range(times):
        memory = folder / str(number)
        make(memory=memory, max_epochs=1).fit(images)
        entry = chance.choice([p for p in memory.rglob("output.pkl") if p.stat().st_size > 10_000])
        content = bytearray(entry.read_bytes())
        content[chance.randrange(1000, len(content) - 1000)] ^= 1 << chance.randrange(8)
        entry.write_bytes(content)
        with expect_warning("damaged"):
            encoder = make(memory=memory).fit(images)
        lost += 0 if _same_embedding(encoder, unbroken, images) else EPOCHS
    return Outcome(times, lost)


def fit_with_memory(images: str, out: str, memory: str) -> None:
    """Fit with a cache, in a process of its own."""
    make(memory=memory).fit(np.load(images)).save(out)


def shared_cache(times: int, folder: Path, chance: random.Random) -> Outcome:
    """Let two processes use one cache at once, and kill a third in the middle of it."""
    np.save(folder / "images.npy", images := frames())
    unbroken, lost = make().fit(images), 0
    for number in range(times):
        outs = [folder / f"encoder-{number}-{name}.safetensors" for name in "abc"]
        arguments = folder / "images.npy", folder / f"memory-{number}"
        processes = [start(fit_with_memory, arguments[0], out, arguments[1]) for out in outs]
        wait_until(arguments[1].exists, processes[0])
        time.sleep(chance.uniform(0, 0.3))
        kill(processes[0])
        for process, out in zip(processes[1:], outs[1:], strict=True):
            lost += process.wait() != 0
            lost += not _same_embedding(FeaturePredictionEncoder.load(out), unbroken, images)
    return Outcome(times, lost)


def run_comparison(out: str, data_home: str) -> None:
    """Run a tiny comparison with two workers, in a process of its own."""
    from benchmarks.__main__ import main

    status = main(
        [
            *("run", "--dataset", "lunarlander", "--procedures", "pca", "mean", "frozen"),
            *("--z", "4", "--repeats", "2", "--images", "30", "60", "60", "--n-jobs", "2"),
            *("--max-epochs", "1", "--out", out, "--data-home", data_home),
        ]
    )
    sys.exit(status)


def killed_worker(times: int, folder: Path, chance: random.Random) -> Outcome:
    """Kill a worker of the comparison: the same command does what is missing, and no more."""
    lost = 0
    for number in range(times):
        out = folder / str(number)
        process = start(run_comparison, out, folder / "home")
        wait_until(lambda out=out: any(out.glob("*.json")), process)
        workers = _children(process.pid)
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
        says_done = process.wait() == 0  # as where the worker had nothing left to do
        lost += says_done and len(list(out.glob("*.json"))) != 6
        kept = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
        assert start(run_comparison, out, folder / "home").wait() == 0
        lost += sum(path.stat().st_mtime_ns != changed for path, changed in kept.items())
        names = sorted(path.name for path in out.glob("*.json"))
        lost += abs(len(names) - 6)  # cells, one of them without an embedding, twice
    return Outcome(times, lost)


def _children(pid: int) -> list[int]:
    """List the joblib workers below a process."""
    found = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True)
    rows = [line.split(None, 2) for line in found.stdout.splitlines()[1:]]
    return [int(row[0]) for row in rows if int(row[1]) == pid and "LokyProcess" in row[2]]


def out_of_memory(times: int, folder: Path, chance: random.Random) -> Outcome:
    """Simulate a device that is out of memory: batches then pass through in parts."""

    class SmallDevice(Callback):
        def __init__(self, n_images: int) -> None:
            self.n_images = n_images

        def on_train_begin(self, net, **kwargs):
            def refuse(module, inputs):
                if module.training and len(inputs[0]) > self.n_images:
                    raise torch.OutOfMemoryError("simulated")

            net.module_.register_forward_pre_hook(refuse)

    images, lost = frames(), 0
    for _ in range(times):
        with expect_warning("out of memory"):
            encoder = make(callbacks=[SmallDevice(chance.randrange(2, 16))]).fit(images)
        lost += EPOCHS - encoder.n_epochs_
    return Outcome(times, lost)


def diverged(times: int, folder: Path, chance: random.Random) -> Outcome:
    """Make the loss NaN: training stops, and the best epoch before is kept."""

    class Poison(Callback):
        def __init__(self, epoch: int) -> None:
            self.epoch = epoch

        def on_batch_begin(self, net, training, **kwargs):
            if training and len(net.history) == self.epoch:
                with torch.no_grad():
                    next(net.module_.decoder.parameters()).fill_(float("nan"))

    images, lost = frames(), 0
    for _ in range(times):
        epoch = chance.randrange(2, EPOCHS)
        with expect_warning("Training diverged"):
            encoder = make(callbacks=[Poison(epoch)]).fit(images)
        best = min(range(epoch - 1), key=lambda row: encoder.history_[row]["valid_loss"])
        lost += encoder.best_epoch_ != best + 1
        lost += not np.isfinite(encoder.transform(images)).all()
    return Outcome(times, lost)


def _same_embedding(one, other, images: np.ndarray) -> bool:
    return np.array_equal(one.transform(images), other.transform(images))


class Fault(NamedTuple):
    """A row of the table."""

    title: str
    inject: Callable[[int, Path, random.Random], Outcome]
    unit: str
    # Each takes seconds, as it starts a process.
    times: int


FAULTS = {
    "killed": Fault("fit killed at a random moment (SIGKILL)", killed_at_any_moment, "epochs", 20),
    "killed-writing": Fault(
        "fit killed while it writes a checkpoint (SIGKILL)", killed_while_writing, "epochs", 20
    ),
    "interrupted": Fault("fit interrupted (Ctrl-C)", interrupted, "epochs", 10),
    "full-checkpoint": Fault("disk full under a checkpoint", checkpoint_on_full_disk, "epochs", 10),
    "full-cache": Fault("disk full under the cache", cache_on_full_disk, "epochs", 10),
    "full-result": Fault(
        "disk full under a result file and a saved encoder", result_on_full_disk, "files", 10
    ),
    "read-only": Fault(
        "cache, data sets and checkpoints on a read-only disk", read_only_home, "epochs", 5
    ),
    "damaged-cache": Fault("a bit of a cache entry flipped", damaged_cache, "epochs", 20),
    "shared-cache": Fault(
        "one cache, three processes, one of them killed", shared_cache, "encoders", 5
    ),
    "killed-worker": Fault("worker of the comparison killed", killed_worker, "records", 5),
    "out-of-memory": Fault("GPU out of memory (simulated)", out_of_memory, "epochs", 10),
    "diverged": Fault("loss becomes NaN", diverged, "epochs", 10),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    add("--times", type=int, help="how often each is injected, in place of its own number")
    add("--seed", type=int, default=0, help="of the random moments and places")
    add("--out", type=Path, default=Path("benchmarks/results/faults"), help="folder of the records")


def main(args: argparse.Namespace) -> int:
    """Inject faults, write a record each, print the table; return 1 if anything was lost."""
    for name in args.faults:
        fault, chance = FAULTS[name], random.Random(args.seed)
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcome = fault.inject(args.times or fault.times, Path(folder), chance)
            except Unavailable as error:
                print(f"{fault.title}: not injected, {error}", file=sys.stderr)
                continue
        record = {"fault": name, "seed": args.seed, "machine": describe_machine()}
        write_record(args.out / f"{name}.json", {**record, **outcome._asdict()})
        print(f"{fault.title}: {outcome.injected} times, {outcome.lost} lost", flush=True)
    records = read_records(args.out)
    print(f"\n{table(records)}")
    return int(any(record["lost"] for record in records))


def table(records: list[dict]) -> str:
    """Lay the records out as Markdown, in the order of `FAULTS`."""
    known = {record["fault"]: record for record in records}
    return markdown_table(
        {
            "fault": fault.title,
            "times injected": str(known[name]["injected"]),
            "work lost": f"{known[name]['lost']} {fault.unit}",
        }
        for name, fault in FAULTS.items()
        if name in known
    )


def readme_block(root: Path, folder: Path) -> str:
    """Make the README's block from the committed records."""
    return table(read_records(root / folder))
