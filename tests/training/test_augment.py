"""The parameter `augment`: the encoder's input changes in training, and nothing else does."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from skfp import FeaturePredictionEncoder
from skfp._networks import autoencoder


class BreakOff(Callback):
    """Ends the program at the beginning of an epoch, where no handler of skorch's holds it."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch:
            raise SystemExit


@pytest.fixture(params=["image", "residual", "pretrained"])
def make(request):
    def make(**parameters):
        return FeaturePredictionEncoder(
            **{
                **{"z": 3, "encoder": request.param, "augment": True, "batch_size": 6},
                **{"loss_network": nn.AvgPool2d(8), "max_epochs": 3, "random_state": 0},
                **parameters,
            }
        )

    return make


@pytest.mark.parametrize("gamma", [0.0, 0.1])
def test_fits_repeat_bit_for_bit_also_in_threads_and_from_checkpoints(
    make, frames, tmp_path, gamma
):
    fitted = make(gamma=gamma).fit(frames)
    embedding = fitted.transform(frames)

    with ThreadPoolExecutor(2) as pool:
        for again in pool.map(lambda _: make(gamma=gamma).fit_transform(frames), range(2)):
            np.testing.assert_array_equal(again, embedding)
    with pytest.raises(SystemExit):
        make(gamma=gamma, checkpoint_dir=tmp_path, callbacks=[BreakOff(1)]).fit(frames)
    resumed = make(gamma=gamma, checkpoint_dir=tmp_path).fit(frames)
    np.testing.assert_array_equal(resumed.transform(frames), embedding)
    assert [row["train_loss"] for row in resumed.history_] == [
        row["train_loss"] for row in fitted.history_
    ]


def test_only_the_input_changes_and_only_in_training(make, frames, monkeypatch):
    """One step without a learning rate to speak of: targets and validation are as without."""
    batches = []

    class Record(Callback):
        def on_batch_end(self, net, batch, training, **kwargs):
            batches.append((training, *map(torch.clone, batch)))

    def fit(augment):
        batches.clear()
        make(max_epochs=1, lr=1e-12, augment=augment, callbacks=[Record()]).fit(frames)
        return [*batches]

    changed = []
    flip_and_shift = autoencoder.flip_and_shift

    def record(images, generator):
        changed.append((images, flip_and_shift(images, generator)))
        return changed[-1][1]

    monkeypatch.setattr(autoencoder, "flip_and_shift", record)
    plain = fit(augment=False)
    assert not changed
    augmented = fit(augment=True)
    for one, other in zip(plain, augmented, strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])
        assert torch.equal(one[2], other[2])
    assert len(changed) == sum(training for training, *_ in plain)
    assert all(not torch.equal(before, after) for before, after in changed)


def test_partial_fit_repeats(make, frames):
    first, second = (make().partial_fit(frames).partial_fit(frames[:7]) for _ in range(2))
    np.testing.assert_array_equal(first.transform(frames), second.transform(frames))


def test_grey_and_other_channels(make, noise):
    for shape in [(8, 20, 30), (8, 64, 64, 5)]:
        assert make().fit_transform(noise(*shape)).shape == (8, 3)


def test_it_is_saved_and_leads_to_other_networks(make, frames, tmp_path):
    fitted = make(loss_network="alexnet", max_epochs=1).fit(frames)
    fitted.save(tmp_path / "encoder.safetensors")
    assert FeaturePredictionEncoder.load(tmp_path / "encoder.safetensors").augment
    plain = make(loss_network="alexnet", max_epochs=1, augment=False).fit(frames)
    assert not np.allclose(plain.transform(frames), fitted.transform(frames))


def test_encoders_of_features_are_refused(frames):
    encoder = FeaturePredictionEncoder(encoder="features", augment=True)
    for fit in (encoder.fit, encoder.partial_fit):
        with pytest.raises(ValueError, match="augment=True flips and shifts images"):
            fit(frames)
    assert not FeaturePredictionEncoder.with_paper_settings().augment
