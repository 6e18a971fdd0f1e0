"""Training goes on where it was broken off, and ends as if it had not been."""

import functools
import json

import numpy as np
import pytest
import torch
from filelock import FileLock
from sklearn.model_selection import GridSearchCV, cross_val_score
from skorch.callbacks import Callback
from torch import nn

from skfp import FeaturePredictionEncoder, PixelAutoencoder
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

    def test_where_it_computes_and_what_it_prints_may_change(self, frames, tmp_path, capsys):
        make = FeaturePredictionEncoder(
            z=3, max_epochs=3, checkpoint_dir=tmp_path / "cp", callbacks=[BreakOff(2)]
        )
        with pytest.raises(SystemExit):
            make.fit(frames)
        make.set_params(callbacks=None, verbose=1, device="cpu", memory=str(tmp_path / "memory"))
        assert make.fit(frames).n_epochs_ == 3
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines if line.split()[0].isdigit()] == ["2", "3"]


class NotFinite(nn.Module):
    """Gives infinity when it is validated the second time."""

    def __init__(self, size):
        super().__init__()
        self.maps = nn.Conv2d(3, 2, 16, stride=16)
        self.register_buffer("n_evaluated", torch.tensor(-1))  # not counting the first pass

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
        _, header = read_tensors(next(tmp_path.rglob("*.safetensors")))
        assert len(header["history"]) == 3
        assert not any("mine" in row for row in header["history"])


class TestOtherFits:
    """Each fit has a subfolder of its own, and continues from none of another's."""

    def fit(self, folder, images, estimator=PixelAutoencoder, X_val=None, **parameters):
        """Fit, and tell how many epochs were trained and what came of them."""
        trained = []

        class Count(Callback):
            def on_epoch_end(self, net, **kwargs):
                trained.append(len(net.history))

        parameters = {"z": 3, "max_epochs": 2, "random_state": 0, **parameters}
        encoder = estimator(**parameters, checkpoint_dir=folder, callbacks=[Count()])
        return encoder.fit(images, X_val=X_val), trained

    @pytest.mark.parametrize(
        "parameters",
        [
            {"lr": 0.01}, {"z": 4}, {"max_epochs": 3}, {"random_state": 1}, {"batch_size": 5},
            {"value_range": (0, 200)}, {"resize": 96}, {"channels": "mean"}, {"gamma": 0.1},
            {"net_params": {"optimizer__weight_decay": 0.1}},
            {"estimator": FeaturePredictionEncoder},
        ],
        ids=str,
    )  # fmt: skip
    def test_of_other_parameters(self, frames, tmp_path, parameters):
        self.fit(tmp_path, frames)

        other, trained = self.fit(tmp_path, frames, **parameters)

        assert trained == list(range(1, parameters.get("max_epochs", 2) + 1))
        estimator = parameters.pop("estimator", PixelAutoencoder)
        alone = estimator(**{"z": 3, "max_epochs": 2, "random_state": 0, **parameters})
        assert_same_training(other, alone.fit(frames))
        assert len(list(tmp_path.rglob("*.safetensors"))) == 2

    def test_of_other_images(self, frames, tmp_path):
        self.fit(tmp_path, frames)
        changed = frames.copy()
        changed[0, 0, 0, 0] ^= 1

        for X, X_val in [(changed, None), (frames, frames[:3]), (frames[:9], None)]:
            assert self.fit(tmp_path, X, X_val=X_val)[1] == [1, 2]
        assert self.fit(tmp_path, frames)[1] == []

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (lambda size: activated(nn.ReLU()), lambda size: activated(nn.Tanh())),
            (functools.partial(pooled, side=8), functools.partial(pooled, side=16)),
        ],
        ids=["lambdas", "partials"],
    )
    def test_of_another_encoder_of_the_same_name(self, frames, tmp_path, one, other):
        assert self.fit(tmp_path, frames, encoder=one)[1] == [1, 2]
        assert self.fit(tmp_path, frames, encoder=other)[1] == [1, 2]
        assert self.fit(tmp_path, frames, encoder=one)[1] == []

    def test_a_list_of_lambdas_is_continued(self, frames, tmp_path):
        def make(side, **parameters):
            pools = [lambda images: images[:, :, ::side, ::side], lambda images: images.mean(1)]
            return FeaturePredictionEncoder(
                z=3, loss_network=pools, max_epochs=5, batch_size=6, random_state=0, **parameters
            )

        broken = fit_in_pieces(functools.partial(make, 8), tmp_path, frames)
        assert_same_training(broken, make(8).fit(frames))
        make(4, checkpoint_dir=tmp_path).fit(frames)
        assert len(list(tmp_path.rglob("*.safetensors"))) == 2


class TestSearch:
    """A search, or a cross-validation, is killed and continued where it was."""

    @pytest.fixture
    def search(self, tmp_path):
        log = []

        class Log(Callback):
            def __init__(self, stop_after=None):
                self.stop_after = stop_after

            def on_epoch_end(self, net, **kwargs):
                log.append(len(net.history))
                if len(log) == self.stop_after:
                    raise SystemExit

        def run(stop_after=None, folder=tmp_path, images=None):
            encoder = PixelAutoencoder(
                z=2, max_epochs=2, batch_size=8, random_state=0, checkpoint_dir=folder,
                callbacks=[Log(stop_after)],
            )  # fmt: skip
            search = GridSearchCV(encoder, {"lr": [1e-4, 1e-3]}, cv=2, error_score="raise")
            log.clear()
            return search.fit(images), list(log)

        return run

    def test_is_killed_and_continued(self, search, frames):
        alone, all_epochs = search(folder=None, images=frames)
        with pytest.raises(SystemExit):
            search(stop_after=5, images=frames)

        continued, epochs = search(images=frames)

        # Two candidates, two splits and the refit, of two epochs each.
        assert len(all_epochs) == 10
        assert epochs == all_epochs[5:]
        assert continued.best_params_ == alone.best_params_
        for name in ("split0_test_score", "split1_test_score"):
            assert continued.cv_results_[name].tolist() == alone.cv_results_[name].tolist()
        np.testing.assert_array_equal(continued.transform(frames), alone.transform(frames))

    def test_that_is_finished_trains_no_epoch_more(self, search, frames):
        first, _ = search(images=frames)
        again, epochs = search(images=frames)

        assert epochs == []
        np.testing.assert_array_equal(again.transform(frames), first.transform(frames))

    @pytest.mark.parametrize("n_jobs", [None, pytest.param(2, marks=pytest.mark.slow)])
    def test_cross_validation(self, frames, tmp_path, n_jobs):
        encoder = PixelAutoencoder(z=2, max_epochs=2, random_state=0)
        expected = cross_val_score(encoder, frames, cv=2)

        encoder.set_params(checkpoint_dir=tmp_path)
        for _ in range(2):
            scores = cross_val_score(encoder, frames, cv=2, n_jobs=n_jobs, error_score="raise")
            assert scores.tolist() == expected.tolist()
        assert len(list(tmp_path.rglob("*.safetensors"))) == 2


class TestRefusals:
    @pytest.fixture
    def folder(self, frames, tmp_path):
        PixelAutoencoder(z=3, max_epochs=1, random_state=0, checkpoint_dir=tmp_path).fit(frames)
        return tmp_path

    def test_a_damaged_file_is_not_read(self, frames, folder):
        (file,) = folder.rglob("*.safetensors")
        file.write_bytes(file.read_bytes()[:-100])
        again = PixelAutoencoder(z=3, max_epochs=1, random_state=0, checkpoint_dir=folder)
        with pytest.raises(ValueError, match=r"not a complete safetensors file.*Delete it"):
            again.fit(frames)

    def test_a_file_of_another_version_is_not_read(self, frames, folder):
        (file,) = folder.rglob("*.safetensors")
        tensors, header = read_tensors(file)
        write_tensors(file, tensors, {**header, "format": 0})
        again = PixelAutoencoder(z=3, max_epochs=1, random_state=0, checkpoint_dir=folder)
        with pytest.raises(ValueError, match="another version"):
            again.fit(frames)

    def test_a_folder_serves_one_fit_at_a_time(self, frames, folder):
        again = PixelAutoencoder(z=3, max_epochs=1, random_state=0, checkpoint_dir=folder)
        (file,) = folder.rglob("*.safetensors")
        with (
            FileLock(file.parent / "checkpoint.lock"),
            pytest.raises(ValueError, match="The same fit is running"),
        ):
            again.fit(frames)


def test_the_file_holds_the_whole_state_and_no_code(frames, tmp_path):
    FeaturePredictionEncoder(
        z=3, max_epochs=2, batch_size=6, checkpoint_dir=tmp_path, random_state=0
    ).fit(frames)
    (file,) = tmp_path.rglob("*.safetensors")
    tensors, header = read_tensors(file)
    assert json.loads(json.dumps(header)) == header
    assert {name.split(".")[0] for name in tensors} == {
        *("module", "best", "optimizer", "random", "projection"),
    }
    assert [row["epoch"] for row in header["history"]] == [1, 2]
    assert header["schedule"]["last_epoch"] == 2 * 2  # steps: 12 images to learn from, in sixes


def test_a_warm_start_resumes_the_same_continuation_only(frames, tmp_path):
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
    resumed.fit(frames)  # goes on from other weights
    assert resumed.n_epochs_ == 9
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
