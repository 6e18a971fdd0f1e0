"""What a fit tells while it trains: one line per epoch, or a bar over all batches."""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

from skorch.callbacks import Callback
from tqdm import TqdmWarning, tqdm

from skfp._utils import distributed


def make_progress(verbose: int, n_images: int, max_epochs: int) -> list[Callback]:
    """Choose what to tell.

    Parameters
    ----------
    verbose : int
        0 is silent, 1 asks for lines, more for a bar. A log file gets lines in its place: a bar
        is drawn over itself, which only terminals and notebooks can show.
    n_images, max_epochs : int
        As in `Progress`.

    Returns
    -------
    callbacks : list of Callback
    """
    if not verbose:
        return []
    can_redraw = sys.stderr.isatty() or "ipykernel" in sys.modules
    kind = EpochBar if verbose > 1 and can_redraw else EpochLines
    return [kind(n_images, max_epochs)]


class Progress(Callback):
    """What there is to do.

    Parameters
    ----------
    n_images : int
        Images that an epoch trains on.
    max_epochs : int
        Epochs that training takes at most.
    """

    def __init__(self, n_images: int, max_epochs: int) -> None:
        self.n_images = n_images
        self.max_epochs = max_epochs


class EpochLines(Progress):
    """Print one line per epoch: losses, images per second and time left."""

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Print the line of the epoch that has just ended."""
        row = net.history[-1]
        left = row["dur"] * (self.max_epochs - row["epoch"])
        best = "  best" if row["valid_loss_best"] else ""
        print(
            f"epoch {row['epoch']:>{len(str(self.max_epochs))}}/{self.max_epochs}"
            f"  train loss {row['train_loss']:.6f}  validation loss {row['valid_loss']:.6f}"
            f"  {self.n_images / row['dur']:,.0f} images/s"
            f"  {tqdm.format_interval(left)} left{best}",
            flush=True,
        )


class EpochBar(Progress):
    """Show a bar over the images of all epochs, with losses, images per second and time left."""

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Open the bar."""
        with warnings.catch_warnings():
            # Notebooks without ipywidgets get a bar of text, which is good enough.
            warnings.simplefilter("ignore", TqdmWarning)
            from tqdm.auto import tqdm

        self.losses_: dict[str, str] = {}
        self.shown_ = time.monotonic()
        self.bar_ = tqdm(
            total=self.n_images * self.max_epochs,
            unit=" images",
            unit_scale=True,
            desc=f"epoch 1/{self.max_epochs}",
        )

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Begin where training begins: after a checkpoint, that is not the first epoch."""
        self.bar_.n = self.n_images * (len(net.history) - 1)
        self.bar_.set_description(f"epoch {len(net.history)}/{self.max_epochs}")

    def on_batch_end(self, net: Any, batch: Any, training: bool, **kwargs: Any) -> None:
        """Move the bar on, and look at the loss no more than twice a second."""
        if not training:
            return
        now = time.monotonic()
        if now - self.shown_ > 0.5:
            # Reading a loss makes a GPU wait, so it is done rarely.
            self.losses_["loss"] = f"{kwargs['loss'].item():.5f}"
            self.shown_ = now
            self.bar_.set_postfix(self.losses_, refresh=False)
        self.bar_.update(len(batch[0]) * distributed.count())

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Show the losses of the epoch that has just ended."""
        row = net.history[-1]
        self.losses_["train"] = f"{row['train_loss']:.5f}"
        self.losses_["valid"] = f"{row['valid_loss']:.5f}"
        self.bar_.set_postfix(self.losses_)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self.bar_.close()
