"""The loss network p: a frozen, pretrained network whose features say what matters in an image."""

import copy
import difflib
import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

_EMBEDDED = {"alexnet": Path(__file__).parent / "weights" / "alexnet_relu2.safetensors"}


class LossNetwork(nn.Module):
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
    load_loss_network : Makes one from its name, a weights file or a module.

    References
    ----------
    .. [1] G. Grund Pihlgren, F. Sandin, M. Liwicki, "Pretraining Image Encoders without
       Reconstruction via Feature Prediction Loss", ICPR 2020.

    Examples
    --------
    >>> import torch
    >>> from skfp.loss_network import LossNetwork
    >>> p = LossNetwork(torch.nn.Conv2d(3, 2, kernel_size=3), name="one layer")
    >>> p(torch.rand(5, 3, 16, 16)).shape
    torch.Size([5, 392])
    """

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
            Values in [0, 1]; no mean is subtracted and nothing divided by a deviation.

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
        raise ValueError(
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
        images = like.new_zeros(1, 3, height, width)
        try:
            with torch.no_grad():
                return tuple(self._maps(images).shape[1:])
        except RuntimeError as error:
            raise ValueError(
                f"The loss network {self.name!r} cannot take images of {height} x {width} pixels "
                f"(height x width): {error}"
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
            name of its class.
        """
        digest = hashlib.sha256()
        for part in self._parts():
            # Hashing each part on its own keeps neighbours apart: ("ab", "c") is not ("a", "bc").
            digest.update(hashlib.sha256(part).digest())
        return digest.hexdigest()

    def _parts(self) -> Iterator[bytes]:
        for path, layer in self.network.named_modules():
            kind = f"{type(layer).__module__}.{type(layer).__qualname__}"
            settings = {
                key: value
                for key, value in sorted(vars(layer).items())
                if isinstance(value, bool | int | float | str | tuple | list)
            }
            yield f"{path} {kind} {settings}".encode()
        for tensors in (self.network.named_parameters(), self.network.named_buffers()):
            for path, tensor in tensors:
                yield f"{path} {tensor.dtype} {tuple(tensor.shape)}".encode()
                flat = tensor.detach().cpu().contiguous().flatten()
                yield flat.view(torch.uint8).numpy().tobytes()


def load_loss_network(loss_network: str | os.PathLike[str] | nn.Module) -> LossNetwork:
    """Make the loss network that an estimator's `loss_network` parameter asks for.

    Parameters
    ----------
    loss_network : {"alexnet"}, path-like or torch.nn.Module
        - "alexnet": the paper's loss network [1]_, torchvision's AlexNet pretrained on ImageNet,
          cut after its second ReLU and followed by a sigmoid. Its weights come with the package.
        - A path, or a string that ends in `.safetensors`: the same layers with other weights, in a
          file with the tensors `0.weight`, `0.bias`, `3.weight` and `3.bias`, named and shaped as
          in `torchvision.models.alexnet().features`.
        - A module: copied and used as it is, its output flattened.

    Returns
    -------
    loss_network : LossNetwork
        Frozen, in evaluation mode, on the CPU unless a module was elsewhere.

    Raises
    ------
    ValueError
        If the name is unknown, or the file is missing, unreadable or holds other tensors.
    TypeError
        If `loss_network` is none of the above.

    References
    ----------
    .. [1] G. Grund Pihlgren, F. Sandin, M. Liwicki, "Pretraining Image Encoders without
       Reconstruction via Feature Prediction Loss", ICPR 2020.

    Examples
    --------
    >>> import torch
    >>> from skfp.loss_network import load_loss_network
    >>> p = load_loss_network("alexnet")
    >>> p(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 9408])
    >>> p.n_features((96, 96))
    23232
    """
    if isinstance(loss_network, LossNetwork):
        return copy.deepcopy(loss_network)
    if isinstance(loss_network, nn.Module):
        return LossNetwork(loss_network, name=type(loss_network).__name__)
    if isinstance(loss_network, str) and loss_network in _EMBEDDED:
        return LossNetwork(_alexnet_relu2(_EMBEDDED[loss_network]), name=loss_network)
    if isinstance(loss_network, str) and not loss_network.endswith(".safetensors"):
        nearest = difflib.get_close_matches(loss_network.lower(), _EMBEDDED, n=1, cutoff=0.4)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(
            f"Unknown loss_network {loss_network!r}.{hint} Offered are "
            f"{', '.join(map(repr, _EMBEDDED))}, a path to a .safetensors file, "
            "or a torch.nn.Module."
        )
    if isinstance(loss_network, str | os.PathLike):
        return LossNetwork(_alexnet_relu2(Path(loss_network)), name=os.fspath(loss_network))
    raise TypeError(
        f"loss_network must be one of {', '.join(map(repr, _EMBEDDED))}, a path to a .safetensors "
        f"file or an instance of torch.nn.Module, got {loss_network!r}."
    )


def empty_loss_network(loss_network: str | os.PathLike[str] | nn.Module) -> LossNetwork:
    """Make a loss network without its weights, to be loaded from a fitted estimator's.

    Parameters
    ----------
    loss_network : {"alexnet"}, path-like or torch.nn.Module
        As in `load_loss_network`; no file is read.

    Returns
    -------
    loss_network : LossNetwork
        On the meta device, except for a module.
    """
    if isinstance(loss_network, nn.Module):
        return load_loss_network(loss_network)
    return LossNetwork(_empty_alexnet_relu2(), name=os.fspath(loss_network))


def _empty_alexnet_relu2() -> nn.Sequential:
    # On the meta device nothing is initialised, so the user's random state is left alone.
    with torch.device("meta"):
        return nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.Sigmoid(),
        )


def _alexnet_relu2(weights: Path) -> nn.Sequential:
    network = _empty_alexnet_relu2()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict(_read_weights(weights, shapes), assign=True)
    # Convolutions of these shapes run a fifth faster with the channels innermost.
    return network.to(memory_format=torch.channels_last)


def _read_weights(file: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    expected = "expected a safetensors file with the tensors " + ", ".join(
        f"{name} of shape {shape}" for name, shape in shapes.items()
    )
    if not file.is_file():
        raise ValueError(f"There is no weights file {str(file)!r}: {expected}.")
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"Cannot read the weights file {str(file)!r} ({error}): {expected}."
        ) from error
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = [
        f"{name} is {found.get(name, 'missing')}"
        for name, shape in shapes.items()
        if found.get(name) != shape
    ]
    if unexpected := sorted(found.keys() - shapes.keys()):
        wrong.append(f"{len(unexpected)} not expected, such as {unexpected[0]}")
    if wrong:
        raise ValueError(f"Wrong weights in {str(file)!r} ({', '.join(wrong)}): {expected}.")
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ValueError(
                f"Wrong weights in {str(file)!r}: {name} must hold finite floating-point numbers, "
                f"got NaN, infinity or {tensor.dtype}."
            )
    # Copied, since what `load_file` returns may still be a view of the file.
    return {name: tensor.to(torch.float32, copy=True) for name, tensor in weights.items()}
