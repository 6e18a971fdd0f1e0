"""Training that outlives its process: its whole state is on disk after every epoch."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch.optim import Optimizer

from skfp import processes
from skfp.tensorfile import Tensors, read_tensors, write_tensors

FORMAT = 1
_FILE = "checkpoint.safetensors"


class Checkpoint(Callback):
    """Writes the state of training after each epoch, and takes it up where there is one.

    It comes after the callbacks that end training, so that an epoch is on disk only when all is
    known that it has changed.

    Parameters
    ----------
    folder : Path or None
        Where the state is kept; None keeps nothing.

    Attributes
    ----------
    n_epochs : int
        Epochs that are on disk.
    seed : int or None
        Of the fit that is on disk, None where there is none.
    """

    def __init__(self, folder: Path | None) -> None:
        self.path = None if folder is None else folder / _FILE
        self.header: dict[str, Any] = {}
        self.tensors: Tensors = {}
        self.seed: int | None = None
        if self.path is not None and self.path.exists():
            self._read(self.path)
        # One process has the folder; all go on from what is in it.
        state = (self.header, self.tensors, self.seed)
        self.header, self.tensors, self.seed = processes.agreed(state)

    def _read(self, path: Path) -> None:
        wrong = f"Cannot go on from {str(path)!r}"
        advice = "Delete it, or pass another checkpoint_dir, to begin anew."
        try:
            self.tensors, self.header = read_tensors(path)
        except ValueError as error:
            raise ValueError(f"{wrong}: {error}. {advice}") from error
        if not isinstance(self.header, dict) or self.header.get("format") != FORMAT:
            raise ValueError(f"{wrong}: another version of skfp has written it. {advice}")
        self.seed = self.header["seed"]

    @property
    def n_epochs(self) -> int:
        return len(self.header.get("history", ()))

    def part(self, name: str) -> Tensors:
        """Return the tensors of one part of the state that is on disk."""
        prefix = f"{name}."
        return {
            key.removeprefix(prefix): tensor
            for key, tensor in self.tensors.items()
            if key.startswith(prefix)
        }

    def identify(self, facts: Mapping[str, Any], seed: int) -> None:
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
        self.facts, self.seed = dict(facts), seed
        known = self.header.get("facts", self.facts)
        differences = [
            f"{name} was {known.get(name)!r} and is {self.facts.get(name)!r}"
            for name in {**known, **self.facts}
            if known.get(name) != self.facts.get(name)
        ]
        if differences:
            raise ValueError(
                f"The checkpoint in {str(self.path)!r}, of {self.n_epochs} epochs, is of another "
                f"fit: {'; '.join(differences)}. Pass what that fit was given to continue it, or "
                "another checkpoint_dir to begin anew."
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
        net.module_.load_state_dict(self.part("module"))
        moments: dict[int, Tensors] = {}
        for name, moment in self.part("optimizer").items():
            parameter, _, kind = name.partition(".")
            moments.setdefault(int(parameter), {})[kind] = moment
        load_moments(net.optimizer_, moments)
        for group, values in zip(
            net.optimizer_.param_groups, self.header["optimizer"], strict=True
        ):
            group.update({key: _tuples(value) for key, value in values.items()})
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
                for name, tensor in self.part("best").items()
            }
        for row in self.header["history"]:
            net.history.append({**row, "batches": []})
        random = self.part("random")
        torch.set_rng_state(random["torch"])
        net.iterator_train__generator.set_state(random["batches"])
        if "cuda" in random and torch.device(net.device).type == "cuda":
            torch.cuda.set_rng_state(random["cuda"], net.device)
        self.tensors = {}

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Put the state on disk; if that fails, warn and train on."""
        if self.path is None:
            return
        try:
            self._write(net)
        except OSError as error:
            warnings.warn(
                f"The checkpoint of epoch {len(net.history)} could not be written ({error}). "
                f"Training goes on; {str(self.path)!r} keeps epoch {self.n_epochs}. Make room, or "
                "interrupt and pass a checkpoint_dir that can be written.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _write(self, net: NeuralNet) -> None:
        assert self.path is not None
        random = {
            "torch": torch.get_rng_state(),
            "batches": net.iterator_train__generator.get_state(),
        }
        if torch.device(net.device).type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(net.device)
        adam = net.optimizer_.state_dict()
        parts: dict[str, Mapping[Any, torch.Tensor]] = {
            "module": net.module_.state_dict(),
            "best": self.stopping.best_model_weights_ or {},
            "target": {} if self.target is None else self.target.state_dict(),
            "random": random,
            **{f"optimizer.{index}": moments for index, moments in adam["state"].items()},
        }
        has_best = self.stopping.best_model_weights_ is not None
        header = {
            "format": FORMAT,
            "facts": self.facts,
            "seed": self.seed,
            "history": [
                {key: value for key, value in row.items() if key != "batches"}
                for row in net.history
            ],
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
        tensors = {
            f"{part}.{name}": tensor.detach().cpu()
            for part, named in parts.items()
            for name, tensor in named.items()
        }
        write_tensors(self.path, tensors, header)
        self.header = header


@contextmanager
def open_checkpoint(folder: str | os.PathLike[str] | None) -> Iterator[Checkpoint]:
    """Open a folder of checkpoints for one fit.

    Parameters
    ----------
    folder : str, path-like or None
        Made where it is missing. None keeps nothing. Of several processes that train together, the
        main one has the folder, and the others what is in it.

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
    if folder is None or not processes.is_main():
        yield Checkpoint(None)
        return
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / "checkpoint.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"Another fit is using checkpoint_dir={os.fspath(folder)!r} right now. Pass a folder "
            "of its own to each fit."
        ) from error
    try:
        # Left behind by processes that were killed while they wrote.
        for unfinished in path.glob(f".{_FILE}-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        yield Checkpoint(path)
    finally:
        lock.release()


def load_moments(optimizer: Optimizer, moments: Mapping[int, Tensors]) -> None:
    """Give Adam its memory of earlier steps back.

    Parameters
    ----------
    optimizer : Optimizer
    moments : mapping of int to dict of str to Tensor
        Parameter by parameter.
    """
    # Fused Adam walks weights and moments side by side in memory: they must be laid out alike.
    laid_out = {
        parameter: {
            name: moment.to(memory_format=torch.channels_last) if moment.ndim == 4 else moment
            for name, moment in moments_of_parameter.items()
        }
        for parameter, moments_of_parameter in moments.items()
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": laid_out})


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
