"""Training with skorch: data set, net, schedule, best epoch, checkpoint."""

from .checkpoint import Checkpoint, open_checkpoint
from .clock import Clock
from .dataset import TrainingSet
from .epoch_tasks import CallbackSupportMixin, EpochTasks
from .fit import Steps, train_networks, train_one_pass
from .history import completed_epochs, select_best_epoch
from .signature import differences, digest, fit_signature

__all__ = [
    "CallbackSupportMixin",
    "Checkpoint",
    "Clock",
    "EpochTasks",
    "Steps",
    "TrainingSet",
    "completed_epochs",
    "differences",
    "digest",
    "fit_signature",
    "open_checkpoint",
    "select_best_epoch",
    "train_networks",
    "train_one_pass",
]
