"""Features are computed once per training set; a damaged cache entry is computed again."""

import os
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, KFold
from torch import nn
from torch.utils.data import Dataset

from skfp import FeaturePredictionEncoder, PerceptualAutoencoder


class Counting(nn.Module):
    """A loss network that writes a line to a file for each batch, in any process."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log = str(log)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.ReLU())
        with torch.no_grad():
            weight = self.layers[0].weight
            weight.copy_(torch.linspace(-0.1, 0.1, weight.numel()).reshape(weight.shape))
            self.layers[0].bias.zero_()

    def forward(self, images):
        with open(self.log, "a") as file:
            file.write(f"{len(images)} {os.getpid()}\n")
        return self.layers(images)


def n_images_extracted(log: Path) -> int:
    return sum(int(line.split()[0]) for line in log.read_text().splitlines())


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.txt"
    path.touch()
    return path


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)


def encoder(log, memory, **parameters):
    return FeaturePredictionEncoder(
        z=4,
        loss_network=Counting(log),
        memory=memory,
        random_state=0,
        **{"target_components": None, "max_epochs": 1, **parameters},
    )


def test_without_memory_features_are_computed_once_per_fit(images, log):
    encoder(log, None, max_epochs=3).fit(images)
    # One image more: the network is asked once how many features an image of this size has.
    assert n_images_extracted(log) == len(images) + 1


@pytest.mark.parametrize("target_components", [None, 3])
def test_a_second_fit_on_the_same_images_computes_no_features(
    images, log, tmp_path, target_components
):
    first = encoder(log, tmp_path / "memory", target_components=target_components).fit(images)
    before = n_images_extracted(log)
    second = encoder(log, tmp_path / "memory", target_components=target_components)
    second.set_params(z=6, lr=1e-4).fit(images)
    assert n_images_extracted(log) == before + 1
    again = encoder(log, joblib.Memory(tmp_path / "memory", verbose=0))
    again.set_params(target_components=target_components).fit(images.copy())
    assert n_images_extracted(log) == before + 2
    np.testing.assert_array_equal(first.transform(images), again.transform(images))


def test_other_images_or_weights_are_not_mistaken_for_the_cached(images, log, tmp_path):
    memory = tmp_path / "memory"
    encoder(log, memory).fit(images)
    before = n_images_extracted(log)
    changed = images.copy()
    changed[5, 3, 3, 1] ^= 1
    encoder(log, memory).fit(changed)
    assert n_images_extracted(log) == 2 * before
    other_weights = encoder(log, memory)
    nn.init.ones_(other_weights.loss_network.layers[0].weight)
    other_weights.fit(images)
    assert n_images_extracted(log) == 3 * before


class Model:
    """Something whose method is a loss network."""

    def __init__(self, factor):
        self.factor = factor

    def features(self, images):
        return images[:, :, ::16, ::16].flatten(1) * self.factor


def test_a_method_of_another_object_is_not_mistaken_for_the_cached(images, tmp_path):
    def fit(factor, memory):
        return FeaturePredictionEncoder(
            z=2,
            loss_network=Model(factor).features,
            target_components=None,
            max_epochs=1,
            memory=memory,
            random_state=0,
        ).fit(images)

    small = fit(1, tmp_path / "memory")
    large = fit(10, tmp_path / "memory")
    assert large.validation_loss_ == fit(10, None).validation_loss_ > 10 * small.validation_loss_


class Photos(Dataset):
    """A data set that counts how often its images were read."""

    def __init__(self, images):
        self.images, self.n_read = images, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        self.n_read += 1
        return self.images[row]


def test_a_checkpoint_reads_images_no_more_often(images, log, tmp_path):
    passes = []
    for name, parameters in (("one", {}), ("two", {"checkpoint_dir": tmp_path / "checkpoint"})):
        photos = Photos(images)
        encoder(log, tmp_path / name, **parameters).fit(photos)
        passes.append(photos.n_read // len(images))
    assert passes[0] == passes[1]


@pytest.mark.slow
def test_grid_search_in_two_processes_computes_once_per_training_set(images, log, tmp_path):
    search = GridSearchCV(
        encoder(log, tmp_path / "memory"),
        {"z": [2, 3, 4]},
        cv=KFold(2),
        n_jobs=2,
        refit=False,
        error_score="raise",
    )
    search.fit(images)
    n_fits, n_scores = 6, 6
    training_sets = 12 + 12
    scored = n_scores * 12
    assert n_images_extracted(log) == training_sets + scored + n_fits


def test_a_damaged_entry_is_computed_again(images, log, tmp_path):
    memory = tmp_path / "memory"
    sound = encoder(log, memory).fit(images).transform(images)
    before = n_images_extracted(log)
    for path in memory.rglob("output.pkl"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(RuntimeWarning, match="damaged entry"):
        repaired = encoder(log, memory).fit(images)
    assert n_images_extracted(log) == 2 * before
    np.testing.assert_array_equal(repaired.transform(images), sound)
    encoder(log, memory).fit(images)
    assert n_images_extracted(log) == 2 * before + 1


def test_features_of_the_originals_are_computed_once_in_perceptual_loss(images, log):
    PerceptualAutoencoder(
        z=4, loss_network=Counting(log), max_epochs=2, batch_size=32, random_state=0
    ).fit(images)
    n_valid = 5
    originals, reconstructions = len(images), 2 * len(images)
    assert n_valid < len(images)
    assert n_images_extracted(log) == 1 + originals + reconstructions


class OnlyCache:
    """The least that scikit-learn asks of a memory."""

    def __init__(self):
        self.held = {}

    def cache(self, function):
        def cached(*args):
            key = (function.__qualname__, *args)
            if key not in self.held:
                self.held[key] = function(*args)
            return self.held[key]

        return cached


def test_an_object_with_a_method_cache_is_a_memory(images, log):
    memory = OnlyCache()
    alone = encoder(log, None).fit(images)
    n_images = n_images_extracted(log)

    cached = [encoder(log, memory).fit(images) for _ in range(2)]

    for one in cached:
        np.testing.assert_array_equal(one.transform(images), alone.transform(images))
    # The second fit passes one image, to count features.
    assert n_images_extracted(log) == 2 * n_images + 1
    other = encoder(log, memory).fit(255 - images)
    assert other.validation_loss_ == encoder(log, None).fit(255 - images).validation_loss_


def test_a_memory_without_a_location_caches_nothing(images, log):
    alone = encoder(log, None).fit(images)

    again = encoder(log, joblib.Memory(None)).fit(images)

    np.testing.assert_array_equal(again.transform(images), alone.transform(images))
