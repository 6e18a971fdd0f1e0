"""skorch's NeuralNet with a variational term, mixed precision and groups of processes."""

from __future__ import annotations

from typing import Any

import torch
from skorch import NeuralNet
from skorch.utils import to_tensor

from .._networks import Decoded, variational_term
from .._utils import distributed


class EndTraining(KeyboardInterrupt):
    """Ends training as an interruption does, which is skorch's way, but because it is done."""


class AutoencoderNet(NeuralNet):
    """Train an `Autoencoder`; losses are summed on the device.

    `gamma` weighs the variational term; `autocast` runs forward passes and losses in bfloat16
    where torch deems it safe.
    """

    def __init__(self, *args: Any, gamma: float = 0.0, autocast: bool = False, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.gamma = gamma
        self.autocast = autocast

    def fit_loop(self, *args: Any, **kwargs: Any) -> NeuralNet:
        """Train; skorch hides what interrupts that, so it is noted here."""
        self.interrupted_ = self.ends_epoch_ = False
        try:
            return super().fit_loop(*args, **kwargs)
        except KeyboardInterrupt as reason:
            self.interrupted_ = not isinstance(reason, EndTraining)
            raise

    def infer(self, x: torch.Tensor, **fit_params: Any) -> Decoded:
        """Encode and decode a batch."""
        with self._precision():
            if distributed.world_size() > 1:
                return self._parallel_forward(to_tensor(x, device=self.device))
            return super().infer(x, **fit_params)

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Join the group of processes, if there is one."""
        super().on_train_begin(*args, **kwargs)
        if distributed.world_size() > 1:
            self._parallel_forward = distributed.data_parallel(self.module_)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Leave all processes with the same networks."""
        super().on_train_end(*args, **kwargs)
        if distributed.world_size() > 1:
            distributed.synchronise_buffers(self.module_)

    def get_loss(
        self, y_pred: Decoded, y_true: Any, X: Any = None, training: bool = False
    ) -> torch.Tensor:
        """Loss of a batch, with the variational term if there is one."""
        n_images = len(y_pred.mean)
        if n_images:
            with self._precision():
                loss = super().get_loss(y_pred.decoded.float(), y_true, X, training)
            if y_pred.log_variance is not None:
                loss = loss + self.gamma * variational_term(y_pred.mean, y_pred.log_variance)
        else:  # the shard of a small batch may be empty
            loss = y_pred.decoded.sum()
        if training:
            distributed.weight_gradient(loss, n_images)
        return loss

    def _precision(self) -> torch.autocast:
        device_type = torch.device(self.device).type
        return torch.autocast(device_type, dtype=torch.bfloat16, enabled=self.autocast)

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Run one epoch; losses stay on the device, which would have to wait to give each."""
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
            if training and self.ends_epoch_:
                break
        total, n_all = distributed.all_reduce([float(total), n_images], self.device)
        loss = total / n_all
        name = f"{prefix}_loss"
        best = min((row[name] for row in self.history[:-1]), default=float("inf"))
        self.history.record(name, loss)
        self.history.record(f"{name}_best", loss < best)
