"""Training goes on where it was broken off, and ends as if it had not been."""

import copy
import functools
import json
import pickle

import numpy as np
import pytest
import torch
from filelock import FileLock
from sklearn.base import clone
from skorch.callbacks import Callback
from torch import nn

from skfp import FeaturePredictionEncoder, LossNetwork, PixelAutoencoder
from skfp._utils.tensor_file import read_tensors, write_tensors


class BreakOff(Callback):
    """Ends the program at the beginning of an epoch, where no handler of skorch's holds it."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch:
            raise SystemExit


def activated(activation):
    return nn.Sequential(nn.Conv2d(3, 2, 16, stride=16), activation)


def pooled(size, side):
    return nn.Sequential(nn.AvgPool2d(side), nn.Conv2d(3, 4, 1))


def losses(encoder):
    return [(row["train_loss"], row["valid_loss"]) for row in encoder.history_]


def assert_same_training(one, other):
    """Check weights bit for bit, and the losses of every epoch."""
    assert losses(one) == losses(other)
    assert (one.best_epoch_, one.n_epochs_) == (other.best_epoch_, other.n_epochs_)
    for name in ("encoder_", "decoder_"):
        weights = getattr(other, name).state_dict()
        for key, tensor in getattr(one, name).state_dict().items():
            assert torch.equal(tensor, weights[key]), key


def fit_in_pieces(make, folder, images, at=(2, 4)):
    for epoch in at:
        with pytest.raises(SystemExit):
            make(checkpoint_dir=folder, callbacks=[BreakOff(epoch)]).fit(images)
    return make(checkpoint_dir=folder).fit(images)


class TestResume:
    @pytest.mark.parametrize("gamma", [0.0, 0.1])
    def test_ends_bit_for_bit_as_an_unbroken_fit(self, procedure, frames, tmp_path, gamma):
        def make(**parameters):
            # What it sees is small, as the state of six procedures is written fourteen times.
            few_features = nn.AvgPool2d(8)
            return procedure(
                max_epochs=5, batch_size=6, gamma=gamma, loss_network=few_features, **parameters
            )

        broken = fit_in_pieces(make, tmp_path, frames)
        assert_same_training(broken, make().fit(frames))

    def test_patience_goes_on_counting(self, frames, tmp_path):
        def make(**parameters):
            return FeaturePredictionEncoder(
                z=3, lr=0.3, lr_schedule=None, batch_size=4, max_epochs=30, patience=3,
                random_state=0, **parameters,
            )  # fmt: skip

        unbroken = make().fit(frames)
        assert unbroken.n_epochs_ - unbroken.best_epoch_ == 3
        at = (unbroken.n_epochs_ - 1, unbroken.n_epochs_)
        assert_same_training(fit_in_pieces(make, tmp_path, frames, at), unbroken)

    def test_a_seed_that_nobody_chose_is_kept(self, frames, tmp_path):
        fit_in_pieces(
            lambda **p: PixelAutoencoder(z=3, max_epochs=5, batch_size=6, **p), tmp_path, frames
        )

    def test_a_finished_fit_trains_no_epoch_more(self, frames, tmp_path):
        make = FeaturePredictionEncoder(z=3, max_epochs=2, checkpoint_dir=tmp_path, random_state=0)
        done = make.fit(frames)
        again = FeaturePredictionEncoder(
            z=3, max_epochs=2, checkpoint_dir=tmp_path, random_state=0, callbacks=[BreakOff(1)]
        ).fit(frames)
        assert_same_training(done, again)

    def test_where_it_computes_and_what_it_tells_may_change(self, frames, tmp_path, capsys):
        make = FeaturePredictionEncoder(
            z=3, max_epochs=3, checkpoint_dir=tmp_path / "cp", callbacks=[BreakOff(2)]
        )
        with pytest.raises(SystemExit):
            make.fit(frames)
        make.set_params(callbacks=None, verbose=1, device="cpu", memory=str(tmp_path / "memory"))
        assert make.fit(frames).n_epochs_ == 3
        assert "epoch 1/3" not in (lines := capsys.readouterr().out)
        assert "epoch 2/3" in lines


class NotFinite(nn.Module):
    """Gives infinity when it is validated the second time."""

    def __init__(self, size):
        super().__init__()
        self.maps = nn.Conv2d(3, 2, 16, stride=16)
        self.register_buffer("n_evaluated", torch.tensor(-1))  # not counting the first look

    def forward(self, images):
        maps = self.maps(images)
        if not self.training:
            self.n_evaluated += 1
            if self.n_evaluated == 2:
                maps = maps * float("inf")
        return maps


class TestHistory:
    def test_a_validation_loss_that_is_not_finite_ends_no_fit(self, frames, tmp_path):
        def make(**parameters):
            return PixelAutoencoder(
                z=2, encoder=NotFinite, max_epochs=4, random_state=0, **parameters
            )

        unbroken = make().fit(frames)
        finite = [np.isfinite(row["valid_loss"]) for row in unbroken.history_]
        assert finite == [True, False, True, True]
        broken = fit_in_pieces(make, tmp_path, frames, at=(3,))
        np.testing.assert_equal(losses(broken), losses(unbroken))
        weights = unbroken.encoder_.state_dict()
        for name, tensor in broken.encoder_.state_dict().items():
            assert torch.equal(tensor, weights[name]), name

    def test_what_callbacks_record_is_not_kept(self, frames, tmp_path):
        class Record(Callback):
            def on_epoch_end(self, net, **kwargs):
                net.history.record("mine", np.float32(1))

        encoder = PixelAutoencoder(
            z=2, max_epochs=3, callbacks=[Record()], checkpoint_dir=tmp_path, random_state=0
        ).fit(frames)
        assert encoder.n_epochs_ == 3
        _, header = read_tensors(next(tmp_path.glob("*.safetensors")))
        assert len(header["history"]) == 3
        assert not any("mine" in row for row in header["history"])


class TestRefusals:
    @pytest.fixture
    def folder(self, frames, tmp_path):
        PixelAutoencoder(z=3, max_epochs=1, random_state=0, checkpoint_dir=tmp_path).fit(frames)
        return tmp_path

    @pytest.mark.parametrize(
        ("parameters", "told"),
        [
            ({"lr": 0.1}, "lr was 0.001 and is 0.1"),
            ({"z": 4}, "z was 3 and is 4"),
            ({"max_epochs": 9}, "max_epochs was 1 and is 9"),
            ({"random_state": 1}, "random_state was 0 and is 1"),
            ({"random_state": None}, "random_state was 0 and is None"),
        ],
    )
    def test_other_parameters_are_named(self, frames, folder, parameters, told):
        other = PixelAutoencoder(
            **{"z": 3, "max_epochs": 1, "random_state": 0, **parameters}, checkpoint_dir=folder
        )
        with pytest.raises(ValueError, match=told):
            other.fit(frames)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (lambda size: activated(nn.ReLU()), lambda size: activated(nn.Tanh())),
            (functools.partial(pooled, side=8), functools.partial(pooled, side=16)),
        ],
        ids=["lambdas", "partials"],
    )
    def test_another_encoder_of_the_same_name_is_seen(self, frames, tmp_path, one, other):
        encoder = PixelAutoencoder(
            z=3, encoder=one, max_epochs=2, random_state=0, checkpoint_dir=tmp_path
        )
        encoder.fit(frames)
        assert clone(encoder).fit(frames).n_epochs_ == 2
        with pytest.raises(ValueError, match=r"is of another fit: encoder was '.*SHA-256"):
            encoder.set_params(encoder=other).fit(frames)

    def test_another_estimator_is_named(self, frames, folder):
        other = FeaturePredictionEncoder(z=3, max_epochs=1, random_state=0, checkpoint_dir=folder)
        with pytest.raises(ValueError, match="estimator was 'PixelAutoencoder'"):
            other.fit(frames)

    def test_other_images_are_refused(self, frames, folder):
        changed = frames.copy()
        changed[0, 0, 0, 0] ^= 1
        again = PixelAutoencoder(z=3, max_epochs=1, random_state=0, checkpoint_dir=folder)
        with pytest.raises(ValueError, match=r"X was '16 images, SHA-256 .*checkpoint_dir"):
            again.fit(changed)
        with pytest.raises(ValueError, match="X_val was None and is '3 images"):
            again.fit(frames, X_val=frames[:3])

    def test_a_damaged_file_is_not_read(self, frames, folder):
        (file,) = folder.glob("*.safetensors")
        file.write_bytes(file.read_bytes()[:-100])
        again = PixelAutoencoder(z=3, max_epochs=1, random_state=0, checkpoint_dir=folder)
        with pytest.raises(ValueError, match=r"no whole safetensors file.*Delete it"):
            again.fit(frames)

    def test_a_file_of_another_version_is_not_read(self, frames, folder):
        (file,) = folder.glob("*.safetensors")
        tensors, header = read_tensors(file)
        write_tensors(file, tensors, {**header, "format": 0})
        again = PixelAutoencoder(z=3, max_epochs=1, random_state=0, checkpoint_dir=folder)
        with pytest.raises(ValueError, match="another version"):
            again.fit(frames)

    def test_a_folder_serves_one_fit_at_a_time(self, frames, folder):
        again = PixelAutoencoder(z=3, max_epochs=1, random_state=0, checkpoint_dir=folder)
        with (
            FileLock(folder / "checkpoint.lock"),
            pytest.raises(ValueError, match="Another fit is using"),
        ):
            again.fit(frames)


def test_the_file_holds_the_whole_state_and_no_code(frames, tmp_path):
    FeaturePredictionEncoder(
        z=3, max_epochs=2, batch_size=6, checkpoint_dir=tmp_path, random_state=0
    ).fit(frames)
    (file,) = tmp_path.glob("*.safetensors")
    tensors, header = read_tensors(file)
    assert json.loads(json.dumps(header)) == header
    assert {name.split(".")[0] for name in tensors} == {
        *("module", "best", "optimizer", "random", "target"),
    }
    assert [row["epoch"] for row in header["history"]] == [1, 2]
    assert header["schedule"]["last_epoch"] == 2 * 2  # steps: 12 images to learn from, in sixes


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

    def test_the_first_fit_begins_anew(self, frames):
        cold, warm = (
            PixelAutoencoder(z=3, max_epochs=2, random_state=0, warm_start=warm).fit(frames)
            for warm in (False, True)
        )
        assert_same_training(cold, warm)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(("z", 5), ("encoder", "features"), ("encoder", "small"), ("gamma", 1.0)),
            ("encoder", lambda size: nn.AvgPool2d(8)),
            *(("loss_network", "vgg16"), ("loss_network", LossNetwork(pool=2))),
            *(("loss_network", nn.AvgPool2d(8)), ("target_components", 1)),
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
        with pytest.raises(ValueError, match="fit has seen images of shape"):
            encoder.fit(frames[:, :48, :48])

    def test_with_a_checkpoint_it_resumes_the_same_continuation_only(self, frames, tmp_path):
        def start():
            return PixelAutoencoder(
                z=3, max_epochs=3, batch_size=6, random_state=0, warm_start=True
            ).fit(frames)

        unbroken = start().fit(frames)
        broken = start().set_params(checkpoint_dir=tmp_path, callbacks=[BreakOff(2)])
        with pytest.raises(SystemExit):
            broken.fit(frames)
        resumed = start().set_params(checkpoint_dir=tmp_path).fit(frames)
        assert_same_training(resumed, unbroken)
        with pytest.raises(ValueError, match="weights before was"):
            resumed.fit(frames)

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

    def test_divergence_leaves_it_too(self, frames):
        encoder = PixelAutoencoder(z=3, max_epochs=1, random_state=0).fit(frames)
        embedding = encoder.transform(frames)
        encoder.set_params(callbacks=[TestDivergence.Poison(1)])
        with pytest.raises(ValueError, match="diverged"):
            encoder.fit(frames[:, :48, :48])
        np.testing.assert_array_equal(encoder.transform(frames), embedding)


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


class TestOutOfMemory:
    class SmallDevice(Callback):
        """Runs out of memory whenever more than so many images pass through at a time."""

        def __init__(self, n_images):
            self.n_images = n_images

        def on_train_begin(self, net, **kwargs):
            def refuse(module, inputs):
                if module.training and len(inputs[0]) > self.n_images:
                    raise torch.OutOfMemoryError("simulated")

            self.hook_ = net.module_.register_forward_pre_hook(refuse)

        def on_train_end(self, net, **kwargs):
            self.hook_.remove()

    def test_batches_pass_through_in_parts(self, frames):
        parameters = {"z": 3, "max_epochs": 2, "batch_size": 12, "random_state": 0}
        # Features in, no BatchNorm: gradients of parts then add up to those of the whole.
        parameters |= {"encoder": "features"}
        whole = FeaturePredictionEncoder(**parameters).fit(frames)
        with pytest.warns(RuntimeWarning, match="out of memory for 12 images.*in 2 parts"):
            parts = FeaturePredictionEncoder(**parameters, callbacks=[self.SmallDevice(6)]).fit(
                frames
            )
        np.testing.assert_allclose(losses(parts), losses(whole), rtol=1e-4)

    def test_embedding_passes_through_in_halves(self, frames):
        few = 5

        class Network(nn.AvgPool2d):
            """Runs out of memory for more than a few images."""

            def forward(self, images):
                if len(images) > few:
                    raise torch.OutOfMemoryError("simulated")
                return super().forward(images)

        parameters = {"z": 3, "max_epochs": 1, "encoder": "features", "random_state": 0}
        whole = PixelAutoencoder(loss_network=nn.AvgPool2d(8), **parameters).fit(frames)
        with pytest.warns(RuntimeWarning, match="out of memory for 16 images at a time"):
            halves = PixelAutoencoder(loss_network=Network(8), **parameters).fit(frames)
        with pytest.warns(RuntimeWarning, match="in halves"):
            np.testing.assert_array_equal(halves.transform(frames), whole.transform(frames))

    def test_one_image_that_does_not_fit_is_an_error(self, frames):
        encoder = PixelAutoencoder(z=3, max_epochs=1, callbacks=[self.SmallDevice(0)])
        with (
            pytest.raises(torch.OutOfMemoryError),
            pytest.warns(RuntimeWarning, match="out of memory for 2 images"),
        ):
            encoder.fit(frames)
