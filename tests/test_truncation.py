"""Smaller embeddings from a fitted encoder."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from skfp import FeaturePredictionEncoder


@pytest.fixture(scope="module")
def digits():
    """Handwritten digits to train on, and others to test with."""
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    return images[:300], labels[:300], images[300:400], labels[300:400]


@pytest.fixture(scope="module")
def encoder(digits):
    encoder = FeaturePredictionEncoder(
        z=16, max_epochs=10, encoder="small", loss_network=nn.AvgPool2d(4), random_state=0
    )
    return encoder.fit(digits[0])


def test_beats_the_first_numbers_of_the_embedding(encoder, digits):
    images, labels, test_images, test_labels = digits
    sizes = (2, 4, 6)

    def accuracy(encoder):
        train, test = encoder.transform(images), encoder.transform(test_images)
        probes = [KNeighborsClassifier(5).fit(train[:, :z], labels) for z in sizes]
        scores = [p.score(test[:, :z], test_labels) for p, z in zip(probes, sizes, strict=True)]
        return np.mean(scores)

    assert accuracy(encoder.truncate(16, images)) > accuracy(encoder) + 0.05


def test_all_numbers_decode_as_before(encoder, digits):
    images, _, test_images, _ = digits
    whole = encoder.truncate(16, images)
    assert whole.score(test_images) == pytest.approx(encoder.score(test_images), rel=1e-3)
    scores = [encoder.truncate(z, images).score(test_images) for z in (1, 3, 8, 16)]
    assert scores == sorted(scores)


def test_smaller_embeddings_begin_larger_ones(encoder, digits):
    images, _, test_images, _ = digits
    large, small = (encoder.truncate(z, images).transform(test_images) for z in (9, 4))
    np.testing.assert_allclose(large[:, :4], small, rtol=1e-3, atol=1e-3)


def test_every_estimator_gives_a_fitted_copy(quick, frames, tmp_path):
    trained = quick().fit(frames)
    before = trained.transform(frames)
    truncated = trained.truncate(2, frames)
    embedding = truncated.transform(frames)
    assert embedding.shape == (len(frames), 2)
    assert (truncated.z, trained.z) == (2, 3)
    assert len(truncated.get_feature_names_out()) == 2
    np.testing.assert_array_equal(trained.transform(frames), before)
    truncated.save(tmp_path / "encoder")
    loaded = type(trained).load(tmp_path / "encoder")
    np.testing.assert_allclose(loaded.transform(frames), embedding, rtol=1e-5)


def test_training_can_go_on(encoder, digits):
    truncated = encoder.truncate(3, digits[0]).set_params(warm_start=True, max_epochs=10)
    before = truncated.score(digits[2])
    assert truncated.fit(digits[0]).score(digits[2]) > before


def test_refuses_what_it_cannot_do(encoder, digits):
    images = digits[0]
    with pytest.raises(ValueError, match="z == 17, must be <= 16"):
        encoder.truncate(17, images)
    with pytest.raises(ValueError, match="holds 8 images, too few to tell z=9"):
        encoder.truncate(9, images[:8])
    variational = FeaturePredictionEncoder(
        z=4, gamma=0.1, max_epochs=1, loss_network=nn.AvgPool2d(16)
    ).fit(images[:20])
    with pytest.raises(ValueError, match="variational"):
        variational.truncate(2, images)
