"""Training that outlives its process: its whole state is on disk after every epoch."""

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

from skfp._training.signature import differences
from skfp._utils import distributed
from skfp._utils.tensor_file import (
    Tensors,
    flatten_tensors,
    lists_to_tuples,
    nan_to_none,
    nest_tensors,
    none_to_nan,
    read_tensors,
    write_tensors,
)

FORMAT = 1
_FILE = "checkpoint.safetensors"
# What training needs of the rows of its history; callbacks may record what JSON cannot hold.
_NUMBERS = ("epoch", "dur", "train_loss", "train_loss_best", "valid_loss", "valid_loss_best")


class Checkpoint(Callback):
    """Writes the state of training after each epoch, and takes it up where there is one.

    It comes after the callbacks that end training: the epoch that ends it is not on disk. A fit
    that was stopped early trains its last epoch once more when it is called again, with the same
    result.

    Parameters
    ----------
    path : Path or None
        The file that keeps the state, written by the main process; None keeps nothing.
    tensors, header
        The state that is in it, empty where there is none.

    Attributes
    ----------
    n_epochs : int
        Epochs that are on disk.
    parts : mapping of str to dict of str to Tensor
        Tensors of the state that is on disk, part by part.
    seed : int or None
        Of the fit that is on disk, None where there is none.
    """

    def __init__(self, path: Path | None, tensors: Tensors, header: dict[str, Any]) -> None:
        self.path = path
        self.parts = nest_tensors(tensors)
        self.header = header
        self.seed: int | None = header.get("seed")

    @property
    def n_epochs(self) -> int:
        return len(self.header.get("history", ()))

    def identify(self, signature: Mapping[str, Any], seed: int) -> None:
        """Say what decides the fit, and refuse to go on with another one.

        Parameters
        ----------
        facts : mapping of str to plain values
        seed : int
            Of all that is random in the fit.

        Raises
        ------
        ValueError
            If the state on disk is of a fit with other facts; the message names them.
        """
        self.signature, self.seed = dict(signature), seed
        if changes := differences(self.header.get("facts", self.signature), self.signature):
            raise ValueError(
                f"The checkpoint in {str(self.path)!r}, of {self.n_epochs} epochs, is of another "
                f"fit: {'; '.join(changes)}. Pass what that fit was given to continue it (a data "
                "set must give the same images each time), or another checkpoint_dir to begin anew."
            )

    def follow(
        self, schedule: LRScheduler | None, stopping: EarlyStopping, target: torch.nn.Module | None
    ) -> None:
        """Say whose state is kept besides that of the net.

        Parameters
        ----------
        schedule : LRScheduler or None
        stopping : EarlyStopping
        target : nn.Module or None
            What turns features into targets.
        """
        self.schedule, self.stopping, self.target = schedule, stopping, target

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Take up the state that is on disk."""
        if not self.header:
            return
        net.module_.load_state_dict(self.parts["module"])
        load_optimizer_state(net.optimizer_, nest_tensors(self.parts["optimizer"]))
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
                for name, tensor in self.parts["best"].items()
            }
        for row in none_to_nan(self.header["history"]):
            net.history.append({**row, "batches": []})
        random = self.parts["random"]
        torch.set_rng_state(random["torch"])
        net.iterator_train__generator.set_state(random["batches"])
        if "cuda" in random and torch.device(net.device).type == "cuda":
            torch.cuda.set_rng_state(random["cuda"], net.device)
        self.parts.clear()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Put the state on disk; if that fails, warn and train on."""
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
            "torch": torch.get_rng_state(),
            "batches": net.iterator_train__generator.get_state(),
        }
        if torch.device(net.device).type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(net.device)
        adam = net.optimizer_.state_dict()
        parts = {
            "module": net.module_.state_dict(),
            "best": self.stopping.best_model_weights_ or {},
            "target": {} if self.target is None else self.target.state_dict(),
            "random": random,
            "optimizer": flatten_tensors(adam["state"]),
        }
        has_best = self.stopping.best_model_weights_ is not None
        header = {
            "format": FORMAT,
            "facts": self.signature,
            "seed": self.seed,
            "history": nan_to_none([{key: row[key] for key in _NUMBERS} for row in net.history]),
            "optimizer": [
                {key: value for key, value in group.items() if key != "params"}
                for group in adam["param_groups"]
            ],
            "schedule": None if self.schedule is None else self.schedule.lr_scheduler_.state_dict(),
            "stopping": {
                "misses": self.stopping.misses_,
                "best_epoch": self.stopping.best_epoch_,
                "best_loss": self.stopping.dynamic_threshold_ if has_best else None,
            },
        }
        tensors = {name: tensor.detach().cpu() for name, tensor in flatten_tensors(parts).items()}
        write_tensors(path, tensors, header)
        self.header = header


@contextmanager
def open_checkpoint(folder: str | os.PathLike[str] | None) -> Iterator[Checkpoint]:
    """Open a folder of checkpoints for one fit.

    Parameters
    ----------
    folder : str, path-like or None
        Made where it is missing. None keeps nothing. Of several processes that train together, the
        main one has the folder, and the others what is in it, or its error.

    Yields
    ------
    checkpoint : Checkpoint

    Raises
    ------
    ValueError
        If another fit is using the folder, or what is in it cannot be read.
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
    """Lock a folder for as long as it is held, and read what is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held.enter_context(FileLock(folder / "checkpoint.lock").acquire(timeout=0))
    except Timeout as error:
        raise ValueError(
            f"Another fit is using checkpoint_dir={str(folder)!r} right now. Pass a folder of its "
            "own to each fit."
        ) from error
    # Left behind by processes that were killed while they wrote.
    for unfinished in folder.glob(f".{_FILE}-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    path = folder / _FILE
    if not path.exists():
        return path, {}, {}
    wrong = f"Cannot go on from {str(path)!r}"
    advice = "Delete it, or pass another checkpoint_dir, to begin anew."
    try:
        tensors, header = read_tensors(path)
    except ValueError as error:
        raise ValueError(f"{wrong}: {error}. {advice}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{wrong}: another version of skfp has written it. {advice}")
    return path, tensors, header


def load_optimizer_state(optimizer: Optimizer, moments: Mapping[Any, Tensors]) -> None:
    """Give Adam its memory of earlier steps back.

    Parameters
    ----------
    optimizer : Optimizer
    moments : mapping of int to dict of str to Tensor
        Parameter by parameter, numbered in figures or as in `split_parts`. Copied.
    """
    # Fused Adam walks weights and moments side by side in memory: they must be laid out alike.
    laid_out = {
        int(parameter): {
            name: moment.clone(
                memory_format=torch.channels_last if moment.ndim == 4 else torch.contiguous_format
            )
            for name, moment in moments_of_parameter.items()
        }
        for parameter, moments_of_parameter in moments.items()
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": laid_out})
