"""The textbook PyTorch loop that this package's speed is measured against.

Written from the paper's description as a first implementation would be: float32 images in a
TensorDataset, batches of 512 from a DataLoader, the loss network run in every step, plain Adam. It
shares only the weights of the loss network with this package, and is not slowed down on purpose:
what does not need a gradient is computed without one.
"""

from __future__ import annotations

import time
from itertools import chain, islice, repeat
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.internals import load_loss_network

IMAGE_SIZE = 64  # of LunarLander; the sizes of the networks below are for this size
CODE_SIZE = 2 * 2 * 256  # what four strided convolutions leave of it
MAX_HIDDEN = 2048


class Procedure(NamedTuple):
    """The input of the encoder, and the loss."""

    encoder: str
    loss: str


PROCEDURES = {
    "I-F-FP": Procedure("image", "FP"),
    "F-F-FP": Procedure("features", "FP"),
    "I-I-PS": Procedure("image", "PS"),
    "F-I-PS": Procedure("features", "PS"),
    "I-I-PW": Procedure("image", "PW"),
    "F-I-PW": Procedure("features", "PW"),
}


def image_encoder(z: int) -> nn.Module:
    """Four strided convolutions and a linear layer, from images of 64 by 64 pixels."""

    def convolution(n_in, n_out):
        return nn.Conv2d(n_in, n_out, 4, stride=2), nn.BatchNorm2d(n_out), nn.ReLU()

    return nn.Sequential(
        *convolution(3, 32),
        *convolution(32, 64),
        *convolution(64, 128),
        *convolution(128, 256),
        nn.Flatten(),
        nn.Linear(CODE_SIZE, z),
    )


def image_decoder(z: int) -> nn.Module:
    """Make a linear layer and four strided deconvolutions, to images of 64 by 64 pixels."""

    def deconvolution(n_in, n_out, kernel):
        return (
            nn.ConvTranspose2d(n_in, n_out, kernel, stride=2),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
        )

    return nn.Sequential(
        nn.Linear(z, 1024),
        nn.ReLU(),
        nn.Unflatten(1, (1024, 1, 1)),
        *deconvolution(1024, 128, 5),
        *deconvolution(128, 64, 5),
        *deconvolution(64, 32, 6),
        nn.ConvTranspose2d(32, 3, 6, stride=2),
        nn.Sigmoid(),
    )


def perceptron(n_inputs: int, n_outputs: int) -> nn.Module:
    """Make the feature encoder or decoder: one hidden layer."""
    hidden = min(max(n_inputs, n_outputs) // 2, MAX_HIDDEN)
    return nn.Sequential(nn.Linear(n_inputs, hidden), nn.ReLU(), nn.Linear(hidden, n_outputs))


def make_networks(procedure: str, z: int, n_features: int) -> tuple[nn.Module, nn.Module]:
    """Make the encoder and the decoder of a procedure."""
    encoder_kind, loss_kind = PROCEDURES[procedure]
    encoder = image_encoder(z) if encoder_kind == "image" else perceptron(n_features, z)
    decoder = perceptron(z, n_features) if loss_kind == "FP" else image_decoder(z)
    return encoder, decoder


def train(
    procedure: str, images, *, steps: int, z: int = 64, batch_size: int = 512, lr: float = 1e-3
) -> tuple[float, float]:
    """Train a procedure for some steps on the CPU; return images per second and the mean loss.

    Images are (n, 64, 64, 3), uint8; turning them into floats is not counted. One more step goes
    first: memory is allocated and kernels are chosen there.
    """
    encoder_kind, loss_kind = PROCEDURES[procedure]
    dataset = TensorDataset(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous() / 255)
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True)

    loss_network = load_loss_network("alexnet").to(memory_format=torch.contiguous_format)
    needs_features = encoder_kind == "features" or loss_kind != "PW"

    encoder, decoder = make_networks(
        procedure, z, loss_network.n_features((IMAGE_SIZE, IMAGE_SIZE))
    )
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=lr)
    encoder.train()
    decoder.train()

    def train_on(batches) -> tuple[int, float]:
        n_images, running_loss = 0, 0.0
        for (batch,) in batches:
            if needs_features:
                with torch.no_grad():
                    features = loss_network(batch)
            decoded = decoder(encoder(batch if encoder_kind == "image" else features))
            if loss_kind == "PW":
                loss = F.mse_loss(decoded, batch)
            elif loss_kind == "PS":
                loss = F.mse_loss(loss_network(decoded), features)
            else:
                loss = F.mse_loss(decoded, features)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            running_loss += loss.item() * len(batch)
            n_images += len(batch)
        return n_images, running_loss

    batches = chain.from_iterable(repeat(loader))  # epoch after epoch
    train_on(islice(batches, 1))
    start = time.perf_counter()
    n_images, running_loss = train_on(islice(batches, steps))
    return n_images / (time.perf_counter() - start), running_loss / n_images
