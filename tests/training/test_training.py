"""Training as a user sees it: epochs, batches, the best epoch, seeds, progress and callbacks."""

import contextlib
import copy
import os
import pty
import random
import subprocess
import sys
import termios
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback, Checkpoint, EarlyStopping
from torch import nn

from skfp import FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder
from skfp._utils.devices import choose_device


class Snapshots(Callback):
    """Keeps the encoder's weights as they are at the end of each epoch."""

    def on_train_begin(self, net, **kwargs):
        self.weights_ = []

    def on_epoch_end(self, net, **kwargs):
        self.weights_.append(copy.deepcopy(net.module_.encoder.state_dict()))


class Spoil(Callback):
    """Overwrites the weights at the beginning of an epoch, so that no later one is as good."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch:
            with torch.no_grad():
                for weights in net.module_.decoder.parameters():
                    weights.fill_(3.0)


class Batches(Callback):
    """Keeps the images of each batch, for each epoch in training and in validation."""

    def on_train_begin(self, net, **kwargs):
        self.train_, self.valid_ = [], []

    def on_epoch_begin(self, net, **kwargs):
        self.train_.append([])
        self.valid_.append([])

    def on_batch_end(self, net, batch, training, **kwargs):
        (self.train_ if training else self.valid_)[-1].append(batch[0].clone())


def identities(batches):
    return [image.numpy().tobytes() for batch in batches for image in batch]


def assert_same_weights(module, weights):
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)


class TestBestEpoch:
    @pytest.fixture(scope="class")
    def spoilt(self, frames):
        """An encoder of which all epochs from the third on are spoilt, and what it was fed."""
        snapshots = Snapshots()
        encoder = FeaturePredictionEncoder(
            z=3,
            max_epochs=4,
            patience=10,
            batch_size=6,
            random_state=0,
            callbacks=[Spoil(epoch=3), snapshots],
        )
        return encoder.fit(frames, X_val=frames[:7]), snapshots

    def test_is_the_one_of_the_least_validation_loss(self, spoilt):
        encoder, _ = spoilt
        losses = [epoch["valid_loss"] for epoch in encoder.history_]

        assert encoder.n_epochs_ == len(losses) == 4
        assert encoder.best_epoch_ == np.argmin(losses) + 1 <= 2
        assert encoder.validation_loss_ == min(losses)
        assert [epoch["epoch"] for epoch in encoder.history_] == [1, 2, 3, 4]

    def test_its_encoder_is_restored(self, spoilt):
        encoder, snapshots = spoilt

        assert_same_weights(encoder.encoder_, snapshots.weights_[encoder.best_epoch_ - 1])

    def test_its_decoder_is_restored(self, spoilt, frames):
        encoder, _ = spoilt

        loss = -encoder.score(frames[:7])

        assert loss == pytest.approx(encoder.validation_loss_, rel=1e-4)
        assert loss < encoder.history_[-1]["valid_loss"] * 0.9

    def test_the_last_epoch_may_be_the_best(self, frames):
        snapshots = Snapshots()
        encoder = FeaturePredictionEncoder(
            z=4, max_epochs=3, patience=1, random_state=0, callbacks=[Spoil(epoch=1), snapshots]
        ).fit(frames, X_val=frames)

        # After such a start every epoch is better than the one before.
        losses = [epoch["valid_loss"] for epoch in encoder.history_]
        assert losses == sorted(losses, reverse=True)
        assert encoder.best_epoch_ == encoder.n_epochs_ == 3
        assert_same_weights(encoder.encoder_, snapshots.weights_[-1])


class TestEarlyStopping:
    @pytest.mark.parametrize("patience", [1, 2])
    def test_after_so_many_epochs_without_a_better_one(self, frames, patience):
        encoder = FeaturePredictionEncoder(
            z=4,
            max_epochs=20,
            patience=patience,
            batch_size=5,
            random_state=0,
            callbacks=[Spoil(epoch=3)],
        ).fit(frames)

        assert encoder.best_epoch_ <= 2
        assert encoder.n_epochs_ == len(encoder.history_) == encoder.best_epoch_ + patience


class TestLearning:
    def test_loss_falls_on_frames(self, quick, frames):
        encoder = quick(z=8, max_epochs=6, batch_size=8).fit(frames, X_val=frames)

        assert encoder.history_[-1]["train_loss"] < encoder.history_[0]["train_loss"] * 0.7
        assert encoder.validation_loss_ < encoder.history_[0]["valid_loss"] * 0.9

    def test_pixels_are_reconstructed(self):
        """Black and white halves, in four directions, come back the right way round."""
        images = np.zeros((4, 64, 48, 3), dtype=np.uint8)
        images[0, :32], images[1, 32:], images[2, :, :24], images[3, :, 24:] = 255, 255, 255, 255
        X = np.tile(images, (3, 1, 1, 1))
        encoder = PixelAutoencoder(z=8, max_epochs=16, batch_size=6, random_state=0)

        encoder.fit(X, X_val=images)

        decoded = encoder.inverse_transform(encoder.transform(images))
        right = (decoded > 127) == (images > 127)
        assert right.mean() > 0.95

    @pytest.fixture
    def rates(self, quick, frames):
        """Train for two epochs of four batches and return the learning rate of each batch."""

        def rates(**settings):
            rates_ = []

            class Record(Callback):
                def on_grad_computed(self, net, named_parameters, training=False, **kwargs):
                    rates_.append(net.optimizer_.param_groups[0]["lr"])

            quick(max_epochs=2, batch_size=5, callbacks=[Record()], **settings).fit(
                frames, X_val=frames[:3]
            )
            return rates_

        return rates

    def test_learning_rate_without_a_schedule(self, rates):
        assert rates(lr=0.02, lr_schedule=None) == [0.02] * 8

    def test_learning_rate_of_one_cycle(self, rates):
        rates_ = rates(lr=0.02, lr_schedule="one-cycle")

        assert len(rates_) == 8
        peak = int(np.argmax(rates_))
        assert rates_[peak] == pytest.approx(0.02, rel=0.1)
        assert rates_[0] < 0.002
        assert rates_[-1] < 0.002
        assert rates_[: peak + 1] == sorted(rates_[: peak + 1])
        assert rates_[peak:] == sorted(rates_[peak:], reverse=True)

    def test_one_cycle_is_that_of_feature_prediction_alone(self):
        estimators = (FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder)

        assert [e().lr_schedule for e in estimators] == ["one-cycle", None, None]


class TestNetParams:
    """Further parameters of skorch's NeuralNet."""

    def test_mixed_precision(self, frames):
        settings = {"z": 8, "max_epochs": 3, "batch_size": 8, "random_state": 0}
        encoders = [
            FeaturePredictionEncoder(net_params={"autocast": autocast}, **settings).fit(frames)
            for autocast in (False, True)
        ]

        losses = [encoder.validation_loss_ for encoder in encoders]
        assert losses[0] != losses[1]
        np.testing.assert_allclose(losses[1], losses[0], rtol=0.1)
        assert encoders[1].transform(frames).dtype == np.float32
        assert all(p.dtype == torch.float32 for p in encoders[1].encoder_.parameters())

    def test_another_optimizer(self, frames):
        def fit(**net_params):
            return PixelAutoencoder(z=2, max_epochs=1, random_state=0, net_params=net_params).fit(
                frames
            )

        sgd, adam = fit(optimizer=torch.optim.SGD, optimizer__fused=False), fit()
        assert not np.array_equal(sgd.transform(frames), adam.transform(frames))

    @pytest.mark.slow
    def test_compiled(self, frames):
        encoder = PixelAutoencoder(
            z=2, max_epochs=1, random_state=0, net_params={"compile": True}
        ).fit(frames)
        plain = PixelAutoencoder(z=2, max_epochs=1, random_state=0).fit(frames)
        assert encoder.validation_loss_ == pytest.approx(plain.validation_loss_, rel=1e-2)
        assert np.isfinite(encoder.transform(frames)).all()

    @pytest.mark.parametrize("name", ["lr", "batch_size", "device", "callbacks", "gamma"])
    def test_parameters_of_the_estimator_are_refused(self, frames, name):
        with pytest.raises(ValueError, match=f"net_params sets '{name}'.*parameters of the est"):
            PixelAutoencoder(net_params={name: 1}, max_epochs=1).fit(frames)


class TestBatches:
    def test_each_image_once_an_epoch_in_a_new_order(self, noise):
        X = noise(23, 64, 64, 3)
        batches = Batches()
        PixelAutoencoder(z=2, max_epochs=2, batch_size=4, random_state=0, callbacks=[batches]).fit(
            X
        )

        first, second = (identities(epoch) for epoch in batches.train_)
        held_out = identities(batches.valid_[0])
        # A fifth of 23 images, rounded up, is held out.
        assert (len(first), len(held_out)) == (18, 5)
        assert sorted(first) == sorted(second)
        assert first != second
        assert sorted(first + held_out) == sorted(
            image.tobytes() for image in X.transpose(0, 3, 1, 2).copy()
        )
        assert held_out == identities(batches.valid_[1])
        assert max(len(batch) for batch in batches.train_[0]) == 4

    @pytest.mark.parametrize(("fraction", "n_valid"), [(0.5, 10), (0.01, 1)])
    def test_validation_fraction(self, noise, fraction, n_valid):
        batches = Batches()
        PixelAutoencoder(
            z=2, max_epochs=1, validation_fraction=fraction, random_state=0, callbacks=[batches]
        ).fit(noise(20, 16, 16, 3))

        assert len(identities(batches.valid_[0])) == n_valid
        assert len(identities(batches.train_[0])) == 20 - n_valid

    def test_bytes_stay_bytes_until_they_are_on_the_device(self, noise):
        batches = Batches()
        PixelAutoencoder(z=2, max_epochs=1, random_state=0, callbacks=[batches]).fit(
            noise(10, 64, 64, 3)
        )

        assert batches.train_[0][0].dtype == torch.uint8

    @pytest.mark.parametrize("n_images", [5, 9])
    def test_last_batch_of_one_image(self, noise, n_images):
        """Batches of 4 leave one image over, for which BatchNorm has but one row."""
        X = noise(n_images, 64, 64, 3)
        encoder = PixelAutoencoder(z=2, max_epochs=1, batch_size=4, random_state=0)

        assert np.isfinite(encoder.fit(X, X_val=X[:1]).validation_loss_)


class TestValidationImages:
    def test_all_of_X_is_trained_on_and_X_val_judges(self, quick, noise):
        X, X_val = noise(11, 64, 64, 3), noise(5, 64, 64, 3, seed=1)
        batches = Batches()

        encoder = quick(batch_size=3, callbacks=[batches]).fit(X, X_val=X_val)

        assert len(identities(batches.train_[0])) == 11
        assert identities(batches.valid_[0]) == [
            image.tobytes() for image in X_val.transpose(0, 3, 1, 2).copy()
        ]
        assert encoder.validation_loss_ == pytest.approx(-encoder.score(X_val), rel=1e-4)

    def test_one_image_is_enough_to_train_on_with_X_val(self, noise):
        X = noise(3, 64, 64, 3)

        encoder = PixelAutoencoder(z=2, max_epochs=1, random_state=0).fit(X[:1], X_val=X[1:])

        assert np.isfinite(encoder.validation_loss_)

    def test_takes_another_layout_and_range(self, noise):
        X, X_val = noise(8, 64, 64, 3), noise(5, 64, 64, 3, seed=1)
        encoder = PixelAutoencoder(z=2, max_epochs=1, random_state=0)

        expected = encoder.fit(X, X_val=X_val).validation_loss_

        floats = (X_val / 255).transpose(0, 3, 1, 2)
        assert encoder.fit(X, X_val=floats).validation_loss_ == pytest.approx(expected, rel=1e-5)


class TestVariational:
    def test_loss_is_that_of_the_procedure_plus_gamma_times_the_term(self, frames):
        batches = []

        class Record(Callback):
            def on_batch_end(self, net, batch, training, loss, y_pred, **kwargs):
                batches.append((batch[1], y_pred, loss.item()))

        PixelAutoencoder(
            z=3, gamma=0.3, max_epochs=1, batch_size=8, random_state=0, callbacks=[Record()]
        ).fit(frames)

        assert len(batches) == 3  # 12 images in two batches, and the 4 held out
        for images, prediction, loss in batches:
            decoded, mean, log_variance = (part.detach().double().numpy() for part in prediction)
            pixels = np.mean((decoded - images.numpy() / 255) ** 2)
            term = np.mean(mean**2 + np.exp(log_variance) - 1 - log_variance)
            assert term > 0
            assert loss == pytest.approx(pixels + 0.3 * term, rel=1e-4)

    def test_embedding_is_drawn_in_training_and_the_mean_in_validation(self, frames):
        drawn = []

        class Compare(Callback):
            def on_batch_end(self, net, training, y_pred, **kwargs):
                # The learning rate is nearly 0, so the decoder is still the one that was used.
                with torch.no_grad():
                    of_mean = net.module_.decoder(y_pred.mean)
                drawn.append((training, (of_mean - y_pred.decoded).abs().max().item()))

        FeaturePredictionEncoder(
            z=3, gamma=0.1, lr=1e-12, max_epochs=1, random_state=0, callbacks=[Compare()]
        ).fit(frames)

        assert {training: difference > 1e-3 for training, difference in drawn} == {
            True: True,
            False: False,
        }

    def test_transform_gives_the_mean(self, quick, frames):
        encoder = quick(gamma=0.1).fit(frames)

        embedding = encoder.transform(frames)

        np.testing.assert_array_equal(embedding, encoder.transform(frames))
        pixels = torch.from_numpy(frames.transpose(0, 3, 1, 2) / np.float32(255))
        with torch.inference_mode():
            mean = encoder.encoder_(pixels)
        np.testing.assert_allclose(embedding, mean, rtol=1e-3, atol=1e-4)

    def test_term_keeps_embeddings_near_the_standard_normal(self, frames):
        spread = [
            np.abs(
                FeaturePredictionEncoder(
                    z=4, gamma=gamma, max_epochs=6, batch_size=4, random_state=0
                ).fit_transform(frames)
            ).mean()
            for gamma in (1e-6, 10.0)
        ]

        assert spread[1] < spread[0] / 2

    def test_second_head_is_counted(self, frames):
        plain, variational = (
            PixelAutoencoder(z=5, gamma=gamma, max_epochs=1, random_state=0).fit(frames)
            for gamma in (0, 1e-3)
        )

        assert variational.n_parameters_ - plain.n_parameters_ == 1_024 * 5 + 5


class TestRandomState:
    def test_same_seed_same_embedding_bit_for_bit(self, trained, frames):
        again = clone(trained).fit(frames, X_val=frames[:7])

        np.testing.assert_array_equal(again.transform(frames), trained.transform(frames))
        assert [row["train_loss"] for row in again.history_] == [
            row["train_loss"] for row in trained.history_
        ]

    def test_same_seed_same_variational_embedding(self, frames):
        first, second = (
            FeaturePredictionEncoder(
                z=3, gamma=0.1, max_epochs=2, batch_size=8, random_state=0
            ).fit_transform(frames)
            for _ in range(2)
        )

        np.testing.assert_array_equal(first, second)

    def test_whatever_was_drawn_before(self, frames):
        encoder = FeaturePredictionEncoder(z=3, max_epochs=2, batch_size=8, random_state=3)
        first = encoder.fit_transform(frames)
        torch.rand(7), np.random.rand(7)  # noqa: NPY002

        np.testing.assert_array_equal(encoder.fit_transform(frames), first)

    def test_same_in_a_fresh_process(self, frames, tmp_path):
        encoder = FeaturePredictionEncoder(z=3, max_epochs=2, batch_size=8, random_state=7)
        expected = encoder.fit_transform(frames)
        np.save(tmp_path / "frames.npy", frames)
        script = (
            "import sys, numpy as np, torch\n"
            "from skfp import FeaturePredictionEncoder\n"
            f"torch.set_num_threads({torch.get_num_threads()})\n"
            "X = np.load(sys.argv[1])\n"
            f"np.save(sys.argv[2], {encoder!r}.fit_transform(X))\n"
        )

        subprocess.run(
            [sys.executable, "-c", script, tmp_path / "frames.npy", tmp_path / "embedding.npy"],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": "123"},
        )

        np.testing.assert_array_equal(np.load(tmp_path / "embedding.npy"), expected)

    def test_other_seed_other_embedding(self, frames):
        embeddings = [
            FeaturePredictionEncoder(z=3, max_epochs=1, random_state=seed).fit_transform(frames)
            for seed in (0, 1, np.random.RandomState(0), None)
        ]

        assert not np.allclose(embeddings[0], embeddings[1])
        # A generator is the seed that it draws first.
        np.testing.assert_array_equal(embeddings[0], embeddings[2])
        assert not np.allclose(embeddings[0], embeddings[3])

    def test_global_generators_are_left_alone(self, quick, frames):
        def states():
            _, keys, *rest = np.random.get_state()  # noqa: NPY002
            return [torch.get_rng_state().tolist(), keys.tolist(), rest, random.getstate()]

        before = states()

        encoder = quick(gamma=0.1).fit(frames)
        encoder.transform(frames)
        encoder.score(frames)

        assert states() == before


class TestProgress:
    @pytest.fixture
    def train(self, frames, capfd):
        def train(verbose):
            PixelAutoencoder(z=2, max_epochs=3, random_state=0, verbose=verbose).fit(frames)
            return capfd.readouterr()

        return train

    def test_silent_by_default(self, train):
        assert train(verbose=0) == ("", "")

    @pytest.mark.parametrize("verbose", [1, True])
    def test_one_line_an_epoch(self, train, verbose):
        lines = [line.split() for line in train(verbose=verbose).out.splitlines()]

        assert lines[0] == ["epoch", "train_loss", "valid_loss", "dur"]
        assert [line[0] for line in lines[2:]] == ["1", "2", "3"]

    def test_no_bar_in_a_log_file(self, train):
        """A file gets the lines of verbose=1."""
        shown = train(verbose=2)

        assert shown.err == ""
        assert len(shown.out.splitlines()) == 2 + 3

    def test_bar_over_epochs_and_batches_in_a_terminal(self):
        code = (
            "import numpy as np; from skfp import PixelAutoencoder; "
            "PixelAutoencoder(z=2, max_epochs=3, verbose=2).fit(np.zeros((9, 16, 16), np.uint8))"
        )
        terminal, end = pty.openpty()
        termios.tcsetwinsize(end, (24, 200))
        with subprocess.Popen([sys.executable, "-c", code], stderr=end) as process:
            os.close(end)
            shown = ""
            with contextlib.suppress(OSError):  # what Linux says at the end of a terminal
                while part := os.read(terminal, 4096):
                    shown += part.decode()
        os.close(terminal)

        assert process.returncode == 0
        assert "epoch 1/3" in shown
        assert "epoch 3/3" in shown
        for word in ("100%", "images/s", "train=", "valid="):
            assert word in shown


class TestCallbacks:
    def test_are_called_by_skorch(self, frames):
        class Count(Callback):
            calls = 0

            def on_epoch_end(self, net, dataset_train, dataset_valid, **kwargs):
                Count.calls += 1
                assert (len(dataset_train), len(dataset_valid)) == (12, 4)

        PixelAutoencoder(z=2, max_epochs=3, random_state=0, callbacks=[Count()]).fit(frames)

        assert Count.calls == 3

    def test_of_skorch_itself_with_a_name(self, frames, tmp_path):
        checkpoint = Checkpoint(dirname=tmp_path, monitor="valid_loss_best")

        PixelAutoencoder(z=2, max_epochs=2, random_state=0, callbacks=[("mine", checkpoint)]).fit(
            frames
        )

        assert (tmp_path / "params.pt").stat().st_size > 1_000_000

    def test_change_nothing_by_being_there(self, frames):
        encoder = PixelAutoencoder(z=2, max_epochs=2, random_state=0)
        expected = encoder.fit_transform(frames)

        encoder.set_params(callbacks=[Snapshots()])

        np.testing.assert_array_equal(encoder.fit_transform(frames), expected)

    @staticmethod
    def interrupted_in(epoch):
        class Interrupt(Callback):
            def on_batch_end(self, net, training, **kwargs):
                if training and len(net.history) == epoch:
                    raise KeyboardInterrupt

        return PixelAutoencoder(z=2, max_epochs=3, random_state=0, callbacks=[Interrupt()])

    def test_interrupted_before_the_first_epoch_is_over(self, frames):
        with pytest.raises(KeyboardInterrupt, match="before the first epoch"):
            self.interrupted_in(1).fit(frames)

    def test_interrupted_later_leaves_the_best_epoch(self, frames):
        encoder = self.interrupted_in(2)
        with pytest.warns(UserWarning, match="interrupted in epoch 2 of 3"):
            encoder.fit(frames)
        assert encoder.n_epochs_ == 1
        first = PixelAutoencoder(z=2, max_epochs=1, random_state=0).fit(frames)
        np.testing.assert_array_equal(encoder.transform(frames), first.transform(frames))

    @pytest.mark.parametrize("epoch", [1, 2, 3])
    def test_interrupted_at_the_end_of_an_epoch(self, frames, epoch):
        class Interrupt(Callback):
            def on_epoch_end(self, net, **kwargs):
                if len(net.history) == epoch:
                    raise KeyboardInterrupt

        encoder = PixelAutoencoder(z=2, max_epochs=3, random_state=0, callbacks=[Interrupt()])

        with pytest.warns(UserWarning, match=f"interrupted in epoch {epoch} of 3.*so far"):
            encoder.fit(frames)
        assert encoder.n_epochs_ == epoch

    @pytest.mark.parametrize("callbacks", [None, [EarlyStopping(patience=1)]], ids=["ours", "own"])
    def test_early_stopping_is_no_interrupt(self, frames, callbacks):
        class Worsen(Callback):
            """Makes every epoch worse than the first."""

            def on_epoch_begin(self, net, **kwargs):
                if len(net.history) > 1:
                    net.set_params(optimizer__lr=1.0)

        encoder = PixelAutoencoder(
            z=2, max_epochs=9, patience=1 if callbacks is None else 9, random_state=0,
            callbacks=[Worsen(), *(callbacks or ())],
        )  # fmt: skip

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            encoder.fit(frames)
        assert encoder.n_epochs_ < 9


class TestBatchNormOfTheUser:
    """BatchNorm1d cannot be trained on a batch of one image."""

    @staticmethod
    def encoder(size):
        return nn.Sequential(
            nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3 * 64, 4), nn.BatchNorm1d(4), nn.ReLU()
        )

    def test_leaves_out_the_last_batch_of_one(self, frames):
        batches = Batches()
        encoder = PixelAutoencoder(
            z=2, encoder=self.encoder, max_epochs=2, batch_size=4, random_state=0,
            callbacks=[batches],
        ).fit(frames[:9], X_val=frames[9:10])  # fmt: skip

        for epoch in batches.train_:
            assert [len(batch) for batch in epoch] == [4, 4]
        first, second = (set(identities(epoch)) for epoch in batches.train_)
        assert first != second  # another image is left out each time
        assert encoder.score(frames[9:10]) == pytest.approx(-encoder.validation_loss_, rel=1e-4)

    def test_of_a_stream_too(self, frames):
        encoder = PixelAutoencoder(z=2, encoder=self.encoder, batch_size=4, random_state=0)

        assert np.isfinite(encoder.partial_fit(frames[:9]).transform(frames)).all()

    def test_keeps_all_batches_that_are_larger(self, frames):
        batches = Batches()
        PixelAutoencoder(
            z=2, encoder=self.encoder, max_epochs=1, batch_size=4, random_state=0,
            callbacks=[batches],
        ).fit(frames[:10], X_val=frames[:1])  # fmt: skip

        assert [len(batch) for batch in batches.train_[0]] == [4, 4, 2]


class TestDevice:
    @pytest.mark.parametrize(("cuda", "mps", "chosen"), [
        (False, False, "cpu"), (False, True, "mps"), (True, True, "cuda"),
    ])  # fmt: skip
    def test_auto(self, monkeypatch, cuda, mps, chosen):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

        assert choose_device("auto").type == chosen

    def test_score_computes_there(self, procedure, frames, monkeypatch):
        """Tensors on the device "meta" have no values, and refuse to meet others."""
        encoder = procedure().fit(frames)
        devices = []
        monkeypatch.setattr(
            torch.Tensor, "item", lambda loss: devices.append(loss.device.type) or 0
        )

        encoder.set_params(device="meta").score(frames)

        assert devices == ["meta"]


class TestDivergence:
    class Poison(Callback):
        """Makes the weights infinite in the middle of an epoch."""

        def __init__(self, epoch):
            self.epoch = epoch

        def on_batch_begin(self, net, training, **kwargs):
            if training and len(net.history) == self.epoch:
                with torch.no_grad():
                    next(net.module_.decoder.parameters()).fill_(float("nan"))

    def test_it_stops_and_keeps_the_best_epoch(self, procedure, frames):
        with pytest.warns(UserWarning, match=r"diverged in epoch 3: the loss is nan.*Lower lr="):
            encoder = procedure(max_epochs=9, callbacks=[self.Poison(3)]).fit(frames)
        assert encoder.n_epochs_ == 3
        assert encoder.best_epoch_ in (1, 2)
        assert np.isfinite(encoder.transform(frames)).all()

    def test_in_the_first_epoch_there_is_nothing_to_keep(self, frames):
        encoder = PixelAutoencoder(z=3, max_epochs=9, callbacks=[self.Poison(1)])
        with pytest.raises(ValueError, match=r"diverged in epoch 1.*to 0\.0001 for example"):
            encoder.fit(frames)

    def test_it_leaves_an_earlier_fit_as_it_was(self, frames):
        encoder = PixelAutoencoder(z=3, max_epochs=1, random_state=0).fit(frames)
        embedding = encoder.transform(frames)
        encoder.set_params(callbacks=[self.Poison(1)])
        with pytest.raises(ValueError, match="diverged"):
            encoder.fit(frames[:, :48, :48])
        np.testing.assert_array_equal(encoder.transform(frames), embedding)
