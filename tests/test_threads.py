"""Fits in threads: each as if it were alone, and without a trace in the user's random state."""

import threading

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from torch import nn

from skfp import FeaturePredictionEncoder, PixelAutoencoder


class Meet(Callback):
    """Lets two fits train in turn, epoch by epoch, so that neither is alone."""

    def __init__(self, barrier):
        self.barrier = barrier

    def on_epoch_begin(self, net, **kwargs):
        self.barrier.wait(timeout=60)

    on_batch_end = on_epoch_begin


def fit_at_once(encoders, images):
    """Fit each in a thread of joblib's, in step with the others."""
    barrier = threading.Barrier(len(encoders))
    for encoder in encoders:
        encoder.set_params(callbacks=[Meet(barrier)])
    joblib.Parallel(n_jobs=len(encoders), backend="threading")(
        joblib.delayed(encoder.fit)(images) for encoder in encoders
    )
    return [encoder.transform(images) for encoder in encoders]


def dropping(size):
    """An encoder of the user's that draws random numbers in training."""
    return nn.Sequential(nn.AvgPool2d(8), nn.Dropout(0.5), nn.Flatten(), nn.Linear(192, 4))


@pytest.mark.parametrize("gamma", [0.0, 1.0])
@pytest.mark.parametrize("estimator", [PixelAutoencoder, FeaturePredictionEncoder])
def test_two_fits_at_once_are_two_fits_in_turn(estimator, gamma, frames):
    encoders = [
        estimator(z=3, max_epochs=2, batch_size=4, gamma=gamma, random_state=seed)
        for seed in (0, 1)
    ]
    in_turn = [clone(encoder).fit(frames).transform(frames) for encoder in encoders]

    at_once = fit_at_once(encoders, frames)

    for one, other in zip(at_once, in_turn, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_seed_gives_the_same_in_each_thread(frames):
    encoders = [PixelAutoencoder(z=3, max_epochs=2, gamma=1.0, random_state=0) for _ in range(3)]

    first, *others = fit_at_once(encoders, frames)

    for other in others:
        np.testing.assert_array_equal(other, first)


def test_encoders_of_the_user_that_draw(frames):
    """One trains after another, as they share torch's generator."""
    encoders = [
        PixelAutoencoder(z=3, encoder=dropping, max_epochs=2, batch_size=4, random_state=seed)
        for seed in (0, 1)
    ]
    in_turn = [clone(encoder).fit(frames).transform(frames) for encoder in encoders]

    joblib.Parallel(n_jobs=2, backend="threading")(
        joblib.delayed(encoder.fit)(frames) for encoder in encoders
    )

    for encoder, embedding in zip(encoders, in_turn, strict=True):
        np.testing.assert_array_equal(encoder.transform(frames), embedding)


def test_streams_at_once(frames):
    def stream(seed):
        encoder = PixelAutoencoder(z=3, gamma=1.0, batch_size=4, random_state=seed)
        for start in range(0, 16, 8):
            encoder.partial_fit(frames[start : start + 8])
        return encoder.transform(frames)

    in_turn = [stream(seed) for seed in range(3)]
    at_once = joblib.Parallel(n_jobs=3, backend="threading")(
        joblib.delayed(stream)(seed) for seed in range(3)
    )

    np.testing.assert_array_equal(at_once, in_turn)


@pytest.mark.parametrize("encoder", ["image", dropping])
def test_random_state_of_the_user_is_unchanged(frames, encoder):
    torch.manual_seed(7)
    before = torch.get_rng_state()

    joblib.Parallel(n_jobs=2, backend="threading")(
        joblib.delayed(
            PixelAutoencoder(z=3, encoder=encoder, max_epochs=1, gamma=1.0, random_state=seed).fit
        )(frames)
        for seed in (0, 1)
    )

    assert torch.equal(torch.get_rng_state(), before)


def test_a_search_in_threads_is_one_in_turn(frames):
    def search(n_jobs):
        encoder = PixelAutoencoder(max_epochs=1, batch_size=4, random_state=0)
        grid = {"z": [2, 3], "gamma": [0.0, 1.0]}
        return GridSearchCV(encoder, grid, cv=2, n_jobs=n_jobs, error_score="raise").fit(frames)

    in_turn = search(None)
    with joblib.parallel_config(backend="threading"):
        in_threads = search(3)

    for name in ("split0_test_score", "split1_test_score"):
        assert in_threads.cv_results_[name].tolist() == in_turn.cv_results_[name].tolist()
