"""What the user guide's comparison says of scikit-learn's PCA and of skorch, held against both."""

import os
import subprocess
import sys

import numpy as np
import pytest
import skops.io
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from skorch import NeuralNet
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch import nn

from skfp import PixelAutoencoder


class LinearAutoencoder(nn.Module):
    """The least that a skorch user has to write to learn an embedding of images."""

    def __init__(self, z=2):
        super().__init__()
        self.encode = nn.Sequential(nn.Flatten(), nn.LazyLinear(z))
        self.decode = nn.LazyLinear(16 * 16 * 3)

    def forward(self, images):
        return self.decode(self.encode(images)).reshape(images.shape)


class Line(nn.Module):
    """A module for rows of any width, which scikit-learn's checks bring."""

    def __init__(self):
        super().__init__()
        self.line = nn.LazyLinear(1)

    def forward(self, rows):
        return self.line(rows.float())


def pca():
    return PCA(n_components=2)


def net(module=LinearAutoencoder, **parameters):
    return NeuralNet(module, nn.MSELoss, **{"max_epochs": 1, "verbose": 0, **parameters})


def encoder():
    return PixelAutoencoder(z=2, max_epochs=1, random_state=0)


@pytest.fixture(scope="module")
def images(noise):
    return (noise(12, 16, 16, 3) / 255).astype(np.float32)


@pytest.fixture(scope="module")
def rows(images):
    return images.reshape(len(images), -1)


@pytest.fixture(scope="module")
def fitted(images):
    """A net of skorch, taught to repeat its images."""
    return net().fit(images, images)


def failed_checks(estimator):
    reports = check_estimator(estimator, on_skip=None, on_fail=None)
    return {report["check_name"] for report in reports if report["status"] == "failed"}


@pytest.mark.parametrize(
    ("method", "offered_by"),
    [
        ("transform", {pca, encoder}),
        ("set_output", {pca, encoder}),
        ("get_feature_names_out", {pca, encoder}),
        ("partial_fit", {net, encoder}),
        ("inverse_transform", {pca, encoder}),
        ("to_onnx", {encoder}),
    ],
)
def test_methods(method, offered_by):
    assert {make for make in (pca, net, encoder) if hasattr(make(), method)} == offered_by


class TestPCA:
    def test_refuses_images_that_are_not_flattened(self, images):
        with pytest.raises(ValueError, match="dim 4"):
            pca().fit(images)

    def test_passes_the_checks_of_scikit_learn(self):
        assert not failed_checks(PCA())

    def test_gives_arrays_for_tensors(self, rows):
        assert isinstance(pca().fit_transform(torch.from_numpy(rows)), np.ndarray)

    def test_gives_tensors_for_tensors_with_array_api_support(self):
        # The variable counts when scipy is imported: hence another process.
        script = (
            "import sklearn, torch; from sklearn.decomposition import PCA; "
            "sklearn.set_config(array_api_dispatch=True); "
            "print(type(PCA(2).fit_transform(torch.rand(8, 4))).__name__)"
        )
        environment = {**os.environ, "SCIPY_ARRAY_API": "1"}

        process = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True
        )

        assert process.stdout.strip() == "Tensor", process.stderr

    def test_is_saved_by_skops_without_trusting_anything(self, rows):
        data = skops.io.dumps(pca().fit(rows))

        assert skops.io.get_untrusted_types(data=data) == []

    def test_takes_no_validation_images(self, rows):
        with pytest.raises(TypeError, match="X_val"):
            pca().fit(rows, X_val=rows)


class TestSkorch:
    def test_learns_from_images_as_their_own_targets(self, images):
        torch.manual_seed(0)

        history = net(max_epochs=5).fit(images, images).history

        assert history[-1, "train_loss"] < history[0, "train_loss"]

    def test_is_no_step_before_others_in_a_pipeline(self, images):
        with pytest.raises(TypeError, match="transform"):
            make_pipeline(net(), Ridge()).fit(images, np.arange(12.0))

    @pytest.mark.filterwarnings("ignore")
    def test_fails_checks_of_scikit_learn(self):
        assert failed_checks(net(Line)) >= {
            "check_n_features_in_after_fitting",
            "check_estimators_nan_inf",
            "check_set_params",
        }

    def test_is_searched_over_parameters_of_the_module(self, images):
        def score(net, X, y):
            return -np.mean((net.predict(X) - y) ** 2)

        search = GridSearchCV(
            net(), {"module__z": [1, 3]}, scoring=score, cv=2, error_score="raise"
        ).fit(images, images)

        z = search.best_params_["module__z"]
        assert search.best_estimator_.module_.encode[1].out_features == z

    @pytest.mark.parametrize(("method", "kind"), [("predict", "ndarray"), ("forward", "Tensor")])
    def test_tensors(self, fitted, images, method, kind):
        assert type(getattr(fitted, method)(torch.from_numpy(images))).__name__ == kind

    def test_saves_weights_as_safetensors(self, fitted, images, tmp_path):
        fitted.save_params(tmp_path / "net.safetensors", use_safetensors=True)

        loaded = net().initialize()
        loaded.predict(images)  # gives lazy layers their shapes
        loaded.load_params(tmp_path / "net.safetensors", use_safetensors=True)

        np.testing.assert_array_equal(loaded.predict(images), fitted.predict(images))

    def test_validation_images_are_given_to_the_constructor_and_not_to_fit(self, images):
        split = predefined_split(Dataset(images[:4], images[:4]))

        assert "valid_loss" in net(train_split=split).fit(images, images).history[-1]
        with pytest.raises(TypeError, match="X_val"):
            net().fit(images, images, X_val=images[:4])
