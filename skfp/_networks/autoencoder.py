"""An encoder and a decoder as one module, and the description that both are made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from .augmentation import flip_and_shift
from .decoders import FeatureDecoder, ImageDecoder
from .encoders import Encoder, make_encoder, takes_features


class Decoded(NamedTuple):
    """The output of an autoencoder for a batch; `log_variance` is None unless it is variational."""

    decoded: torch.Tensor
    mean: torch.Tensor
    log_variance: torch.Tensor | None


class Autoencoder(nn.Module):
    """An encoder and a decoder, with embeddings drawn from a normal distribution if variational.

    `prepare` makes the encoder's input from a stored batch; `augment` flips and shifts it in
    training. `variance_head` gives the log-variance beside the encoder's own head, which gives the
    mean.
    """

    encoder: Encoder
    variance_head: nn.Linear | None
    generator: torch.Generator | None = None  # of what is drawn in training

    def __init__(
        self,
        prepare: nn.Module,
        encoder: Encoder,
        decoder: nn.Module,
        variance_head: nn.Linear | None,
        augment: bool = False,
    ) -> None:
        super().__init__()
        self.prepare = prepare
        self.encoder = encoder
        self.decoder = decoder
        self.variance_head = variance_head
        self.augment = augment

    def forward(self, inputs: torch.Tensor) -> Decoded:
        """Encode and decode a stored batch."""
        inputs = self.prepare(inputs)
        if self.augment and self.training:
            inputs = flip_and_shift(inputs, self.generator)
        code = self.encoder.trunk(inputs)
        mean = self.encoder.head(code)
        if self.variance_head is None:
            return Decoded(self.decoder(mean), mean, None)
        log_variance = self.variance_head(code)
        embedding = mean
        if self.training:
            noise = torch.empty_like(mean).normal_(generator=self.generator)
            embedding = mean + noise * (log_variance / 2).exp()
        return Decoded(self.decoder(embedding), mean, log_variance)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The parameters that decide which networks are trained. They stay when training goes on.

    `loss` is "features" (FP), "perceptual" (PS) or "pixels" (PW); `loss_network` is a description,
    or None where no network is needed.
    """

    loss: str
    z: int
    encoder: str | Callable
    variational: bool
    loss_network: Any
    target_components: int | str | None = None

    @property
    def takes_features(self) -> bool:
        """Whether the encoder's input is features instead of images."""
        return takes_features(self.encoder)

    def images_of_features(self, images: Any, loss_network: Any) -> Any:
        """Return the images as the loss network gets them: not enlarged twice.

        But features that are the encoder's input, or are compared with those of decoded images, are
        those of the images that all networks get.
        """
        if loss_network is None or self.loss != "features" or self.takes_features:
            return images
        return images.enlarged(loss_network.side)

    def replace(self, **changes: Any) -> Architecture:
        """Return a copy with other values."""
        return dataclasses.replace(self, **changes)

    def make_encoder(
        self, n_features: int, input_shape: tuple[int, int, int], mean: torch.Tensor | None
    ) -> Encoder:
        """Make an encoder with initial weights, for images of (channels, height, width)."""
        n_channels, height, width = input_shape
        return make_encoder(self.encoder, n_features, (height, width), self.z, mean, n_channels)

    def make_decoder(
        self, n_features: int, input_shape: tuple[int, int, int], projection: Any = None
    ) -> nn.Module:
        """Make a decoder of images, of features, or of their projection, with initial weights."""
        if self.loss != "features":
            return ImageDecoder(self.z, input_shape[1:], input_shape[0])
        n_outputs = None if projection is None else len(projection.basis)
        return FeatureDecoder(self.z, n_features, n_outputs)

    def make_variance_head(self, encoder: Encoder) -> nn.Linear | None:
        """Make the second head of a variational encoder."""
        head = encoder.head
        return nn.Linear(head.in_features, head.out_features) if self.variational else None
