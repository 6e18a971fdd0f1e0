"""A fit may begin with the networks of the last one; one that fails leaves them as they were."""

import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from skfp import FeaturePredictionEncoder, LossNetwork, PixelAutoencoder


def losses(encoder):
    return [(row["train_loss"], row["valid_loss"]) for row in encoder.history_]


def pooled(size, side):
    return nn.Sequential(nn.AvgPool2d(side), nn.Conv2d(3, 4, 1))


class TestWarmStart:
    def test_goes_on_from_the_weights_of_the_last_fit(self, procedure, frames):
        class Start(Callback):
            def on_train_begin(self, net, **kwargs):
                self.weights_ = copy.deepcopy(net.module_.encoder.state_dict())

        encoder = procedure(max_epochs=2, batch_size=6, warm_start=True).fit(frames)
        first, learned = losses(encoder), copy.deepcopy(encoder.encoder_.state_dict())
        encoder.set_params(callbacks=[start := Start()]).fit(frames)
        assert all(torch.equal(start.weights_[name], learned[name]) for name in learned)
        assert losses(encoder)[:2] == first
        assert [row["epoch"] for row in encoder.history_] == [1, 2, 3, 4]
        assert encoder.best_epoch_ in (3, 4)

    class Spoil(Callback):
        """Overwrites the decoder, so that no epoch is as good as what there was."""

        def on_epoch_begin(self, net, **kwargs):
            with torch.no_grad():
                for weights in net.module_.decoder.parameters():
                    weights.fill_(3.0)

    def test_that_is_worse_keeps_the_networks_it_began_with(self, procedure, frames):
        encoder = procedure(max_epochs=2, warm_start=True).fit(frames)
        before, loss, best = (
            encoder.transform(frames),
            encoder.validation_loss_,
            encoder.best_epoch_,
        )

        with pytest.warns(UserWarning, match=r"No epoch of this warm start .* lower .* are kept"):
            encoder.set_params(callbacks=[self.Spoil()]).fit(frames)

        np.testing.assert_array_equal(encoder.transform(frames), before)
        assert encoder.validation_loss_ == pytest.approx(loss, rel=1e-5)
        assert (encoder.best_epoch_, encoder.n_epochs_) == (best, 4)

    def test_is_judged_by_its_own_validation_images(self, frames):
        encoder = PixelAutoencoder(z=3, max_epochs=1, random_state=0, warm_start=True)
        encoder.fit(frames, X_val=frames[:2])
        loss = -encoder.score(frames[2:9])

        with pytest.warns(UserWarning, match="No epoch of this warm start"):
            encoder.set_params(callbacks=[self.Spoil()]).fit(frames, X_val=frames[2:9])

        assert encoder.validation_loss_ == pytest.approx(loss, rel=1e-5)

    def test_the_first_fit_begins_anew(self, frames):
        cold, warm = (
            PixelAutoencoder(z=3, max_epochs=2, random_state=0, warm_start=warm).fit(frames)
            for warm in (False, True)
        )
        assert losses(cold) == losses(warm)
        np.testing.assert_array_equal(cold.transform(frames), warm.transform(frames))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(("z", 5), ("encoder", "features"), ("encoder", "small"), ("gamma", 1.0)),
            ("encoder", lambda size: nn.AvgPool2d(8)),
            *(("loss_network", "vgg16"), ("loss_network", LossNetwork(pool=2))),
            *(("loss_network", nn.AvgPool2d(8)), ("target_components", 1)),
            *(("value_range", (0, 100)), ("channels", "mean"), ("resize", 80)),
        ],
    )
    def test_other_networks_are_refused(self, frames, name, value):
        encoder = FeaturePredictionEncoder(z=3, max_epochs=1, warm_start=True).fit(frames)
        with pytest.raises(ValueError, match=f"{name}.* was .* and is .*warm_start=False"):
            encoder.set_params(**{name: value}).fit(frames)

    def test_the_variance_head_does_not_outlive_gamma(self, frames):
        encoder = PixelAutoencoder(z=3, gamma=1.0, max_epochs=1, warm_start=True).fit(frames)
        with pytest.raises(ValueError, match="gamma > 0 was True and is False"):
            encoder.set_params(gamma=0.0).fit(frames)

    @pytest.mark.parametrize(
        "parameters",
        [
            {"loss_network": LossNetwork("alexnet", pool=2)},
            {"loss_network": [LossNetwork("alexnet", pool=2), nn.AvgPool2d(8)]},
            {"loss_network": nn.AvgPool2d(8), "encoder": functools.partial(pooled, side=16)},
        ],
        ids=["described", "several", "of the user's"],
    )
    def test_again_and_again_also_as_a_copy(self, frames, parameters):
        encoder = FeaturePredictionEncoder(
            z=3, max_epochs=1, gamma=0.1, warm_start=True, random_state=0, **parameters
        )
        for n_epochs in (1, 2, 3, 4):
            assert encoder.fit(frames).n_epochs_ == n_epochs
            encoder = copy.deepcopy(encoder)

    def test_other_images_than_before_are_refused(self, frames):
        encoder = FeaturePredictionEncoder(z=3, max_epochs=1, warm_start=True).fit(frames)
        with pytest.raises(ValueError, match="fitted on images of shape"):
            encoder.fit(frames[:, :48, :48])

    def test_an_interrupt_before_the_first_epoch_leaves_the_encoder_as_it_was(self, frames):
        class Interrupt(Callback):
            def on_batch_end(self, net, training, **kwargs):
                if training:
                    raise KeyboardInterrupt

        encoder = PixelAutoencoder(
            z=3, max_epochs=1, batch_size=4, random_state=0, warm_start=True
        ).fit(frames)
        before = encoder.transform(frames)
        with pytest.raises(KeyboardInterrupt):
            encoder.set_params(callbacks=[Interrupt()]).fit(frames)
        np.testing.assert_array_equal(encoder.transform(frames), before)


class TestFailure:
    """What ends a fit leaves what an earlier fit has learned."""

    class End(Callback):
        def __init__(self, error):
            self.error = error

        def on_batch_end(self, net, **kwargs):
            raise self.error

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
    @pytest.mark.parametrize("warm_start", [False, True])
    def test_leaves_the_estimator_as_it_was(self, frames, error, warm_start):
        encoder = FeaturePredictionEncoder(
            z=3, max_epochs=1, random_state=0, warm_start=warm_start
        ).fit(frames)
        before, embedding = dict(vars(encoder)), encoder.transform(frames)
        images = frames if warm_start else np.pad(frames, [(0, 0), (8, 8), (8, 8), (0, 0)])
        encoder.set_params(callbacks=[self.End(error)])
        with pytest.raises(error):
            encoder.fit(images)
        assert vars(encoder).keys() == before.keys()
        np.testing.assert_array_equal(encoder.transform(frames), embedding)
        assert np.isfinite(encoder.score(frames))
        pickle.loads(pickle.dumps(encoder.set_params(callbacks=None)))

    def test_leaves_no_trace_in_an_estimator_that_was_not_fitted(self, frames):
        encoder = PixelAutoencoder(z=3, callbacks=[self.End(RuntimeError)])
        before = dict(vars(encoder))
        with pytest.raises(RuntimeError):
            encoder.fit(frames)
        assert vars(encoder) == before
