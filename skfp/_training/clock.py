"""A limit on the seconds of a fit: the schedule is fitted to them, and training ends in time."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback, LRScheduler

from .._utils import distributed
from .net import EndTraining

# A forward pass alone takes about a third of a training step.
_VALIDATION_STEP = 1 / 3


class Clock:
    """Counts the seconds of a fit, with those of earlier processes that it continues.

    Parameters
    ----------
    max_seconds : float or None
        How many there are; None is no limit.
    """

    def __init__(self, max_seconds: float | None) -> None:
        self.max_seconds = math.inf if max_seconds is None else float(max_seconds)
        self.training_began = math.nan
        self.is_up = False
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the fit began."""
        return time.monotonic() - self._start

    def begin_training(self) -> None:
        """Note that images are read and their features extracted, unless that was noted before."""
        if math.isnan(self.training_began):
            self.training_began = self.seconds

    def share(self, needed: float) -> float:
        """Return the share of the time for training that has passed; `needed` is kept for later.

        In all processes that train together, it is that of the main one.
        """
        seconds = self.seconds
        available = self.max_seconds - needed - self.training_began
        passed = seconds - self.training_began
        share = distributed.broadcast(1.0 if passed >= available else passed / available)
        self.is_up = share == 1
        return share

    def state_dict(self) -> dict[str, Any]:
        """Return what another process needs to go on."""
        names = ("seconds", "training_began", "is_up")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the state of an earlier process."""
        self._start -= state["seconds"]
        self.training_began, self.is_up = state["training_began"], state["is_up"]


class TimeLimit(Callback):
    """End an epoch when the clock will be up after its validation.

    The learning rate is where the schedule has it at the share of steps that were made, or of time
    that has passed, whichever is larger.

    Parameters
    ----------
    clock : Clock
        With a limit.
    schedule : LRScheduler or None
        It comes before this callback, and steps with every batch.
    n_steps, n_valid_steps : int
        Batches of an epoch in training and in validation.
    """

    def __init__(
        self, clock: Clock, schedule: LRScheduler | None, n_steps: int, n_valid_steps: int
    ) -> None:
        self.clock = clock
        self.schedule = schedule
        self.n_steps = n_steps
        self.n_valid_steps = n_valid_steps

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Measure steps and validation anew."""
        self.last_step_ = math.nan
        self.fastest_step_ = math.inf
        self.end_of_epoch_ = math.nan

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Count steps from the beginning of training, and learn how long epochs take to end."""
        self.end_of_epoch_ = self.clock.seconds - self.last_step_
        self.step_ = (len(net.history) - 1) * self.n_steps

    def on_batch_end(self, net: NeuralNet, training: bool, **kwargs: Any) -> None:
        """Move the learning rate, and end the epoch if time is up."""
        if not training:
            return
        self.step_ += 1
        now = self.clock.seconds
        if not math.isnan(self.last_step_):
            self.fastest_step_ = min(self.fastest_step_, now - self.last_step_)
        self.last_step_ = now
        share = self.clock.share(self._end_of_epoch())
        if self.schedule is not None:
            scheduler = self.schedule.lr_scheduler_
            in_time = int(share * (scheduler.total_steps - 1))
            scheduler.last_epoch = max(self.step_, in_time) - 1
            scheduler.step()
        net.ends_epoch_ = self.clock.is_up

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Find out whether there is time for one more epoch."""
        if not self.clock.is_up:
            so_far = self.clock.seconds - self.last_step_
            self.clock.share(max(so_far, self._end_of_epoch()))
        if self.clock.is_up and self.step_ < self.n_steps:
            warnings.warn(
                f"max_seconds={self.clock.max_seconds:g} ended training before each image was seen "
                f"once; {self.clock.training_began:.1f} s went into reading images and extracting "
                "their features. Raise max_seconds, keep features with memory, or pass fewer "
                "images.",
                UserWarning,
                stacklevel=2,
            )

    def _end_of_epoch(self) -> float:
        """Return how many seconds validation and what follows will take."""
        if not math.isnan(self.end_of_epoch_):
            return self.end_of_epoch_
        if math.isinf(self.fastest_step_):
            return 0.0  # the first step tells nothing, as it warms up
        return self.fastest_step_ * self.n_valid_steps * _VALIDATION_STEP


class EndInTime(Callback):
    """End training after the epoch in which time was up, when all others have dealt with it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """End training."""
        if self.clock.is_up:
            raise EndTraining
