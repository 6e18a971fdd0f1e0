"""Training on a stream: one batch of images after another, each trained on once."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from skfp import FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder


@pytest.fixture(scope="module", params=[FeaturePredictionEncoder, PerceptualAutoencoder])
def streamed(request, frames):
    """An encoder after one batch, and its score then, with Adam's memory of a real loss network."""
    encoder = request.param(z=4, batch_size=8, random_state=0).partial_fit(frames)
    return encoder, encoder.score(frames)


class TestLearning:
    def test_goes_on_from_batch_to_batch(self, procedure, frames):
        encoder = procedure(batch_size=8, loss_network=nn.AvgPool2d(8))
        scores = []

        for _ in range(4):
            for batch in (frames[:8], frames[8:]):
                encoder.partial_fit(batch)
            scores.append(encoder.score(frames))

        assert scores[-1] > scores[0]
        assert encoder.n_epochs_ == 8

    def test_history_has_a_row_per_batch(self, streamed):
        encoder, _ = streamed

        (row,) = encoder.history_
        assert set(row) == {"epoch", "train_loss", "seconds"}
        assert row["epoch"] == encoder.n_epochs_ == 1
        assert row["train_loss"] > 0
        assert not hasattr(encoder, "validation_loss_")
        assert not hasattr(encoder, "best_epoch_")

    def test_is_fitted(self, streamed, frames):
        encoder, score = streamed

        assert encoder.transform(frames).shape == (16, 4)
        assert encoder.get_feature_names_out().shape == (4,)
        assert encoder.image_shape_ == (64, 64, 3)
        assert encoder.score(frames) == score

    def test_returns_the_estimator_and_leaves_its_parameters(self, frames):
        encoder = PixelAutoencoder(z=2, random_state=0)
        before = encoder.get_params()

        assert encoder.partial_fit(frames) is encoder
        assert encoder.get_params() == before

    def test_steps_are_those_of_plain_adam(self, frames):
        """Batches of a stream and one pass over all of them are the same steps, in one order."""

        def after(stream):
            encoder = PixelAutoencoder(z=2, batch_size=4, random_state=0)
            for batch in stream:
                encoder.partial_fit(batch)
            return encoder

        # Four equal images, so that the order within a batch, drawn anew each time, is nothing.
        equal = np.repeat(frames[:1], 4, axis=0)
        in_one, in_three = after([np.concatenate([equal] * 3)]), after([equal] * 3)

        np.testing.assert_allclose(in_three.transform(frames), in_one.transform(frames), rtol=1e-3)

    def test_learning_rate_is_constant(self, frames):
        """Tiny steps change next to nothing; set_params takes effect from batch to batch."""
        encoder = FeaturePredictionEncoder(z=2, lr=1e-9, random_state=0).partial_fit(frames)
        start = encoder.transform(frames)

        encoder.partial_fit(frames)
        # BatchNorm's running averages move at any learning rate.
        head = encoder.encoder_.head.weight.clone()
        encoder.partial_fit(frames)
        torch.testing.assert_close(encoder.encoder_.head.weight, head, rtol=0, atol=1e-7)
        encoder.set_params(lr=1e-1).partial_fit(frames)

        assert (encoder.encoder_.head.weight - head).abs().max() > 1e-3
        assert not np.allclose(encoder.transform(frames), start)

    def test_first_batch_of_few_images(self, frames):
        encoder = FeaturePredictionEncoder(z=4, random_state=0).partial_fit(frames[:2])

        assert len(encoder.partial_fit(frames).transform(frames)) == 16

    def test_variational(self, frames):
        encoder = PixelAutoencoder(z=3, gamma=0.1, batch_size=8, random_state=0)

        encoder.partial_fit(frames)
        plain = PixelAutoencoder(z=3, batch_size=8, random_state=0).partial_fit(frames)
        first = encoder.history_[0]["train_loss"]
        encoder.partial_fit(frames)

        assert first > plain.history_[0]["train_loss"]
        assert encoder.history_[1]["train_loss"] < first

    def test_without_components(self, frames):
        encoder = FeaturePredictionEncoder(z=2, target_components=None, lr=1e-4, random_state=0)

        encoder.partial_fit(frames).partial_fit(frames)

        assert encoder.history_[1]["train_loss"] < encoder.history_[0]["train_loss"]


class TestContinuing:
    def test_after_loading_as_without(self, streamed, frames):
        encoder, _ = streamed
        stayed, loaded = (pickle.loads(pickle.dumps(encoder)) for _ in range(2))

        for batch in (frames[:8], frames[8:]):
            stayed.partial_fit(batch)
            loaded = pickle.loads(pickle.dumps(loaded.partial_fit(batch)))

        np.testing.assert_array_equal(loaded.transform(frames), stayed.transform(frames))
        assert loaded.score(frames) == stayed.score(frames)

    def test_in_memory_as_after_loading(self, frames):
        encoder = PixelAutoencoder(z=2, random_state=0).partial_fit(frames)
        loaded = pickle.loads(pickle.dumps(encoder))

        encoder.partial_fit(frames)
        loaded.partial_fit(frames)

        np.testing.assert_array_equal(loaded.transform(frames), encoder.transform(frames))

    def test_after_fit(self, procedure, frames):
        encoder = procedure(
            max_epochs=2, batch_size=8, gamma=0.01, loss_network=nn.AvgPool2d(8)
        ).fit(frames)
        fitted = pickle.loads(pickle.dumps(encoder))

        encoder.partial_fit(frames)

        assert [row["epoch"] for row in encoder.history_] == [1, 2, 3]
        assert encoder.history_[:2] == fitted.history_
        assert "valid_loss" not in encoder.history_[2]
        assert not hasattr(encoder, "validation_loss_")
        assert not hasattr(encoder, "best_epoch_")
        assert not np.array_equal(encoder.transform(frames), fitted.transform(frames))
        np.testing.assert_array_equal(
            fitted.partial_fit(frames).transform(frames), encoder.transform(frames)
        )

    def test_keeps_what_fit_has_learned(self, lander):
        X = lander.images
        encoder = FeaturePredictionEncoder(z=4, max_epochs=10, batch_size=8, random_state=0)
        fitted = encoder.fit(X).score(X)

        streamed = encoder.partial_fit(X).score(X)

        from_scratch = FeaturePredictionEncoder(z=4, batch_size=8, random_state=0)
        assert streamed > 2 * fitted > from_scratch.partial_fit(X).score(X)

    def test_fit_starts_anew(self, frames):
        encoder = PixelAutoencoder(z=2, max_epochs=1, random_state=0)
        expected = encoder.fit_transform(frames)

        encoder.partial_fit(frames).fit(frames)

        np.testing.assert_array_equal(encoder.transform(frames), expected)
        assert encoder.n_epochs_ == len(encoder.history_) == 1
        assert encoder.best_epoch_ == 1

    def test_z_set_in_the_middle_waits_for_the_next_fit(self, frames):
        encoder = PixelAutoencoder(z=2, max_epochs=1, random_state=0).partial_fit(frames)

        encoder.set_params(z=5)

        assert encoder.partial_fit(frames).transform(frames).shape == (16, 2)
        assert encoder.fit(frames).transform(frames).shape == (16, 5)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(("encoder", "features"), ("encoder", "large"), ("gamma", 0.1)),
            *(("loss_network", nn.AvgPool2d(8)), ("target_components", 2)),
        ],
    )
    def test_other_networks_are_refused(self, frames, name, value):
        encoder = FeaturePredictionEncoder(z=2, random_state=0).partial_fit(frames)
        embedding = encoder.transform(frames)

        with pytest.raises(ValueError, match=rf"{name}.* was .* and is .*warm_start=False"):
            encoder.set_params(**{name: value}).partial_fit(frames)

        np.testing.assert_array_equal(encoder.transform(frames), embedding)

    def test_a_batch_that_fails_leaves_all_as_it_was(self, frames):
        class Fail(Callback):
            def on_batch_end(self, net, **kwargs):
                raise RuntimeError

        encoder = FeaturePredictionEncoder(z=2, batch_size=8, random_state=0).partial_fit(frames)
        same = pickle.loads(pickle.dumps(encoder))

        with pytest.raises(RuntimeError):
            encoder.set_params(callbacks=[Fail()]).partial_fit(frames)

        np.testing.assert_array_equal(encoder.transform(frames), same.transform(frames))
        encoder.set_params(callbacks=None).partial_fit(frames)
        np.testing.assert_array_equal(
            encoder.transform(frames), same.partial_fit(frames).transform(frames)
        )

    def test_a_first_batch_that_fails_leaves_no_trace(self, frames):
        encoder = PixelAutoencoder(z=2, encoder=lambda size: nn.Conv2d(3, 4, 65))
        before = set(vars(encoder))

        with pytest.raises(ValueError, match="cannot take images"):
            encoder.partial_fit(frames)

        assert set(vars(encoder)) == before


class TestReproducibility:
    def test_same_seed_same_embedding(self, frames):
        def stream(seed):
            encoder = FeaturePredictionEncoder(z=3, gamma=0.1, batch_size=8, random_state=seed)
            for batch in (frames[:8], frames[8:], frames):
                encoder.partial_fit(batch)
            return encoder.transform(frames)

        first = stream(0)

        np.testing.assert_array_equal(stream(0), first)
        assert not np.allclose(stream(1), first)

    def test_global_generators_are_left_alone(self, quick, frames):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        expected = torch.rand(1), np.random.rand()  # noqa: NPY002
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002

        quick().partial_fit(frames)

        assert (torch.rand(1), np.random.rand()) == expected  # noqa: NPY002

    def test_order_differs_from_batch_to_batch(self, frames):
        sums = []

        class Recorder(Callback):
            def on_batch_begin(self, net, batch, training, **kwargs):
                sums.append(batch[0].flatten(1).sum(dim=1).tolist())

        encoder = PixelAutoencoder(z=2, batch_size=16, random_state=0, callbacks=[Recorder()])
        encoder.partial_fit(frames).partial_fit(frames)

        first, second = sums
        assert sorted(first) == sorted(second)
        assert first != second


class TestBatches:
    def test_other_layouts_and_ranges_of_the_same_images(self, frames):
        encoder = PixelAutoencoder(z=2, random_state=0).partial_fit(frames)
        same = pickle.loads(pickle.dumps(encoder))

        encoder.partial_fit((frames / 255).transpose(0, 3, 1, 2))
        same.partial_fit(frames)

        np.testing.assert_allclose(encoder.transform(frames), same.transform(frames), rtol=1e-4)

    def test_tensors(self, frames):
        X = torch.from_numpy(frames)
        of_tensors = PixelAutoencoder(z=2, random_state=0).partial_fit(X).partial_fit(X)
        of_arrays = PixelAutoencoder(z=2, random_state=0).partial_fit(frames).partial_fit(frames)

        np.testing.assert_array_equal(of_tensors.transform(frames), of_arrays.transform(frames))

    def test_tables_keep_their_names(self, frames):
        table = pd.DataFrame(frames[:, ::4, ::4, 0].reshape(16, -1)).add_prefix("value")
        encoder = PixelAutoencoder(z=2, image_shape=(16, 16), random_state=0).partial_fit(table)

        with pytest.raises(ValueError, match="feature names"):
            encoder.partial_fit(table[table.columns[::-1]])
        encoder.partial_fit(table)

        assert encoder.feature_names_in_.tolist() == table.columns.tolist()

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((4, 32, 32, 3), r"shape \(32, 32, 3\), but .* fitted on .*\(64, 64, 3\)"),
            ((4, 64, 64), r"shape \(64, 64\), but the encoder was fitted on"),
            ((0, 64, 64, 3), "0 sample"),
        ],
    )
    def test_other_than_the_first(self, streamed, frames, noise, shape, message):
        encoder, score = streamed
        X = noise(*shape) if shape[0] else frames[:0]

        with pytest.raises(ValueError, match=message):
            encoder.partial_fit(X)

        assert encoder.n_epochs_ == 1
        assert encoder.score(frames) == score

    def test_of_another_unit(self, quick, frames):
        first, second = (quick().partial_fit(frames) for _ in range(2))

        first.partial_fit(frames)
        second.partial_fit(frames.astype(np.float32))

        np.testing.assert_allclose(
            second.transform(frames), first.transform(frames), rtol=1e-3, atol=1e-4
        )
        with pytest.raises(ValueError, match=r"fitted on values from 0 to 255.*value_range"):
            first.partial_fit(frames * 100.0)

    def test_interrupted(self, quick, frames):
        """What the batch has changed so far is not kept."""

        class Interrupt(Callback):
            def on_batch_end(self, net, **kwargs):
                raise KeyboardInterrupt

        encoder = quick().partial_fit(frames)
        before = encoder.transform(frames)

        with pytest.raises(KeyboardInterrupt):
            encoder.set_params(callbacks=[Interrupt()]).partial_fit(frames)

        np.testing.assert_array_equal(encoder.transform(frames), before)
        assert encoder.n_epochs_ == 1

    def test_not_finite(self, quick):
        with pytest.raises(ValueError, match="NaN"):
            quick().partial_fit(np.full((2, 16, 16), np.nan))

    def test_wrong_parameters(self, quick, frames):
        with pytest.raises(ValueError, match="'z' parameter"):
            quick(z=0).partial_fit(frames)
