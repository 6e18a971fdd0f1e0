"""Training of an autoencoder with skorch: schedule, early stopping, best epoch, checkpoint."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from sklearn.utils import gen_batches
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from skorch.helper import predefined_split
from torch import nn

from .._networks import Autoencoder
from .._utils import distributed
from .._utils.malloc import keep_freed_memory
from .checkpoint import Checkpoint, load_optimizer_state
from .clock import Clock, EndInTime, TimeLimit
from .dataset import TrainingSet, collate
from .net import AutoencoderNet
from .progress import make_progress

# Epochs that only time ends.
_NO_LIMIT = 2**31


class StopWhenDiverged(Callback):
    """End training after an epoch whose training loss is not finite: no later one will be."""

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Stop as skorch's own early stopping does."""
        if not math.isfinite(net.history[-1]["train_loss"]):
            raise KeyboardInterrupt


class KeepBetterStart(Callback):
    """Keep the networks that training begins with, unless an epoch is better on the same images."""

    def __init__(self, stopping: EarlyStopping, valid: TrainingSet) -> None:
        self.stopping = stopping
        self.valid = valid

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Take the initial validation loss as the best so far."""
        total, n_images = 0.0, 0
        for rows in gen_batches(len(self.valid), net.batch_size):
            batch = self.valid.__getitems__(range(rows.start, rows.stop))
            total += float(net.validation_step(batch)["loss"]) * len(batch[0])
            n_images += len(batch[0])
        total, n_all = distributed.all_reduce([total, n_images], net.device)
        net.initial_loss_ = self.stopping.dynamic_threshold_ = total / n_all
        self.stopping.best_epoch_ = 0
        self.stopping.best_model_weights_ = copy.deepcopy(net.module_.state_dict())


class Steps(NamedTuple):
    """How training steps are made, as in the estimators.

    `generator` draws what the networks draw in training, `seed` the order of batches.
    """

    batch_size: int
    lr: float
    gamma: float
    device: torch.device
    seed: int
    generator: torch.Generator
    net_params: Mapping[str, Any]


@keep_freed_memory()
def train_networks(
    autoencoder: Autoencoder,
    criterion: nn.Module,
    train: TrainingSet,
    valid: TrainingSet,
    steps: Steps,
    *,
    max_epochs: int | None,
    clock: Clock,
    lr_schedule: str | None,
    patience: int,
    verbose: int,
    callbacks: Sequence[Any],
    checkpoint: Checkpoint,
    keep_start: bool = False,
) -> AutoencoderNet:
    """Train an autoencoder in place and leave it at its best epoch.

    `keep_start` counts the networks as they are as an epoch of their own.

    Other parameters are those of the estimators. Returns skorch's net, with its history.
    """
    schedule = None
    is_timed = math.isfinite(clock.max_seconds)
    n_batches, n_valid_batches = (-(-len(images) // steps.batch_size) for images in (train, valid))
    epochs = _NO_LIMIT if max_epochs is None else max_epochs
    if lr_schedule == "one-cycle":
        schedule = LRScheduler(
            torch.optim.lr_scheduler.OneCycleLR,
            max_lr=steps.lr,
            total_steps=n_batches * epochs + 1,
            step_every="batch",
            event_name=None,
        )
    stopping = EarlyStopping(patience=patience, threshold=0, load_best=True)
    checkpoint.keep(schedule, stopping, clock)
    clock.begin_training()
    # Progress comes before what may end training after an epoch, so that each epoch is shown.
    ours = make_progress(verbose, len(train), None if is_timed else max_epochs)
    ours += [schedule] if schedule else []
    ours += [TimeLimit(clock, schedule, n_batches, n_valid_batches)] if is_timed else []
    ours += [StopWhenDiverged(), stopping]
    ours += [KeepBetterStart(stopping, valid)] if keep_start else []
    ours += [checkpoint]
    net = _make_net(
        autoencoder,
        criterion,
        steps,
        len(train),
        max_epochs=epochs,
        train_split=predefined_split(valid.to(steps.device)),
        callbacks=[*ours, *callbacks, EndInTime(clock)],
    )
    epochs = 0 if clock.is_up else epochs - checkpoint.n_epochs
    return net.initialize().partial_fit(train.to(steps.device), y=None, epochs=epochs)


@keep_freed_memory()
def train_one_pass(
    autoencoder: Autoencoder,
    criterion: nn.Module,
    train: TrainingSet,
    steps: Steps,
    optimizer_state: Mapping[int, dict[str, torch.Tensor]],
    *,
    callbacks: Sequence[Any],
) -> NeuralNet:
    """Train an autoencoder in place, once over a training set, from an optimizer state.

    Returns skorch's net, with its history and optimizer.
    """
    net = _make_net(
        autoencoder,
        criterion,
        steps,
        len(train),
        max_epochs=1,
        train_split=None,
        callbacks=list(callbacks),
    ).initialize()
    load_optimizer_state(net.optimizer_, optimizer_state)
    net.partial_fit(train.to(steps.device), y=None)
    if net.interrupted_:
        raise KeyboardInterrupt
    return net


def _make_net(
    autoencoder: Autoencoder,
    criterion: nn.Module,
    steps: Steps,
    n_images: int,
    **parameters: Any,
) -> AutoencoderNet:
    device = steps.device
    # BatchNorm1d, in a module of the user's, cannot normalise a single image.
    leaves_one = n_images > steps.batch_size and n_images % steps.batch_size == 1
    autoencoder.generator = steps.generator
    ours: dict[str, Any] = {
        "gamma": steps.gamma,
        "lr": steps.lr,
        "batch_size": steps.batch_size,
        "iterator_train__shuffle": True,
        "iterator_train__drop_last": leaves_one and _has_batch_norm_1d(autoencoder),
        "iterator_train__generator": torch.Generator().manual_seed(steps.seed),
        "iterator_train__collate_fn": collate,
        "iterator_valid__collate_fn": collate,
        "device": device,
        "verbose": 0,
        **parameters,
    }
    if taken := ours.keys() & steps.net_params.keys():
        raise ValueError(
            f"net_params sets {min(taken)!r}, which the estimator sets itself. Use the parameters "
            "of the estimator, and net_params only for others of skorch's NeuralNet."
        )
    defaults: dict[str, Any] = {
        "autocast": device.type == "cuda",
        "optimizer": torch.optim.Adam,
        "optimizer__fused": device.type in ("cpu", "cuda"),
        # The validation iterator draws a seed that it does not use: not from the user's generator.
        "iterator_valid__generator": steps.generator if device.type == "cpu" else torch.Generator(),
        # run_single_epoch records the losses itself.
        "callbacks__train_loss": None,
        "callbacks__valid_loss": None,
        "callbacks__print_log": None,
    }
    module = autoencoder.to(device).to(memory_format=torch.channels_last)
    return AutoencoderNet(module, criterion=criterion, **defaults | ours | dict(steps.net_params))


def _has_batch_norm_1d(module: nn.Module) -> bool:
    return any(isinstance(layer, nn.BatchNorm1d) for layer in module.modules())
