"""Fits that end in time: their wall time, their schedule, and how they go on."""

import time

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from torch import nn

from skfp import FeaturePredictionEncoder, PixelAutoencoder


class LearningRates(Callback):
    """Keeps the learning rate after each step."""

    def on_train_begin(self, net, **kwargs):
        self.rates_ = []

    def on_batch_end(self, net, training, **kwargs):
        if training:
            self.rates_.append(net.optimizer_.param_groups[0]["lr"])


class Sleep(Callback):
    """Makes each step and each batch of validation take its time."""

    def __init__(self, training=0.01, validation=0.0):
        self.seconds = {True: training, False: validation}

    def on_batch_begin(self, net, batch, training, **kwargs):
        time.sleep(self.seconds[training])


class BreakOff(Callback):
    """Ends the program at the beginning of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch:
            raise SystemExit


@pytest.fixture
def make():
    """Make an encoder whose features cost nothing, and whose epochs only time ends."""

    def make(*callbacks, **parameters):
        defaults = {"z": 2, "batch_size": 4, "random_state": 0, "patience": 10**6}
        defaults |= {"max_epochs": None, "loss_network": nn.AvgPool2d(16), "encoder": "small"}
        return FeaturePredictionEncoder(**defaults | {"callbacks": callbacks} | parameters)

    return make


def timed_fit(encoder, images):
    start = time.monotonic()
    encoder.fit(images)
    return time.monotonic() - start


def test_fit_takes_that_long_with_features_and_validation(make, frames):
    make(max_seconds=0.1).fit(frames)  # what happens once a process is no part of it

    def slow(pixels):
        time.sleep(0.1)
        return pixels[:, :, ::16, ::16].flatten(1)

    encoder = make(Sleep(0.05, 0.05), max_seconds=2, loss_network=slow)
    assert timed_fit(encoder, frames) == pytest.approx(2, rel=0.15)
    assert encoder.n_epochs_ > 1


def test_ends_within_an_epoch_and_validates_it(make, frames):
    encoder = make(Sleep(0.1), max_seconds=1.3, batch_size=2, validation_fraction=0.5)
    encoder.fit(np.concatenate([frames] * 3))  # an epoch is 2.4 s
    (row,) = encoder.history_
    assert row["seconds"] < 1.4
    assert encoder.validation_loss_ == row["valid_loss"] > 0


def test_learning_rate_rises_and_falls_in_that_time(make, frames):
    rates = LearningRates()
    make(Sleep(), rates, max_seconds=1, lr=1e-2).fit(frames)
    assert max(rates.rates_) == pytest.approx(1e-2, rel=0.05)
    assert 0.15 < np.argmax(rates.rates_) / len(rates.rates_) < 0.5
    assert rates.rates_[-1] < 1e-3


def test_max_epochs_still_ends_training_and_schedule(make, frames):
    rates, without = LearningRates(), LearningRates()
    encoder = make(rates, max_seconds=1000, max_epochs=3).fit(frames)
    make(without, max_epochs=3).fit(frames)
    assert encoder.n_epochs_ == 3
    np.testing.assert_allclose(rates.rates_, without.rates_)


def test_a_constant_learning_rate_stays(make, frames):
    rates = LearningRates()
    make(rates, max_seconds=0.3, lr=1e-2, lr_schedule=None).fit(frames)
    assert set(rates.rates_) == {1e-2}


def test_time_that_features_use_up_leaves_one_step(make, frames):
    def slow(pixels):
        time.sleep(0.2)
        return pixels[:, :, ::16, ::16].flatten(1)

    encoder = make(max_seconds=0.1, loss_network=slow)
    with pytest.warns(UserWarning, match=r"max_seconds=0.1 .* before each image was seen"):
        encoder.fit(frames)
    assert encoder.transform(frames).shape == (16, 2)


def test_seconds_of_a_fit_that_was_broken_off_count(make, frames, tmp_path):
    def parameters():
        return {"max_seconds": 2, "checkpoint_dir": tmp_path}

    start = time.monotonic()
    with pytest.raises(SystemExit):
        make(Sleep(0.1), BreakOff(3), **parameters()).fit(frames)
    first = time.monotonic() - start
    encoder = make(Sleep(0.1), **parameters())
    assert first + timed_fit(encoder, frames) == pytest.approx(2, rel=0.25)
    epochs = [row["epoch"] for row in encoder.history_]
    assert epochs == list(range(1, len(epochs) + 1))


def test_a_fit_whose_time_was_up_trains_no_step_more(make, frames, tmp_path):
    done = make(Sleep(), max_seconds=0.4, checkpoint_dir=tmp_path).fit(frames)
    again = make(BreakOff(1), max_seconds=0.4, checkpoint_dir=tmp_path)
    assert timed_fit(again, frames) < 1
    np.testing.assert_array_equal(again.transform(frames), done.transform(frames))


def test_a_search_over_it(frames):
    encoder = PixelAutoencoder(z=2, max_epochs=None, batch_size=4, encoder="small")
    search = GridSearchCV(encoder, {"max_seconds": [0.1, 0.3]}, cv=2).fit(frames)
    assert search.best_estimator_.n_epochs_ >= 1


def test_without_any_limit_training_would_not_end(make, frames):
    with pytest.raises(ValueError, match="max_epochs and max_seconds are None"):
        make().fit(frames)
