"""Training of a coder pair: skorch's NeuralNet over batches that are fetched whole."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from skorch.helper import predefined_split
from skorch.utils import to_tensor
from torch import nn
from torch.utils.data import Dataset

from skfp._networks.encoders import Encoder
from skfp._networks.losses import variational_term
from skfp._training.checkpoint import Checkpoint, load_optimizer_state
from skfp._training.progress import make_progress
from skfp._utils import distributed
from skfp._utils.malloc import keep_freed_memory


class Decoded(NamedTuple):
    """What a coder pair makes of a batch."""

    decoded: torch.Tensor
    mean: torch.Tensor
    log_variance: torch.Tensor | None


class Autoencoder(nn.Module):
    """An encoder and a decoder, with a distribution between them where it is variational.

    Parameters
    ----------
    prepare : nn.Module
        Turns a stored batch into the encoder's input.
    encoder : Encoder
    decoder : nn.Module
    variance_head : nn.Linear or None
        Gives the log-variance beside the encoder's own head, the mean, where embeddings are drawn
        from a normal distribution in training.
    """

    encoder: Encoder
    variance_head: nn.Linear | None

    def __init__(
        self,
        prepare: nn.Module,
        encoder: Encoder,
        decoder: nn.Module,
        variance_head: nn.Linear | None,
    ) -> None:
        super().__init__()
        self.prepare = prepare
        self.encoder = encoder
        self.decoder = decoder
        self.variance_head = variance_head

    def forward(self, inputs: torch.Tensor) -> Decoded:
        """Encode and decode a stored batch."""
        code = self.encoder.trunk(self.prepare(inputs))
        mean = self.encoder.head(code)
        if self.variance_head is None:
            return Decoded(self.decoder(mean), mean, None)
        log_variance = self.variance_head(code)
        embedding = mean
        if self.training:
            embedding = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return Decoded(self.decoder(embedding), mean, log_variance)


class TrainingSet(Dataset):
    """Pairs of inputs and targets, read a batch at a time.

    Parameters
    ----------
    inputs, targets : Images or Features
        What the encoder takes and what the loss compares with, image by image.
    rows : ndarray of int
        The images that belong to this set.
    """

    def __init__(self, inputs: Any, targets: Any, rows: np.ndarray) -> None:
        self.inputs = inputs
        self.targets = targets
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = distributed.shard(self.rows[np.asarray(indices)])
        inputs = self.inputs.read(rows)
        return inputs, inputs if self.targets is self.inputs else self.targets.read(rows)

    def to(self, device: torch.device) -> TrainingSet:
        """Hold inputs and targets on a device, if that is a GPU with memory to spare."""
        needed = self.inputs.nbytes + self.targets.nbytes
        if device.type != "cuda" or needed > torch.cuda.mem_get_info(device)[0] // 2:
            return self
        inputs = self.inputs.to(device)
        targets = inputs if self.targets is self.inputs else self.targets.to(device)
        return TrainingSet(inputs, targets, self.rows)


class AutoencoderNet(NeuralNet):
    """skorch's NeuralNet with variational term, mixed precision, losses summed on the device.

    Parameters
    ----------
    gamma : float
        Weight of the variational term.
    autocast : bool
        Whether forward passes and losses run in bfloat16 where torch deems it safe.
    """

    def __init__(self, *args: Any, gamma: float = 0.0, autocast: bool = False, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.gamma = gamma
        self.autocast = autocast
        self.n_parts = 1

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Make a forward and a backward pass over a batch, in as many parts as memory asks for."""
        while True:
            try:
                if self.n_parts == 1:
                    return super().train_step_single(batch, **fit_params)
                return self._train_in_parts(batch, **fit_params)
            except torch.OutOfMemoryError:
                size = -(-len(batch[0]) // self.n_parts)
                # Processes wait for each other's gradients: none may make more of them.
                if size < 2 or distributed.count() > 1:
                    raise
            # Past the handler, which would keep the tensors of the failed step alive.
            self.n_parts *= 2
            self._zero_grad_optimizer()
            torch.cuda.empty_cache()
            warnings.warn(
                f"The device is out of memory for {size} images at a time. From here on each "
                f"batch of {len(batch[0])} passes through in {self.n_parts} parts, which is "
                "slower; gradients are summed over the batch as before. To be faster, free memory "
                "on the device or lower batch_size.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _train_in_parts(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        self._set_training(True)
        total: Any = 0.0
        size = -(-len(batch[0]) // self.n_parts)
        for inputs, targets in zip(*(values.split(size) for values in batch), strict=True):
            decoded = self.infer(inputs, **fit_params)
            loss = self.get_loss(decoded, targets, X=inputs, training=True)
            loss = loss * (len(inputs) / len(batch[0]))
            loss.backward()
            total = total + loss.detach()
        return {"loss": total, "y_pred": decoded}

    def infer(self, x: torch.Tensor, **fit_params: Any) -> Decoded:
        """Encode and decode a batch."""
        with self._precision():
            if distributed.count() > 1:
                return self._together(to_tensor(x, device=self.device))
            return super().infer(x, **fit_params)

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Train together with the other processes, where there are any."""
        super().on_train_begin(*args, **kwargs)
        if distributed.count() > 1:
            self._together = distributed.data_parallel(self.module_)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Leave the coders as they are in one process."""
        super().on_train_end(*args, **kwargs)
        if distributed.count() > 1:
            distributed.end_data_parallel(self.module_)

    def get_loss(
        self, y_pred: Decoded, y_true: Any, X: Any = None, training: bool = False
    ) -> torch.Tensor:
        """Loss of a batch, with the variational term where there is one."""
        n_images = len(y_pred.mean)
        if n_images:
            with self._precision():
                loss = super().get_loss(y_pred.decoded.float(), y_true, X, training)
            if y_pred.log_variance is not None:
                loss = loss + self.gamma * variational_term(y_pred.mean, y_pred.log_variance)
        else:  # nothing of a small batch was left for this process
            loss = y_pred.decoded.sum()
        if training:
            distributed.weigh_gradient(loss, n_images)
        return loss

    def _precision(self) -> torch.autocast:
        device_type = torch.device(self.device).type
        return torch.autocast(device_type, dtype=torch.bfloat16, enabled=self.autocast)

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Run one epoch, adding up the losses on the device: reading each would make it wait."""
        if iterator is None:
            return
        total: Any = 0.0
        n_images = 0
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            total = total + step["loss"].detach() * len(batch[0])
            n_images += len(batch[0])
            self.notify("on_batch_end", batch=batch, training=training, **step)
        total, n_all = distributed.all_reduce([float(total), n_images], self.device)
        loss = total / n_all
        name = f"{prefix}_loss"
        best = min((row[name] for row in self.history[:-1]), default=float("inf"))
        self.history.record(name, loss)
        self.history.record(f"{name}_best", loss < best)


class StopWhenDiverged(Callback):
    """Ends training after an epoch whose training loss is not finite: no later one will be."""

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Stop as skorch's own early stopping does."""
        if not math.isfinite(net.history[-1]["train_loss"]):
            raise KeyboardInterrupt


class Settings(NamedTuple):
    """How steps are made, as in the estimators.

    Attributes
    ----------
    batch_size : int
    lr : float
    gamma : float
    device : torch.device
    autocast : bool
        Whether to train in mixed bfloat16 precision.
    compile : bool
    seed : int
        Seed of the order of batches.
    """

    batch_size: int
    lr: float
    gamma: float
    device: torch.device
    autocast: bool
    compile: bool
    seed: int


@keep_freed_memory()
def train_networks(
    autoencoder: Autoencoder,
    loss: nn.Module,
    train: TrainingSet,
    valid: TrainingSet,
    settings: Settings,
    *,
    max_epochs: int,
    lr_schedule: str | None,
    patience: int,
    verbose: int,
    callbacks: Sequence[Any],
    checkpoint: Checkpoint,
    target: nn.Module | None,
) -> NeuralNet:
    """Train a coder pair and leave it at its best epoch.

    Parameters
    ----------
    autoencoder : Autoencoder
        Trained in place.
    loss : nn.Module
        Compares a decoded batch with a batch of targets.
    train, valid : TrainingSet
        Batches to learn from, and to judge epochs by.
    settings : Settings
    max_epochs, lr_schedule, patience, verbose, callbacks
        As in the estimators.
    checkpoint : Checkpoint
        Whose state training goes on from, and where it is kept.
    target : nn.Module or None
        Kept with that state.

    Returns
    -------
    net : NeuralNet
        skorch's net after training, with its history.
    """
    # What is told of an epoch comes before what may end training after it.
    told = verbose if distributed.is_main() else 0
    steps: list[Any] = make_progress(told, len(train), max_epochs)
    schedule = None
    if lr_schedule == "one-cycle":
        n_batches = -(-len(train) // settings.batch_size)
        schedule = LRScheduler(
            torch.optim.lr_scheduler.OneCycleLR,
            max_lr=settings.lr,
            total_steps=n_batches * max_epochs + 1,
            step_every="batch",
            event_name=None,
        )
        steps.append(schedule)
    stopping = EarlyStopping(patience=patience, threshold=0, load_best=True)
    checkpoint.follow(schedule, stopping, target)
    steps += [StopWhenDiverged(), stopping, checkpoint]
    net = _make_net(
        autoencoder,
        loss,
        settings,
        max_epochs=max_epochs,
        train_split=predefined_split(valid.to(settings.device)),
        callbacks=[*steps, *callbacks],
    )
    epochs = max_epochs - checkpoint.n_epochs
    return net.initialize().partial_fit(train.to(settings.device), y=None, epochs=epochs)


@keep_freed_memory()
def train_batch_of_stream(
    autoencoder: Autoencoder,
    loss: nn.Module,
    train: TrainingSet,
    settings: Settings,
    moments: dict[int, dict[str, torch.Tensor]],
    *,
    callbacks: Sequence[Any],
) -> NeuralNet:
    """Train a coder pair once over a training set, from where it was left.

    Parameters
    ----------
    autoencoder, loss, train, settings, callbacks
        As in `fit_coders`.
    moments : dict
        Adam's memory of earlier steps, parameter by parameter; empty where there were none.

    Returns
    -------
    net : NeuralNet
        skorch's net, with its history and optimizer.
    """
    net = _make_net(
        autoencoder, loss, settings, max_epochs=1, train_split=None, callbacks=list(callbacks)
    ).initialize()
    load_optimizer_state(net.optimizer_, moments)
    return net.partial_fit(train.to(settings.device), y=None)


def _make_net(
    autoencoder: Autoencoder, loss: nn.Module, settings: Settings, **parameters: Any
) -> AutoencoderNet:
    device = settings.device
    return AutoencoderNet(
        autoencoder.to(device).to(memory_format=torch.channels_last),
        criterion=loss,
        gamma=settings.gamma,
        autocast=settings.autocast,
        optimizer=torch.optim.Adam,
        optimizer__lr=settings.lr,
        optimizer__fused=device.type in ("cpu", "cuda"),
        batch_size=settings.batch_size,
        iterator_train__shuffle=True,
        iterator_train__generator=torch.Generator().manual_seed(settings.seed),
        iterator_train__collate_fn=whole_batch,
        iterator_valid__collate_fn=whole_batch,
        # Our own run_single_epoch records the losses, and EpochLines prints them.
        callbacks__train_loss=None,
        callbacks__valid_loss=None,
        callbacks__print_log=None,
        device=device,
        compile=settings.compile,
        verbose=0,
        **parameters,
    )


def completed_epochs(net: NeuralNet) -> list[dict[str, Any]]:
    """List the epochs that were trained and validated to their end.

    The seconds of each are those of the main process, in all of them.

    Parameters
    ----------
    net : NeuralNet
        After training.

    Returns
    -------
    epochs : list of dict
        With the keys "epoch", "train_loss", "valid_loss" and "seconds".
    """
    finished = [
        {
            "epoch": row["epoch"],
            "train_loss": row["train_loss"],
            "valid_loss": row["valid_loss"],
            "seconds": row["dur"],
        }
        for row in net.history
        if "valid_loss" in row
    ]
    return distributed.broadcast(finished)


def select_best_epoch(
    net: NeuralNet, max_epochs: int, earlier: Sequence[dict[str, Any]] = ()
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """List the epochs of a fit and find the best, and tell where training ended badly.

    Parameters
    ----------
    net : NeuralNet
        After training.
    max_epochs : int
        How many were asked for.
    earlier : list of dict
        Epochs of fits before, that this one has continued.

    Returns
    -------
    epochs : list of dict
        All of them, numbered from 1.
    best : dict
        That of the least validation loss among the new ones.

    Raises
    ------
    KeyboardInterrupt
        If training was interrupted before the first epoch was over.
    ValueError
        If no epoch has a finite validation loss.

    Warns
    -----
    UserWarning
        If training diverged or was interrupted after a good epoch.
    """
    finished = completed_epochs(net)
    if not finished:
        raise KeyboardInterrupt("Interrupted before the first epoch was over.")
    for row in finished:
        row["epoch"] += len(earlier)
    last = finished[-1]
    sound = [row for row in finished if math.isfinite(row["valid_loss"])]
    told = ""
    if not (sound and math.isfinite(last["train_loss"])):
        told = (
            f"Training diverged in epoch {last['epoch']}: the loss is {last['train_loss']:g} in "
            f"training and {last['valid_loss']:g} in validation, at a learning rate of "
            f"{net.optimizer_.param_groups[0]['lr']:.2g}. Lower lr={net.optimizer__lr:g}, to "
            f"{net.optimizer__lr / 10:g} for example, and look for images with extreme values."
        )
        if not sound:
            raise ValueError(told)
    elif len(finished) < len(net.history):
        told = (
            f"Training was interrupted in epoch {len(earlier) + len(net.history)} of "
            f"{len(earlier) + max_epochs}. What called fit goes on: interrupt again to stop that "
            "too."
        )
    if told:
        told += " The encoder is that of the best epoch before."
        warnings.warn(told, UserWarning, stacklevel=5)
    return [*earlier, *finished], min(sound, key=lambda row: row["valid_loss"])


def whole_batch(batch: Any) -> Any:
    """Take what `TrainingSet.__getitems__` gives as the batch it already is."""
    return batch
