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

from benchmarks.probes import TASKS, VALIDATION_FRACTION
from skfp._data.image_set import check_images
from skfp._data.preprocess import Preprocess
from skfp._features.extractor import FeatureStore
from skfp._networks.encoders import ImageEncoder
from skfp._training.net import TrainingSet, completed_epochs, whole_batch
from skfp._training.progress import make_progress
from skfp._utils.malloc import keep_freed_memory

HIDDEN = 256
ENCODED_AT_ONCE = 256


class SimpleCNN(TransformerMixin, BaseEstimator):
    """The image encoder with z outputs and one hidden layer of 256, trained on labels.

    The encoder is the one that the procedures train without labels. It is trained with Adam at
    1e-3 in batches of 128, and goes back to its best epoch on the fifth of the images that
    probes are selected by too.

    Parameters
    ----------
    z : int
        Size of the embedding.
    task : {"position", "class"}
        What the targets are: mean squared error or cross-entropy is the loss.
    max_epochs : int, default=50
    batch_size : int, default=128
    lr : float, default=1e-3
    patience : int, default=10
        Training stops after this many epochs without a lower validation loss.
    random_state : int, default=0
        Determines initial weights and the order of batches.
    verbose : int, default=0
        Whether a line per epoch is printed.

    Attributes
    ----------
    history_, best_epoch_, n_epochs_, validation_loss_, n_parameters_
        As in the estimators of skfp.

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
        """Train on labelled images.

        Parameters
        ----------
        images : ndarray of shape (n, height, width) or (n, height, width, 3), uint8
        targets : ndarray of shape (n, 2) for positions, (n,) for classes
        """
        if self.task == "class":
            self.classes_, targets = np.unique(targets, return_inverse=True)
            n_outputs = len(self.classes_)
            net_class, criterion = NeuralNetClassifier, nn.CrossEntropyLoss
        else:
            targets = np.asarray(targets, dtype=np.float32)
            n_outputs = targets.shape[1]
            net_class, criterion = NeuralNetRegressor, nn.MSELoss
        ((train_rows, valid_rows),) = TASKS[self.task].split(images, targets)
        pixels, labels = check_images(images), FeatureStore(targets)
        train, valid = (TrainingSet(pixels, labels, rows) for rows in (train_rows, valid_rows))

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        canvas = Preprocess(pixels.format.size)
        with keep_freed_memory(), torch.random.fork_rng():
            torch.manual_seed(self.random_state)
            encoder = ImageEncoder(canvas.output_size, self.z)
            self.embed_ = nn.Sequential(canvas, encoder)
            self.network_ = nn.Sequential(
                self.embed_,
                nn.ReLU(),
                nn.Linear(self.z, HIDDEN),
                nn.ReLU(),
                nn.Linear(HIDDEN, n_outputs),
            )
            net = net_class(
                self.network_.to(device).to(memory_format=torch.channels_last),
                criterion=criterion,
                optimizer=torch.optim.Adam,
                optimizer__lr=self.lr,
                max_epochs=self.max_epochs,
                batch_size=self.batch_size,
                iterator_train__shuffle=True,
                iterator_train__generator=torch.Generator().manual_seed(self.random_state),
                iterator_train__collate_fn=whole_batch,
                iterator_valid__collate_fn=whole_batch,
                train_split=predefined_split(valid),
                callbacks=[
                    *make_progress(self.verbose, len(train), self.max_epochs),
                    EarlyStopping(patience=self.patience, threshold=0, load_best=True),
                ],
                callbacks__print_log=None,
                device=device,
                verbose=0,
                **({"callbacks__valid_acc": None} if self.task == "class" else {}),
            ).fit(train, y=None)
        self.network_.eval()
        self.device_ = device
        self.n_parameters_ = sum(p.numel() for p in self.network_.parameters())
        self.history_ = completed_epochs(net)
        if not self.history_:
            raise KeyboardInterrupt("Interrupted before the first epoch was over.")
        best = min(self.history_, key=lambda row: row["valid_loss"])
        self.best_epoch_, self.validation_loss_ = best["epoch"], best["valid_loss"]
        self.n_epochs_ = len(self.history_)
        return self

    def transform(self, images) -> np.ndarray:
        """Return what the encoder makes of images, of shape (n, z)."""
        return self._compute(self.embed_, images)

    def predict(self, images) -> np.ndarray:
        """Return the position or the class of each image."""
        outputs = self._compute(self.network_, images)
        return self.classes_[outputs.argmax(axis=1)] if self.task == "class" else outputs

    @torch.inference_mode()
    def _compute(self, module: nn.Module, images) -> np.ndarray:
        pixels, batches = check_images(images), gen_batches(len(images), ENCODED_AT_ONCE)
        parts = [module(pixels.read(rows).to(self.device_)).cpu() for rows in batches]
        return torch.cat(parts).numpy()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.estimator_type = "classifier" if self.task == "class" else "regressor"
        tags.target_tags.required = True
        return tags
