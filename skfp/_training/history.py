"""What came of training: its epochs, the best of them, and warnings if it ended badly."""

from __future__ import annotations

import math
import warnings
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import EarlyStopping

from .._utils import distributed
from .net import AutoencoderNet


def completed_epochs(net: NeuralNet) -> list[dict[str, Any]]:
    """List the epochs that were trained and validated, with the main process's seconds."""
    completed = [
        {
            "epoch": row["epoch"],
            "train_loss": row["train_loss"],
            "valid_loss": row["valid_loss"],
            "seconds": row["dur"],
        }
        for row in net.history
        if "valid_loss" in row
    ]
    return distributed.broadcast(completed)


def select_best_epoch(
    net: AutoencoderNet, max_epochs: int | None, start: Any = None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """List all epochs and find the one of the lowest validation loss.

    Parameters
    ----------
    net : AutoencoderNet
        After training.
    max_epochs : int or None
        How many epochs were asked for, if that has a limit.
    start : FittedState or None
        Of the fit that this one continues.

    Returns
    -------
    epochs : list of dict
        All of them, numbered from 1.
    best : dict
        The best of the new ones, or that of `start` if its networks were kept.

    Raises
    ------
    KeyboardInterrupt
        If training was interrupted before the first epoch was complete.
    ValueError
        If no epoch has a finite validation loss.

    Warns
    -----
    UserWarning
        If training diverged or was interrupted after a good epoch, or made nothing better.
    """
    earlier = [] if start is None else start.history
    completed = completed_epochs(net)
    if not completed:
        raise KeyboardInterrupt("Interrupted before the first epoch was complete.")
    for row in completed:
        row["epoch"] += len(earlier)
    last = completed[-1]
    finite = [row for row in completed if math.isfinite(row["valid_loss"])]
    message = ""
    if not (finite and math.isfinite(last["train_loss"])):
        message = (
            f"Training diverged in epoch {last['epoch']}: the loss is {last['train_loss']:g} in "
            f"training and {last['valid_loss']:g} in validation, at a learning rate of "
            f"{net.optimizer_.param_groups[0]['lr']:.2g}. Lower lr={net.lr:g}, to "
            f"{net.lr / 10:g} for example, and look for images with extreme values."
        )
        if not finite:
            raise ValueError(message)
    elif net.interrupted_ and not _stopped_early(net):
        of_all = "" if max_epochs is None else f" of {len(earlier) + max_epochs}"
        message = (
            f"Training was interrupted in epoch {len(earlier) + len(net.history)}{of_all}. The "
            "code that called fit goes on: interrupt again to stop that too."
        )
    if message:
        message += " The encoder is that of the best epoch so far."
    best = min(finite, key=lambda row: row["valid_loss"])
    if start is not None and not best["valid_loss"] < (initial := net.initial_loss_):
        best = {"epoch": start.best_epoch, "valid_loss": initial}
        message = message or (
            f"No epoch of this warm start has a lower validation loss than the {initial:g} of the "
            "networks it began with, which are kept. Lower lr, or train on more images."
        )
    if message:
        warnings.warn(message, UserWarning, stacklevel=5)
    return [*earlier, *completed], best


def _stopped_early(net: NeuralNet) -> bool:
    """Tell whether a callback of skorch's has ended training because it no longer improved."""
    return any(
        isinstance(callback, EarlyStopping) and callback.misses_ >= callback.patience
        for _, callback in net.callbacks_
    )
