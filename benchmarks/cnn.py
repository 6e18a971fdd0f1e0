"""The paper's simple CNN: the image encoder and one hidden layer, trained on labels alone."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import gen_batches
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import EarlyStopping
from skorch.helper import predefined_split
from torch import nn

from benchmarks.internals import (
    FeatureStore,
    ImageEncoder,
    Preprocess,
    TrainingSet,
    collate,
    completed_epochs,
    keep_freed_memory,
    read_images,
)
from benchmarks.probes import TASKS, VALIDATION_FRACTION

HIDDEN = 256
BATCH = 256


class SimpleCNN(TransformerMixin, BaseEstimator):
    """The image encoder with z outputs and one hidden layer of 256, trained on labels.

    The encoder is the one of the procedures. Adam minimises the squared error of positions or the
    cross-entropy of classes, and the epoch with the lowest validation loss is kept; the validation
    images are those that select probes. Fitted attributes are named as in the estimators of skfp.

    Examples
    --------
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    >>> cnn = SimpleCNN(z=8, task="class", max_epochs=1).fit(images, np.arange(20) % 2)
    >>> cnn.transform(images).shape, cnn.predict(images).shape
    ((20, 8), (20,))
    """

    validation_fraction = VALIDATION_FRACTION

    def __init__(
        self,
        z: int,
        *,
        task: str,
        max_epochs: int = 50,
        batch_size: int = 128,
        lr: float = 1e-3,
        patience: int = 10,
        random_state: int = 0,
        verbose: int = 0,
    ) -> None:
        self.z = z
        self.task = task
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.patience = patience
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, images, targets):
        """Train on labelled uint8 images; targets are positions (n, 2) or classes (n,)."""
        if self.task == "class":
            self.classes_, targets = np.unique(targets, return_inverse=True)
            n_outputs = len(self.classes_)
            net_class, criterion = NeuralNetClassifier, nn.CrossEntropyLoss
        else:
            targets = np.asarray(targets, dtype=np.float32)
            n_outputs = targets.shape[1]
            net_class, criterion = NeuralNetRegressor, nn.MSELoss
        ((train_rows, valid_rows),) = TASKS[self.task].split(images, targets)
        pixels, labels = read_images(images), FeatureStore(targets)
        train, valid = (TrainingSet(pixels, labels, rows) for rows in (train_rows, valid_rows))

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        preprocess = Preprocess()
        with keep_freed_memory(), torch.random.fork_rng():
            torch.manual_seed(self.random_state)
            encoder = ImageEncoder(pixels.format.network_size, self.z)
            self.embed_ = nn.Sequential(preprocess, encoder)
            hidden = nn.Linear(self.z, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, n_outputs)
            self.network_ = nn.Sequential(self.embed_, nn.ReLU(), *hidden)
            net = net_class(
                self.network_.to(device).to(memory_format=torch.channels_last),
                criterion=criterion,
                optimizer=torch.optim.Adam,
                optimizer__lr=self.lr,
                max_epochs=self.max_epochs,
                batch_size=self.batch_size,
                iterator_train__shuffle=True,
                iterator_train__generator=torch.Generator().manual_seed(self.random_state),
                iterator_train__collate_fn=collate,
                iterator_valid__collate_fn=collate,
                train_split=predefined_split(valid),
                callbacks=[EarlyStopping(patience=self.patience, threshold=0, load_best=True)],
                device=device,
                verbose=self.verbose,
                **({"callbacks__valid_acc": None} if self.task == "class" else {}),
            ).fit(train, y=None)
        self.network_.eval()
        self.device_ = device
        self.n_parameters_ = sum(p.numel() for p in self.network_.parameters())
        self.history_ = completed_epochs(net)
        if not self.history_:
            raise KeyboardInterrupt("Interrupted before the first epoch was complete.")
        best = min(self.history_, key=lambda row: row["valid_loss"])
        self.best_epoch_, self.validation_loss_ = best["epoch"], best["valid_loss"]
        self.n_epochs_ = len(self.history_)
        return self

    def transform(self, images) -> np.ndarray:
        """Return the embedding (n, z) of images."""
        return self._compute(self.embed_, images)

    def predict(self, images) -> np.ndarray:
        """Return the position or the class of each image."""
        outputs = self._compute(self.network_, images)
        return self.classes_[outputs.argmax(axis=1)] if self.task == "class" else outputs

    @torch.inference_mode()
    def _compute(self, module: nn.Module, images) -> np.ndarray:
        pixels, batches = read_images(images), gen_batches(len(images), BATCH)
        outputs = [module(pixels.read(rows).to(self.device_)).cpu() for rows in batches]
        return torch.cat(outputs).numpy()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.estimator_type = "classifier" if self.task == "class" else "regressor"
        tags.target_tags.required = True
        return tags
