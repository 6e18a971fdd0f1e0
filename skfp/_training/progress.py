"""Progress of training: skorch's lines per epoch, or a tqdm bar over all epochs."""

from __future__ import annotations

import functools
import sys
import warnings
from typing import Any

from skorch.callbacks import Callback, PrintLog
from tqdm import TqdmWarning

from .._utils import distributed


def make_progress(verbose: int, n_images: int, max_epochs: int | None) -> list[Callback]:
    """Make the callbacks of a verbosity: 0 is silent, 1 prints lines, 2 shows a bar.

    A log file gets lines instead of a bar, which only terminals and notebooks can redraw. Without
    `max_epochs` the bar has no end.
    """
    if not verbose or not distributed.is_main():
        return []
    can_redraw = sys.stderr.isatty() or "ipykernel" in sys.modules
    if verbose > 1 and can_redraw:
        return [Bar(n_images, max_epochs)]
    # Another sink than print itself prints whatever the net's own verbosity is.
    sink = functools.partial(print, flush=True)
    return [PrintLog(keys_ignored=["train_loss_best", "valid_loss_best"], sink=sink)]


class Bar(Callback):
    """A bar over the images of all epochs, with losses, images per second and time left."""

    def __init__(self, n_images: int, max_epochs: int | None) -> None:
        self.n_images = n_images
        self.max_epochs = max_epochs

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Open the bar."""
        with warnings.catch_warnings():
            # Notebooks without ipywidgets get a bar of text, which is good enough.
            warnings.simplefilter("ignore", TqdmWarning)
            from tqdm.auto import tqdm

        total = None if self.max_epochs is None else self.n_images * self.max_epochs
        self.bar_ = tqdm(total=total, unit=" images", unit_scale=True)

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Move to the first image of the epoch: after a checkpoint, that is not the first one."""
        self.bar_.n = self.n_images * (len(net.history) - 1)
        of_all = "" if self.max_epochs is None else f"/{self.max_epochs}"
        self.bar_.set_description(f"epoch {len(net.history)}{of_all}")

    def on_batch_end(self, net: Any, batch: Any, training: bool, **kwargs: Any) -> None:
        """Move by the images of a batch."""
        if training:
            self.bar_.update(len(batch[0]) * distributed.world_size())

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Show the losses of the epoch."""
        row = net.history[-1]
        losses = {"train": f"{row['train_loss']:.5f}", "valid": f"{row['valid_loss']:.5f}"}
        self.bar_.set_postfix(losses)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self.bar_.close()
