"""Checkpoints: the whole state of training, written after every epoch and read to go on."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch.optim import Optimizer

from .._utils import distributed
from .._utils.tensor_file import (
    Tensors,
    flatten_tensors,
    lists_to_tuples,
    nan_to_none,
    nest_tensors,
    none_to_nan,
    read_tensors,
    write_tensors,
)
from .clock import Clock

FORMAT = 2
_FILE = "checkpoint.safetensors"
# Columns of the history that training needs; callbacks may record what JSON cannot hold.
_NUMBERS = ("epoch", "dur", "train_loss", "train_loss_best", "valid_loss", "valid_loss_best")


class Checkpoint(Callback):
    """Write the state of training after each epoch, and restore it when training begins.

    It comes after the callbacks that end training, so the epoch that ends it is not written. A fit
    that was stopped early trains its last epoch once more when it is called again, with the same
    result.

    Parameters
    ----------
    path : Path or None
        The file to write; None writes nothing.
    tensors, header
        The state in it, empty if there is none.
    """

    def __init__(self, path: Path | None, tensors: Tensors, header: dict[str, Any]) -> None:
        self.path = path
        self.tensors = nest_tensors(tensors)
        self.header = header
        self.seed: int | None = header.get("seed")
        self.projection: torch.nn.Module | None = None

    @property
    def n_epochs(self) -> int:
        """Number of epochs in the file."""
        return len(self.header.get("history", ()))

    def keep(self, schedule: LRScheduler | None, stopping: EarlyStopping, clock: Clock) -> None:
        """Set the callbacks whose state is part of the checkpoint, and the clock, which goes on."""
        self.schedule, self.stopping, self.clock = schedule, stopping, clock
        if self.header:
            clock.load_state_dict(self.header["clock"])

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Restore the state in the file."""
        if not self.header:
            return
        net.module_.load_state_dict(self.tensors["module"])
        load_optimizer_state(net.optimizer_, nest_tensors(self.tensors["optimizer"]))
        for group, values in zip(
            net.optimizer_.param_groups, self.header["optimizer"], strict=True
        ):
            group.update(lists_to_tuples(values))
        if self.schedule is not None:
            self.schedule.lr_scheduler_.load_state_dict(self.header["schedule"])
        stopping = self.header["stopping"]
        self.stopping.misses_ = stopping["misses"]
        self.stopping.best_epoch_ = stopping["best_epoch"]
        if stopping["best_loss"] is not None:
            self.stopping.dynamic_threshold_ = stopping["best_loss"]
            self.stopping.best_model_weights_ = {
                # Laid out as the weights that they may replace.
                name: torch.empty_like(net.module_.state_dict()[name]).copy_(tensor)
                for name, tensor in self.tensors["best"].items()
            }
        for row in none_to_nan(self.header["history"]):
            net.history.append({**row, "batches": []})
        random = self.tensors["random"]
        if len(random["training"]) == len(net.module_.generator.get_state()):  # the same device
            net.module_.generator.set_state(random["training"])
        net.iterator_train__generator.set_state(random["batches"])
        self.tensors.clear()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Write the state; if that fails, warn and train on."""
        if self.path is None or not distributed.is_main():
            return
        try:
            self._write(net, self.path)
        except OSError as error:
            warnings.warn(
                f"The checkpoint of epoch {len(net.history)} could not be written ({error}). "
                f"Training goes on; {str(self.path)!r} keeps epoch {self.n_epochs}. Make room, or "
                "interrupt and pass a checkpoint_dir that can be written.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _write(self, net: NeuralNet, path: Path) -> None:
        random = {
            "training": net.module_.generator.get_state(),
            "batches": net.iterator_train__generator.get_state(),
        }
        adam = net.optimizer_.state_dict()
        tensors = {
            "module": net.module_.state_dict(),
            "best": self.stopping.best_model_weights_ or {},
            "projection": {} if self.projection is None else self.projection.state_dict(),
            "random": random,
            "optimizer": flatten_tensors(adam["state"]),
        }
        has_best = self.stopping.best_model_weights_ is not None
        header = {
            "format": FORMAT,
            "seed": self.seed,
            "history": nan_to_none([{key: row[key] for key in _NUMBERS} for row in net.history]),
            "optimizer": [
                {key: value for key, value in group.items() if key != "params"}
                for group in adam["param_groups"]
            ],
            "schedule": None if self.schedule is None else self.schedule.lr_scheduler_.state_dict(),
            "clock": self.clock.state_dict(),
            "stopping": {
                "misses": self.stopping.misses_,
                "best_epoch": self.stopping.best_epoch_,
                "best_loss": self.stopping.dynamic_threshold_ if has_best else None,
            },
        }
        flat = {name: tensor.detach().cpu() for name, tensor in flatten_tensors(tensors).items()}
        write_tensors(path, flat, header)
        self.header = header


@contextmanager
def open_checkpoint(folder: str | os.PathLike[str] | None) -> Iterator[Checkpoint]:
    """Open the folder of one fit; None writes nothing.

    Of several processes that train together, the main one has the folder, and the others have its
    content, or its error.

    Raises
    ------
    ValueError
        If another fit is using the folder, or its content cannot be read.
    OSError
        If the folder cannot be made or written.
    """
    with ExitStack() as held:
        found: Any = (None, {}, {})
        if folder is not None and distributed.is_main():
            try:
                found = _open(Path(folder), held)
            except (OSError, ValueError) as error:
                found = error
        # No process goes on where the main one does not: the others would wait for it forever.
        found = distributed.broadcast(found)
        if isinstance(found, Exception):
            raise found
        yield Checkpoint(*found)


def _open(folder: Path, held: ExitStack) -> tuple[Path, Tensors, dict[str, Any]]:
    """Lock a folder until `held` is closed, and read its content."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held.enter_context(FileLock(folder / "checkpoint.lock").acquire(timeout=0))
    except Timeout as error:
        raise ValueError(
            f"The same fit is running right now, with the checkpoint {str(folder)!r}. Pass another "
            "checkpoint_dir."
        ) from error
    # Left behind by processes that were killed while they wrote.
    for unfinished in folder.glob(f".{_FILE}-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    path = folder / _FILE
    if not path.exists():
        return path, {}, {}
    wrong = f"Cannot continue from {str(path)!r}"
    advice = "Delete it, or pass another checkpoint_dir, to start again."
    try:
        tensors, header = read_tensors(path)
    except ValueError as error:
        raise ValueError(f"{wrong}: {error}. {advice}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{wrong}: it is from another version of skfp. {advice}")
    return path, tensors, header


def load_optimizer_state(optimizer: Optimizer, state: Mapping[Any, Tensors]) -> None:
    """Load a copy of the optimizer's state of each parameter, by its number (int or str)."""
    # Fused Adam walks weights and moments side by side in memory: they must be laid out alike.
    laid_out = {
        int(parameter): {
            name: tensor.clone(
                memory_format=torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
            )
            for name, tensor in tensors.items()
        }
        for parameter, tensors in state.items()
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": laid_out})
