"""The three losses of the paper (equations 1 to 3) and the variational term.

Each loss compares the decoder's output with a batch of targets: a mean over images and elements.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class PixelLoss(nn.Module):
    """Equation 1, PW: mean squared error of pixels; `preprocess` makes stored images comparable."""

    def __init__(self, preprocess: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess

    def forward(self, decoded: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Compare decoded images (b, 3, height, width) with stored images."""
        return F.mse_loss(decoded, self.preprocess(images))


class PerceptualLoss(nn.Module):
    """Equation 2, PS: mean squared error between the features of decoded and original images."""

    def __init__(self, loss_network: nn.Module) -> None:
        super().__init__()
        self.loss_network = loss_network

    def forward(self, decoded: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Compare decoded images (b, 3, height, width) with features (b, n_features)."""
        return F.mse_loss(self.loss_network(decoded), features)


class FeaturePredictionLoss(nn.Module):
    """Equation 3, FP: mean squared error between predicted and true features.

    >>> import torch
    >>> predicted, true = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 3.0]])
    >>> FeaturePredictionLoss()(predicted, true)
    tensor(2.)
    """

    def forward(self, predicted: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Compare predicted with true features, both (b, n_features)."""
        return F.mse_loss(predicted, features)


class ProjectedFeatureLoss(nn.Module):
    """Equation 3 for a decoder that predicts the leading principal components of the features.

    The squared error of the features is that of their coefficients plus the squared residual, the
    part of the true features outside the components, which no prediction changes. Both count, so
    that the value is equation 3's, comparable for any number of components.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.n_features = n_features

    def forward(self, predicted: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Compare coefficients (b, k) with targets (b, k + 1): coefficients, squared residual."""
        error = (predicted - targets[:, :-1]).square().sum(dim=1) + targets[:, -1]
        return error.mean() / self.n_features


def variational_term(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Divergence of embeddings' distribution (both (b, z)) from the standard normal, as a mean.

    >>> import torch
    >>> variational_term(torch.zeros(1, 2), torch.zeros(1, 2)).item() == 0
    True
    """
    return -(1 + log_variance - mean.square() - log_variance.exp()).mean()
