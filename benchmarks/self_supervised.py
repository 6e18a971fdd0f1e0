"""Self-supervised methods that need no other network, on the encoders of this package.

SimCLR, VICReg and Barlow Twins embed two random views of each image alike; their losses are those
of lightly, which `pip install 'skfp[selfsupervised]'` brings.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import gen_batches
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn
from torch.nn import functional as F

from benchmarks.internals import (
    Preprocess,
    TrainingSet,
    collate,
    fold_batch_norm,
    keep_freed_memory,
    make_encoder,
    read_images,
)

BATCH = 256
WEIGHT_DECAY = 1e-4
WARM_UP = 0.1  # share of training
# Of the views. SimCLR's colours for small images: half as strong as for ImageNet, no blur.
LEAST_AREA = 0.2
ASPECT_RATIOS = (3 / 4, 4 / 3)
JITTER, JITTER_SHARE = 0.4, 0.8
HUE = 0.1  # of the circle of colours
GREY_SHARE = 0.2
LUMA = (0.299, 0.587, 0.114)


class Objective(NamedTuple):
    """A method: its loss, which compares the projections of two views, and its projection head."""

    title: str
    make_loss: Callable[[], nn.Module]
    widths: tuple[int, int]


def _loss(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        try:
            from lightly import loss
        except ImportError as error:
            raise ImportError(
                "Self-supervised methods need lightly: pip install 'skfp[selfsupervised]'."
            ) from error
        return getattr(loss, name)()

    return make


OBJECTIVES = {
    "simclr": Objective("SimCLR", _loss("NTXentLoss"), (512, 128)),
    "vicreg": Objective("VICReg", _loss("VICRegLoss"), (1024, 1024)),
    "barlow-twins": Objective("Barlow Twins", _loss("BarlowTwinsLoss"), (1024, 1024)),
}


def random_views(images: torch.Tensor) -> torch.Tensor:
    """Crop and resize, flip and recolour each image of a batch (b, 3, height, width) at random.

    Images are floats in [0, 1]. Half are mirrored, most get another brightness, contrast,
    saturation and hue, and some become grey.

    >>> random_views(torch.rand(5, 3, 32, 48)).shape
    torch.Size([5, 3, 32, 48])
    """
    cropped = F.grid_sample(
        images.contiguous(),
        F.affine_grid(_random_crops(len(images)).to(images.device), images.shape, False),
        padding_mode="reflection",
        align_corners=False,
    )
    colours = _random_colours(len(images)).to(images.device)
    pixels = colours @ cropped.flatten(2)
    contrast = _jitter(len(images)).to(images.device)[:, None, None]
    mean_luma = (pixels.new_tensor(LUMA) @ pixels).mean(dim=1)[:, None, None]
    pixels = torch.lerp(mean_luma, pixels, contrast).clamp_(0, 1)
    return pixels.view_as(cropped).contiguous(memory_format=torch.channels_last)


def _random_crops(n: int) -> torch.Tensor:
    """Draw maps (n, 2, 3) from an image to a part of it, half of them mirrored."""
    area = torch.empty(n).uniform_(LEAST_AREA, 1)
    log_ratio = torch.empty(n).uniform_(*map(math.log, ASPECT_RATIOS))
    widths = (area.log() + log_ratio).div(2).exp().clamp(max=1)
    heights = (area.log() - log_ratio).div(2).exp().clamp(max=1)
    crops = torch.zeros(n, 2, 3)
    crops[:, 0, 0] = widths * torch.randint(0, 2, (n,)).mul(2).sub(1)
    crops[:, 1, 1] = heights
    crops[:, 0, 2] = (1 - widths) * torch.empty(n).uniform_(-1, 1)
    crops[:, 1, 2] = (1 - heights) * torch.empty(n).uniform_(-1, 1)
    return crops


def _jitter(n: int, strength: float = JITTER) -> torch.Tensor:
    """Draw factors around 1, and exactly 1 for a share of the images."""
    jittered = torch.rand(n) < JITTER_SHARE
    return torch.where(jittered, torch.empty(n).uniform_(1 - strength, 1 + strength), 1.0)


def _random_colours(n: int) -> torch.Tensor:
    """Draw maps (n, 3, 3) from colours to colours: hue, then saturation and brightness."""
    luma = torch.tensor(LUMA).expand(3, 3)
    # Hue is turned around the axis of greys (Rodrigues' formula).
    angle = (2 * math.pi * (_jitter(n, HUE) - 1))[:, None, None]
    across = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    onto = torch.full((3, 3), 1 / 3)
    hue = angle.cos() * (torch.eye(3) - onto) + onto + angle.sin() * across
    saturation = torch.where(torch.rand(n) < GREY_SHARE, 0.0, _jitter(n))[:, None, None]
    return _jitter(n)[:, None, None] * (saturation * torch.eye(3) + (1 - saturation) * luma) @ hue


class SelfSupervisedEncoder(TransformerMixin, BaseEstimator):
    """An image encoder trained to embed two views of an image alike, and other images otherwise.

    A projection head of two layers follows the embedding in training alone. AdamW trains in
    batches of 256; the learning rate rises for a tenth of the training and falls to 0 like a
    cosine. Nothing is held out.

    Parameters
    ----------
    objective : {"simclr", "vicreg", "barlow-twins"}
        The method.
    z : int
        Size of the embedding.
    encoder : str, default="image"
        As in FeaturePredictionEncoder, an encoder of images.
    lr : float, default=1e-3
        The highest learning rate.
    max_epochs : int, default=50
        Epochs of training.
    max_seconds : float or None, default=None
        Training ends after so many seconds of fit if that is before `max_epochs`, and the learning
        rate is then 0 already.
    random_state : int, default=0
        Seed.
    verbose : int, default=0
        Whether each epoch is printed.

    Attributes
    ----------
    n_epochs_ : float
        Epochs that were trained, the last in part.
    n_parameters_ : int
        Weights that were trained, those of the projection head included.
    losses_ : list of float
        Mean training loss of each epoch.
    """

    def __init__(
        self,
        objective: str,
        z: int,
        *,
        encoder: str = "image",
        lr: float = 1e-3,
        max_epochs: int = 50,
        max_seconds: float | None = None,
        random_state: int = 0,
        verbose: int = 0,
    ) -> None:
        self.objective = objective
        self.z = z
        self.encoder = encoder
        self.lr = lr
        self.max_epochs = max_epochs
        self.max_seconds = max_seconds
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, images, y=None):
        """Train on uint8 images."""
        start = time.perf_counter()
        objective = OBJECTIVES[self.objective]
        pixels = read_images(images)
        batch_size = min(BATCH, len(images))
        n_steps = self.max_epochs * (len(images) // batch_size)
        schedule = WarmUpThenCosine(self.lr, n_steps, start, self.max_seconds)
        self.device_ = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with keep_freed_memory(), torch.random.fork_rng():
            torch.manual_seed(self.random_state)
            encoder = make_encoder(self.encoder, 0, pixels.format.network_size, self.z)
            head = projection_head(self.z, *objective.widths)
            net = NeuralNet(
                TwoViews(encoder, head).to(self.device_).to(memory_format=torch.channels_last),
                criterion=PairLoss,
                criterion__loss=objective.make_loss(),
                optimizer=torch.optim.AdamW,
                optimizer__lr=self.lr,
                optimizer__weight_decay=WEIGHT_DECAY,
                max_epochs=self.max_epochs,
                batch_size=batch_size,
                iterator_train__shuffle=True,
                iterator_train__drop_last=True,
                iterator_train__generator=torch.Generator().manual_seed(self.random_state),
                iterator_train__collate_fn=collate,
                train_split=None,
                callbacks=[schedule],
                device=self.device_,
                verbose=self.verbose,
            ).fit(TrainingSet(pixels, pixels, np.arange(len(images))), y=None)
        self.embed_ = nn.Sequential(Preprocess(), fold_batch_norm(encoder))
        self.n_epochs_ = self.max_epochs * schedule.n_done / n_steps
        self.n_parameters_ = sum(p.numel() for p in net.module_.parameters())
        self.losses_ = [row["train_loss"] for row in net.history if "train_loss" in row]
        return self

    @torch.inference_mode()
    def transform(self, images) -> np.ndarray:
        """Return the embedding (n, z) of images."""
        pixels, batches = read_images(images), gen_batches(len(images), BATCH)
        outputs = [self.embed_(pixels.read(rows).to(self.device_)).cpu() for rows in batches]
        return torch.cat(outputs).numpy()


def projection_head(z: int, hidden: int, width: int) -> nn.Module:
    """Make the head that follows an embedding in training."""
    first, second = nn.Linear(z, hidden, bias=False), nn.Linear(hidden, width)
    return nn.Sequential(first, nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), second)


class TwoViews(nn.Module):
    """Project two random views of each image."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.preprocess = Preprocess()
        self.encoder = encoder
        self.head = head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (b, ...) to projections (2 b, width): those of first views come first."""
        images = self.preprocess(images)
        views = torch.cat([random_views(images), random_views(images)])
        return self.head(self.encoder(views))


class PairLoss(nn.Module):
    """A loss of lightly, on what `TwoViews` gives."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, projections: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Compare the projections of first and second views."""
        return self.loss(*projections.chunk(2))


class WarmUpThenCosine(Callback):
    """Set the learning rate before each batch, and stop in time."""

    def __init__(self, lr: float, n_steps: int, start: float, max_seconds: float | None) -> None:
        self.lr = lr
        self.n_steps = n_steps
        self.start = start
        self.max_seconds = max_seconds
        self.n_done = 0

    def on_batch_begin(self, net: Any, training: bool = True, **kwargs: Any) -> None:
        """Find out how much of the training is over: of its steps, or of its seconds."""
        progress = self.n_done / self.n_steps
        if self.max_seconds is not None:
            elapsed = time.perf_counter() - self.start
            progress = max(progress, elapsed / self.max_seconds)
        if progress >= 1:
            raise KeyboardInterrupt  # the way to stop skorch within an epoch
        fall = (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2
        for group in net.optimizer_.param_groups:
            group["lr"] = self.lr * (progress / WARM_UP if progress < WARM_UP else fall)

    def on_batch_end(self, net: Any, training: bool = True, **kwargs: Any) -> None:
        """Count."""
        self.n_done += 1
