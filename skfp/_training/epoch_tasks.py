"""scikit-learn's own callbacks, from its version 1.9 on: each epoch is a task of the fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from skorch import NeuralNet
from skorch.callbacks import Callback

from .._utils import distributed
from .net import EndTraining

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Callbacks of skorch alone."""


class EpochTasks(Callback):
    """Tells the callbacks that `set_callbacks` was given when fit and its epochs begin and end.

    Parameters
    ----------
    estimator : BaseImageEncoder
        Whose fit it is.
    X, y : array-like
        What fit was given.
    """

    # Makes the fitted state of the networks as they are in training; set by the fit.
    make_state: Callable[[NeuralNet], Any]

    def __init__(self, estimator: Any, X: Any, y: Any) -> None:
        self.estimator = estimator
        self.data = {"X": X, "y": y}
        # Where only time ends training, the number of epochs is unknown.
        max_epochs = None if estimator.max_seconds is not None else estimator.max_epochs
        self.fit_task = estimator._init_callback_context(max_subtasks=max_epochs)
        self.fit_task.call_on_fit_task_begin(estimator=estimator, **self.data)
        self.epoch_task: Any = None

    @classmethod
    def begin(cls, estimator: Any, X: Any, y: Any) -> Self | None:
        """Begin a fit; there are no tasks without a callback."""
        return cls(estimator, X, y) if getattr(estimator, "_skl_callbacks", None) else None

    def end(self, state: Any) -> None:
        """End the fit."""
        self._end(self.fit_task, lambda: state)

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Begin the task of an epoch."""
        self.epoch_task = self.fit_task.subcontext(task_name="epoch")
        self.epoch_task.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """End the task, and training if a callback wants that."""
        task, self.epoch_task = self.epoch_task, None
        if distributed.broadcast(self._end(task, lambda: self.make_state(net))):
            raise EndTraining

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """End the task of an epoch that ended training."""
        if self.epoch_task is not None:
            self._end(self.epoch_task, lambda: self.make_state(net))

    def _end(self, task: Any, make_state: Callable[[], Any]) -> bool:
        return task.call_on_fit_task_end(
            estimator=self.estimator,
            **self.data,
            reconstruction_attributes=lambda: {"_state": make_state()},
        )
