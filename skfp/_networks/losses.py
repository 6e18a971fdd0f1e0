"""The three losses of the paper (equations 1 to 3) and the variational term.

Each loss compares what the decoder gave with what a training set holds as target, and is a mean
over images and elements.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class PixelLoss(nn.Module):
    """Equation 1, PW: mean squared error between decoded and original pixels.

    Parameters
    ----------
    canvas : nn.Module
        Turns stored images into the images that are compared.
    """

    def __init__(self, preprocess: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess

    def forward(self, decoded: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Compare images (b, 3, height, width) with stored images (b, channels, h, w)."""
        return F.mse_loss(decoded, self.preprocess(images))


class PerceptualLoss(nn.Module):
    """Equation 2, PS: mean squared error between the features of decoded and original images.

    Parameters
    ----------
    loss_network : nn.Module
        Maps images (b, 3, height, width) to features (b, n_features).
    """

    def __init__(self, loss_network: nn.Module) -> None:
        super().__init__()
        self.loss_network = loss_network

    def forward(self, decoded: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Compare images (b, 3, height, width) with features (b, n_features) of the originals."""
        return F.mse_loss(self.loss_network(decoded), features)


class FeaturePredictionLoss(nn.Module):
    """Equation 3, FP: mean squared error between predicted and true features.

    Examples
    --------
    >>> import torch
    >>> predicted, true = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 3.0]])
    >>> FeaturePredictionLoss()(predicted, true)
    tensor(2.)
    """

    def forward(self, predicted: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Compare predicted with true features, both (b, n_features)."""
        return F.mse_loss(predicted, features)


class ComponentPredictionLoss(nn.Module):
    """Equation 3 for a decoder that can only move along principal components of the features.

    The decoded features are the mean plus predicted coefficients times orthonormal components.
    Their squared error against the true features is that of the coefficients, plus the part of
    the true features outside the components, which no prediction can change. Both are counted,
    so that the value is equation 3's, comparable for any number of components.

    Parameters
    ----------
    n_features : int
        Number of features of one image before compression.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.n_features = n_features

    def forward(self, predicted: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Compare coefficients (b, k) with targets (b, k + 1), the residual in the last column."""
        error = (predicted - targets[:, :-1]).square().sum(dim=1) + targets[:, -1]
        return error.mean() / self.n_features


def variational_term(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Divergence of the embedding's distribution from the standard normal, as a mean.

    Parameters
    ----------
    mean, log_variance : Tensor of shape (b, z)
        The distribution from which the embedding is drawn in training.

    Returns
    -------
    term : Tensor of shape ()
        Zero for the standard normal distribution, positive otherwise.

    Examples
    --------
    >>> import torch
    >>> variational_term(torch.zeros(1, 2), torch.zeros(1, 2)).item() == 0
    True
    """
    return -(1 + log_variance - mean.square() - log_variance.exp()).mean()
