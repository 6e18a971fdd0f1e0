"""Baselines learn what they should from a few images."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks.baselines import BASELINES, KMeansPatches, LabelledEncoder, frozen
from benchmarks.self_supervised import OBJECTIVES, SelfSupervisedEncoder, random_views
from skfp import FeaturePredictionEncoder


@pytest.fixture(scope="module")
def stripes():
    """Make noisy images with stripes across or down, and which."""
    random = np.random.default_rng(0)
    target = np.arange(80) % 2
    images = random.integers(0, 30, (80, 32, 32, 3), dtype=np.uint8)
    for image, down in zip(images, target, strict=True):
        start = random.integers(4)
        (image.swapaxes(0, 1) if down else image)[start::4] += 150
    return images, target


@pytest.mark.parametrize("make", [BASELINES["pca"].make, partial(frozen, "photo")])
def test_untrained_rows_embed(make, stripes):
    images, _ = stripes
    row = make(z=3, random_state=0).fit(images[:7])
    assert row.transform(images[7:12]).shape == (5, 3)


@pytest.mark.parametrize("grey", [False, True])
def test_patches_tell_textures_apart(stripes, grey):
    images, target = stripes
    images = images[..., 0] if grey else images
    patches = KMeansPatches(n_centroids=30, n_patches=2000, stride=2).fit(images[:40])
    described = patches(images[40:])
    assert described.shape == (40, 4 * 30)
    probe = LogisticRegression().fit(patches(images[:40]), target[:40])
    assert probe.score(described, target[40:]) > 0.9
    paler = np.uint8(images[40:] // 2 + 100)
    np.testing.assert_allclose(patches(paler), described, atol=0.05)


def test_an_encoder_learns_labels(stripes):
    images, target = stripes
    encoder = LabelledEncoder("small", z=4, max_epochs=8, lr=3e-3, augment=False)
    encoder.fit(images[:60], np.array(["across", "down"])[target[:60]])
    assert (encoder.predict(images[60:]) == np.array(["across", "down"])[target[60:]]).mean() > 0.9
    assert encoder.transform(images).shape == (80, 4)
    assert encoder.n_epochs_ == 8


def test_fine_tuning_begins_with_the_fitted_encoder(stripes):
    images, target = stripes
    fitted = FeaturePredictionEncoder(4, encoder="small", max_epochs=1, random_state=0).fit(images)
    before = fitted.transform(images)
    tuned = LabelledEncoder(fitted, max_epochs=1, lr=1e-9).fit(images, target)
    for trained, first in zip(
        tuned.embed_.parameters(), fitted.to_torch().parameters(), strict=True
    ):
        torch.testing.assert_close(trained, first, atol=1e-6, rtol=0)
    assert tuned.transform(images).shape == before.shape
    np.testing.assert_array_equal(fitted.transform(images), before)


def test_views_differ_and_stay_images():
    torch.manual_seed(0)
    images = torch.rand(64, 3, 16, 16)
    views = random_views(images)
    assert views.shape == images.shape
    assert views.min() >= 0
    assert views.max() <= 1
    assert (views != random_views(images)).flatten(1).any(dim=1).all()
    grey = (views - views.mean(dim=1, keepdim=True)).abs().amax(dim=(1, 2, 3)) < 1e-5
    assert 0.05 < grey.float().mean() < 0.4


def test_views_of_grey_images_are_grey():
    views = random_views(torch.rand(8, 1, 16, 16).expand(-1, 3, -1, -1))
    torch.testing.assert_close(views, views.mean(dim=1, keepdim=True).expand_as(views))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_self_supervision_lowers_its_loss(objective, stripes):
    pytest.importorskip("lightly")
    images, _ = stripes
    encoder = SelfSupervisedEncoder(objective, 4, encoder="small", max_epochs=6).fit(images)
    assert encoder.losses_[-1] < encoder.losses_[0]
    assert encoder.transform(images[:5]).shape == (5, 4)
    assert encoder.n_epochs_ == 6


def test_self_supervision_is_reproducible_and_stops_in_time(stripes):
    pytest.importorskip("lightly")
    images, _ = stripes
    first, second = (
        SelfSupervisedEncoder("simclr", 4, encoder="small", max_epochs=2).fit_transform(images)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    encoder = SelfSupervisedEncoder("simclr", 4, max_epochs=10_000, max_seconds=1).fit(images)
    assert 0 < encoder.n_epochs_ < 1000
