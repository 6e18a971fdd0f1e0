"""Equations 1 to 3 and the variational term, on cases small enough to work out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from skfp._data import Preprocess
from skfp._features import PCAProjection
from skfp._loss_network import FrozenNetwork
from skfp._networks import (
    FeaturePredictionLoss,
    PerceptualLoss,
    PixelLoss,
    ProjectedFeatureLoss,
    variational_term,
)


@pytest.fixture
def weighted_sum():
    """A loss network whose only feature of a pixel is red + 2 green + 3 blue."""
    layer = nn.Conv2d(3, 1, kernel_size=1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1))
    return FrozenNetwork(layer, name="weighted sum")


class TestPixelLoss:
    def test_by_hand(self):
        # Two images of one RGB pixel; squared errors 0, 1, 4, 9, 0, 16.
        images = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]).reshape(2, 3, 1, 1)
        decoded = torch.tensor([[0.0, 2.0, 0.0], [0.0, 4.0, 1.0]]).reshape(2, 3, 1, 1)

        assert PixelLoss(nn.Identity())(decoded, images).item() == pytest.approx(30 / 6)

    def test_stored_bytes_are_compared_on_the_unit_scale(self):
        images = torch.full((1, 3, 64, 64), 51, dtype=torch.uint8)  # 51 / 255 is 0.2
        decoded = torch.full((1, 3, 64, 64), 0.5)

        assert PixelLoss(Preprocess())(decoded, images).item() == pytest.approx(0.09)


class TestPerceptualLoss:
    def test_by_hand(self, weighted_sum):
        # Two images of one pixel. Features: 1 + 2 + 3 = 6 and 2 + 0 + 3 = 5; errors 2 and 1.
        decoded = torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0]]).reshape(2, 3, 1, 1)
        features = torch.tensor([[4.0], [6.0]])

        loss = PerceptualLoss(weighted_sum)(decoded, features)

        assert loss.item() == pytest.approx((2**2 + 1**2) / 2)

    def test_gradient_reaches_the_image_and_not_the_loss_network(self, weighted_sum):
        decoded = torch.ones(1, 3, 1, 1, requires_grad=True)

        PerceptualLoss(weighted_sum)(decoded, torch.tensor([[5.0]])).backward()

        # d (r + 2 g + 3 b - 5)^2 = 2 (6 - 5) (1, 2, 3)
        assert decoded.grad.flatten().tolist() == [2.0, 4.0, 6.0]
        assert all(weights.grad is None for weights in weighted_sum.parameters())


class TestFeaturePredictionLoss:
    def test_by_hand(self):
        predicted = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
        features = torch.tensor([[0.0, 3.0, 2.0], [4.0, 4.0, 8.0]])

        loss = FeaturePredictionLoss()(predicted, features)

        assert loss.item() == pytest.approx((4 + 1 + 9) / 6)


class TestProjectedFeatureLoss:
    def test_by_hand(self):
        # One image of three features (1, 5, 2), mean (1, 1, 0), one component (0, 1, 0):
        # its coefficient is 4, and the part outside the component is (0, 0, 2).
        components = PCAProjection(
            mean=torch.tensor([1.0, 1.0, 0.0]),
            basis=torch.tensor([[0.0, 1.0, 0.0]]),
            explained_variance_ratio=torch.tensor(1.0),
        )
        targets = components(torch.tensor([[1.0, 5.0, 2.0]]))

        loss = ProjectedFeatureLoss(n_features=3)(torch.tensor([[1.0]]), targets)

        # The decoded features are (1, 2, 0): squared errors 0, 9, 4.
        assert loss.item() == pytest.approx(13 / 3)

    def test_is_equation_3_of_the_features_the_decoder_can_reach(self):
        random = np.random.default_rng(0)
        n_features, k = 30, 4
        features = random.normal(3, 2, (6, n_features))
        mean = features.mean(axis=0)
        basis = np.linalg.qr(random.normal(size=(n_features, k)))[0].T
        predicted = random.normal(size=(6, k))
        expected = np.mean((predicted @ basis + mean - features) ** 2)

        components = PCAProjection(
            *(torch.from_numpy(part).float() for part in (mean, basis)), torch.tensor(0.5)
        )
        targets = components(torch.from_numpy(features).float())
        loss = ProjectedFeatureLoss(n_features)(torch.from_numpy(predicted).float(), targets)

        assert loss.item() == pytest.approx(expected, rel=1e-5)

    def test_gradient_is_that_of_equation_3(self):
        random = np.random.default_rng(1)
        features = torch.from_numpy(random.normal(size=(5, 12)))
        basis = torch.from_numpy(np.linalg.qr(random.normal(size=(12, 3)))[0].T.copy())
        components = PCAProjection(features.mean(dim=0), basis, torch.tensor(0.5))
        compressed = torch.from_numpy(random.normal(size=(5, 3))).requires_grad_()
        full = compressed.detach().clone().requires_grad_()

        ProjectedFeatureLoss(12)(compressed, components(features)).backward()
        FeaturePredictionLoss()(full @ basis + features.mean(dim=0), features).backward()

        torch.testing.assert_close(compressed.grad, full.grad)


class TestVariationalTerm:
    def test_standard_normal_costs_nothing(self):
        assert variational_term(torch.zeros(3, 2), torch.zeros(3, 2)).item() == 0

    def test_by_hand(self):
        mean = torch.tensor([[1.0, 0.0], [-2.0, 0.0]])
        log_variance = torch.tensor([[0.0, math.log(4)], [0.0, 0.0]])
        # -(1 + logvar - mean^2 - exp(logvar)) is 1, 3 - log(4), 4 and 0.

        term = variational_term(mean, log_variance)

        assert term.item() == pytest.approx((1 + 3 - math.log(4) + 4 + 0) / 4)
