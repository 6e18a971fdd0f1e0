"""Frozen networks, and several of them as one."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from sklearn.utils import gen_batches
from torch import Tensor, fx, nn

from .._utils.fingerprint import fingerprint_callable
from .layers import Resize

_BALANCING_BATCH = 16
_ATTRIBUTES_OF_ANY_MODULE = vars(nn.Module()).keys()


class FrozenNetwork(nn.Module):
    """A network that never trains, but passes gradients on to the images.

    It copies `network`, from float images (b, 3, height, width) to a tensor (b, ...); messages use
    `name`.

    Examples
    --------
    >>> import torch
    >>> from skfp._loss_network import FrozenNetwork
    >>> p = FrozenNetwork(torch.nn.Conv2d(3, 2, kernel_size=3), name="one layer")
    >>> p(torch.rand(5, 3, 16, 16)).shape
    torch.Size([5, 392])
    """

    in_channels = 3

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.name = name
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever a surrounding module is set to."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Compute features (b, n_features): the network's output, flattened."""
        return self._maps(images).flatten(start_dim=1)

    def _maps(self, images: Tensor) -> Tensor:
        features = self.network(images)
        if not isinstance(features, Tensor):
            found = type(features).__name__
        elif features.ndim < 2 or features.shape[0] != images.shape[0]:
            found = f"a tensor of shape {tuple(features.shape)}"
        else:
            return features
        raise _WrongOutputError(
            f"The loss network {self.name!r} must turn {len(images)} images into a tensor of shape "
            f"({len(images)}, ...), got {found}."
        )

    @property
    def side(self) -> int | None:
        """Shorter side in pixels that it resizes all images to; None if it takes them as they are.

        That of several networks is the one they have in common.
        """
        network: Any = self.network
        sides = {
            next((layer.side for layer in one.modules() if isinstance(layer, Resize)), None)
            for one in (network.networks if isinstance(network, JointNetwork) else [network])
        }
        return sides.pop() if len(sides) == 1 else None

    def maps_shape(self, image_size: tuple[int, int]) -> tuple[int, ...]:
        """Find the shape of an image's features, for most networks (channels, rows, columns)."""
        height, width = image_size
        like = next(self.parameters(), torch.empty(0))
        images = like.new_zeros(1, self.in_channels, height, width)
        try:
            with torch.no_grad():
                return tuple(self._maps(images).shape[1:])
        except _WrongOutputError:
            raise
        except Exception as error:  # a network of the user's may fail in any way
            raise ValueError(
                f"The loss network {self.name!r} cannot take images of {height} x {width} pixels "
                f"(height x width): {error} If they are too small for it, take a layer nearer to "
                "the input, or have them resized: LossNetwork(..., resize=224), for example."
            ) from error

    def n_features(self, image_size: tuple[int, int]) -> int:
        """Count the features of an image of size (height, width)."""
        return math.prod(self.maps_shape(image_size))

    def fingerprint(self) -> str:
        """SHA-256 of layers, attributes, hooks and weights: the key of cached features.

        It does not depend on the device, the memory layout or the name, nor on the code of a
        module's class. TypeError where an attribute has no comparable values, such as a lock.
        """
        digest = hashlib.sha256()
        for part in self._fingerprinted():
            # Hashed on its own, so that ("ab", "c") is not ("a", "bc").
            digest.update(hashlib.sha256(part).digest())
        return digest.hexdigest()

    def _fingerprinted(self) -> Iterator[bytes]:
        for path, layer in self.network.named_modules():
            kind = f"{type(layer).__module__}.{type(layer).__qualname__}"
            # The only attribute of a network within this one is its name.
            attributes = {} if isinstance(layer, FrozenNetwork) else vars(layer)
            plain = {key: value for key, value in sorted(attributes.items()) if _is_plain(value)}
            yield f"{path} {kind} {plain}".encode()
            for key in sorted(attributes.keys() - plain.keys() - _ATTRIBUTES_OF_ANY_MODULE):
                if not isinstance(attributes[key], fx.Graph):  # `_code` is its text
                    yield f"{key} {fingerprint_callable(attributes[key])}".encode()
            for hooks in (layer._forward_pre_hooks, layer._forward_hooks):
                if hooks:
                    yield fingerprint_callable(list(hooks.values())).encode()
        for tensors in (self.network.named_parameters(), self.network.named_buffers()):
            for path, tensor in tensors:
                yield f"{path} {tensor.dtype} {tuple(tensor.shape)}".encode()
                flat = tensor.detach().cpu().contiguous().flatten()
                yield flat.view(torch.uint8).numpy().tobytes()


def _is_plain(value: Any) -> bool:
    """Whether the text of a value identifies it."""
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str)


class JointNetwork(nn.Module):
    """Several networks of the same images, their features scaled and joined.

    `weights` are their shares of the variance of the joined features, relative to each other.
    """

    scales: Tensor

    def __init__(self, networks: Sequence[FrozenNetwork], weights: Sequence[float]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.weights = tuple(weights)
        # Zeros until `balance`.
        self.register_buffer("scales", torch.zeros(len(networks)))

    def forward(self, images: Tensor) -> Tensor:
        features = [network(images) for network in self.networks]
        return torch.cat([s * rows for s, rows in zip(self.scales, features, strict=True)], dim=1)

    @torch.no_grad()
    def balance(self, images: Tensor) -> None:
        """Find the scales by which each network has its share of the variance, once."""
        if self.scales.any():
            return
        n_features, scales = 0, []
        networks: list[Any] = list(self.networks)
        for network, weight in zip(networks, self.weights, strict=True):
            batches = gen_batches(len(images), _BALANCING_BATCH)
            features = torch.cat([network(images[batch]) for batch in batches])
            check_features(features, images, network.name)
            n_features += features.shape[1]
            variance = features.double().var(dim=0, correction=0).sum().item()
            # Images that are all equal have no variance, and then no scale matters.
            scales.append(math.sqrt(weight / sum(self.weights) / (variance or 1.0)))
        self.scales.copy_(torch.tensor(scales) * math.sqrt(n_features))


def check_features(features: Tensor, inputs: Tensor, name: str = "") -> None:
    """Refuse features that are not finite, or the same though the images (inputs) differ."""
    network = f"The loss network{f' {name!r}' if name else ''}"
    if not features.isfinite().all():
        raise ValueError(
            f"{network} gives NaN or infinity for some images. Check its weights and the scale of "
            "the images it expects (preprocess), or take a layer nearer to the input."
        )
    few = features[: len(inputs)]
    if (few - few[0]).abs().max() <= 1e-6 * few.abs().max() and not (inputs == inputs[0]).all():
        raise ValueError(
            f"{network} gives the same features for all images: there is nothing to predict. Take "
            "another layer, check its weights and the scale of the images it expects (preprocess), "
            'or leave the features unbounded (squash=None) where "sigmoid" makes all of them 1.'
        )


class _WrongOutputError(ValueError):
    """A network returned no tensor with a row for each image."""
