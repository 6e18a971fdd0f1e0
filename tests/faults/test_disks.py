"""Full and read-only disks: training ends as if there were none, and files stay whole."""

import contextlib
import errno

import numpy as np
import pytest
from skorch.callbacks import Callback

from skfp import FeaturePredictionEncoder
from skfp._utils.tensor_file import read_tensors
from skfp.datasets import fetch_lunarlander

pytestmark = pytest.mark.slow


def make(**parameters):
    return FeaturePredictionEncoder(z=4, max_epochs=6, batch_size=16, random_state=0, **parameters)


def fill(disk):
    """Write zeros until there is no space left."""
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


class FillDisk(Callback):
    """Leaves no byte free from an epoch on."""

    def __init__(self, disk, epoch):
        self.disk, self.epoch = disk, epoch

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch:
            fill(self.disk)


@pytest.fixture(scope="module")
def images(lander):
    return lander.images


@pytest.fixture(scope="module")
def unbroken(images):
    """The encoder of a fit that nothing happens to, and its embedding."""
    encoder = make().fit(images)
    return encoder, encoder.transform(images)


@pytest.mark.parametrize("epoch", [2, 5])
def test_full_under_a_checkpoint(images, unbroken, small_disk, epoch):
    disk = small_disk(kib=100_000)
    with pytest.warns(RuntimeWarning, match="could not be written"):
        encoder = make(checkpoint_dir=disk, callbacks=[FillDisk(disk, epoch)]).fit(images)
    np.testing.assert_array_equal(encoder.transform(images), unbroken[1])
    _, header = read_tensors(next(disk.glob("*/checkpoint.safetensors")))
    assert len(header["history"]) == epoch - 1
    (disk / "filler").unlink()
    continued = make(checkpoint_dir=disk).fit(images)
    np.testing.assert_array_equal(continued.transform(images), unbroken[1])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kib", [8, 40, 100])
def test_full_under_the_cache(images, unbroken, small_disk, kib):
    encoder = make(memory=small_disk(kib=kib) / "memory").fit(images)
    np.testing.assert_array_equal(encoder.transform(images), unbroken[1])


def test_full_under_a_saved_encoder(images, unbroken, small_disk):
    disk = small_disk(kib=60_000)
    encoder, embedding = unbroken
    encoder.save(disk / "encoder.safetensors")
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        encoder.save(disk / "encoder.safetensors")
    loaded = FeaturePredictionEncoder.load(disk / "encoder.safetensors")
    np.testing.assert_array_equal(loaded.transform(images), embedding)
    assert {path.name for path in disk.iterdir()} == {"encoder.safetensors", "filler"}


def test_full_under_features_that_do_not_fit_in_memory(frames, monkeypatch, small_disk):
    disk = small_disk(kib=256)
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    monkeypatch.setattr("skfp._features.store.MAX_BYTES_IN_MEMORY", 1)
    encoder = FeaturePredictionEncoder(z=2, target_components=None, max_epochs=1)

    with pytest.raises(
        OSError, match=rf"16 images.*1 MiB.*{disk}.*No space left.*TMPDIR"
    ) as caught:
        encoder.fit(frames)

    assert caught.value.errno == errno.ENOSPC
    assert list(disk.iterdir()) == []
    monkeypatch.undo()
    encoder.fit(frames)


class TestReadOnly:
    @pytest.fixture
    def disk(self, small_disk):
        return small_disk(kib=1000, read_only=True)

    def test_under_the_cache(self, images, unbroken, disk):
        with pytest.warns(RuntimeWarning, match="cannot be written"):
            encoder = make(memory=disk / "memory").fit(images)
        np.testing.assert_array_equal(encoder.transform(images), unbroken[1])

    def test_under_data_sets(self, lander, disk):
        with pytest.warns(match="could not be cached"):
            data = fetch_lunarlander(n_rollouts=4, n_steps=30, stride=3, data_home=disk)
        np.testing.assert_array_equal(data.images, lander.images)

    def test_under_checkpoints_is_an_error_before_anything_is_trained(self, images, disk):
        class Begin(Callback):
            def on_train_begin(self, net, **kwargs):
                raise AssertionError("training has begun")

        with pytest.raises(OSError, match="Read-only"):
            make(checkpoint_dir=disk / "checkpoints", callbacks=[Begin()]).fit(images)
