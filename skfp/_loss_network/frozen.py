"""Networks that are frozen for good, alone or several as one."""

import copy
import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from sklearn.utils import gen_batches
from torch import Tensor, nn

from skfp._utils.fingerprint import fingerprint_callable

from .layers import Function

_BALANCING_BATCH = 16


class FrozenNetwork(nn.Module):
    """A network frozen for good: it never trains, but passes gradients on to the images.

    Parameters
    ----------
    network : torch.nn.Module
        Takes float images of shape (n_images, 3, height, width) and returns a tensor whose first
        axis is the images. It is copied, so that the caller's module stays as it is.
    name : str
        What messages call it.

    See Also
    --------
    load_loss_network : Makes one from its description.

    References
    ----------
    .. [1] G. Grund Pihlgren, F. Sandin, M. Liwicki, "Pretraining Image Encoders without
       Reconstruction via Feature Prediction Loss", ICPR 2020.

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
        """Compute the features of images.

        Parameters
        ----------
        images : Tensor of shape (n_images, 3, height, width)
            Values in [0, 1].

        Returns
        -------
        features : Tensor of shape (n_images, n_features)
            The network's output, flattened: channel by channel, row by row.

        Raises
        ------
        ValueError
            If the network returns anything but one tensor with a row for each image.
        """
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

    def maps_shape(self, image_size: tuple[int, int]) -> tuple[int, ...]:
        """Find the shape of an image's features before they are flattened.

        Parameters
        ----------
        image_size : tuple of (height, width)
            In pixels.

        Returns
        -------
        shape : tuple of int
            (channels, rows, columns) of feature maps, for most networks.

        Raises
        ------
        ValueError
            If the network cannot take images of that size.
        """
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
        """Count the features of an image.

        Parameters
        ----------
        image_size : tuple of (height, width)
            In pixels.

        Returns
        -------
        n_features : int
            The length of a row that `forward` returns.

        Raises
        ------
        ValueError
            If the network cannot take images of that size.
        """
        return math.prod(self.maps_shape(image_size))

    def fingerprint(self) -> str:
        """Identify what the network computes, as the key under which features are cached.

        Returns
        -------
        fingerprint : str of 64 hexadecimal digits
            The SHA-256 of the layers, their settings and their weights, whatever the device, the
            memory layout or the name. The code of a user's own module is not looked into: only the
            name of its class. Of a function it is: see `fingerprint_callable`.
        """
        digest = hashlib.sha256()
        for shard in self._parts():
            # Hashing each part on its own keeps neighbours apart: ("ab", "c") is not ("a", "bc").
            digest.update(hashlib.sha256(shard).digest())
        return digest.hexdigest()

    def _parts(self) -> Iterator[bytes]:
        for path, layer in self.network.named_modules():
            kind = f"{type(layer).__module__}.{type(layer).__qualname__}"
            settings = {
                key: value
                for key, value in sorted(vars(layer).items())
                # The settings of a network within this one are its name and no more.
                if isinstance(value, bool | int | float | str | tuple | list)
                and not isinstance(layer, FrozenNetwork)
            }
            yield f"{path} {kind} {settings}".encode()
            if isinstance(layer, Function):
                yield fingerprint_callable(layer.function).encode()
        for tensors in (self.network.named_parameters(), self.network.named_buffers()):
            for path, tensor in tensors:
                yield f"{path} {tensor.dtype} {tuple(tensor.shape)}".encode()
                flat = tensor.detach().cpu().contiguous().flatten()
                yield flat.view(torch.uint8).numpy().tobytes()


class JointNetwork(nn.Module):
    """Several networks that look at the same images, each with its share of all features.

    Parameters
    ----------
    networks : sequence of FrozenNetwork
    weights : sequence of float
        Share of each in the variance of the joined features, relative to the others'.
    """

    scales: Tensor

    def __init__(self, networks: Sequence[FrozenNetwork], weights: Sequence[float]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.weights = tuple(weights)
        # Zeros until `balance` has seen images.
        self.register_buffer("scales", torch.zeros(len(networks)))

    def forward(self, images: Tensor) -> Tensor:
        """Join the scaled features of images to rows (b, n_features)."""
        features = [network(images) for network in self.networks]
        return torch.cat([s * rows for s, rows in zip(self.scales, features, strict=True)], dim=1)

    @torch.no_grad()
    def balance(self, images: Tensor) -> None:
        """Scale features so that each network has its share of their variance, unless they are.

        Parameters
        ----------
        images : Tensor of shape (n_images, 3, height, width)
            A sample of those to train on.

        Raises
        ------
        ValueError
            If a network's features are constant or not finite.
        """
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
    """Refuse features that nothing can be learned from.

    Parameters
    ----------
    features : Tensor of shape (n_images, n_features)
    inputs : Tensor of shape (n, ...)
        What the first n of them were computed from.
    name : str
        Of the loss network.

    Raises
    ------
    ValueError
        If features are NaN or infinite, or the same for inputs that differ.
    """
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
    """A network returned something else than a tensor with a row for each image."""
