"""Pairs of inputs and targets, read a whole batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from .._utils import distributed


class TrainingSet(Dataset):
    """Some rows of the inputs of the encoder and of the targets that the loss compares with.

    Parameters
    ----------
    inputs, targets : ImageSet or FeatureStore
    rows : ndarray of int
        Which of their rows belong to this set.
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
        """Copy inputs and targets to a GPU, if they take less than half of its free memory."""
        needed = self.inputs.nbytes + self.targets.nbytes
        if device.type != "cuda" or needed > torch.cuda.mem_get_info(device)[0] // 2:
            return self
        inputs = self.inputs.to(device)
        targets = inputs if self.targets is self.inputs else self.targets.to(device)
        return TrainingSet(inputs, targets, self.rows)


def collate(batch: Any) -> Any:
    """Return what `TrainingSet.__getitems__` gives: it is a batch already."""
    return batch
