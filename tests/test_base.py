"""The encoders as scikit-learn's estimators: its own checks, parameters, tags, tables and names."""

import inspect

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from skfp import FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder

ESTIMATORS = [FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder]


@pytest.mark.filterwarnings("ignore:X has rows of")
@parametrize_with_checks(
    [
        estimator(z=2, encoder=encoder, loss_network=network, max_epochs=1, random_state=0)
        for estimator in ESTIMATORS
        for encoder, network in (
            ("image", "alexnet"),
            # Behind AlexNet this encoder has 19 million weights, and each check fits several.
            ("features", nn.AvgPool2d(8)),
        )
    ]
)
def test_estimator_checks_of_scikit_learn(estimator, check):
    check(estimator)


class TestTags:
    """What the tags say is what the encoders do."""

    def test_input(self, quick, noise):
        tags = get_tags(quick()).input_tags

        assert tags.two_d_array
        assert tags.three_d_array
        for name in ("one_d_array", "sparse", "string", "categorical", "allow_nan", "pairwise"):
            assert not getattr(tags, name), name
        assert not tags.positive_only
        for X in (noise(4, 400), noise(4, 20, 20)):
            assert quick().fit_transform(X - 100.0).shape == (4, 3)

    def test_output_is_float32_whatever_the_input(self, quick, noise):
        assert get_tags(quick()).transformer_tags.preserves_dtype == []
        for dtype in (np.uint8, np.float32, np.float64):
            assert quick().fit_transform(noise(4, 20, 20).astype(dtype)).dtype == np.float32

    def test_needs_a_fit_but_no_targets(self, quick):
        tags = get_tags(quick())

        assert tags.requires_fit
        assert not tags.target_tags.required
        assert not tags.non_deterministic
        assert not tags.no_validation
        assert tags.classifier_tags is None
        assert tags.regressor_tags is None


class TestHtml:
    def test_says_whether_it_is_fitted(self, quick, noise):
        encoder = quick(z=37)
        name = type(encoder).__name__

        before = encoder._repr_html_()
        after = encoder.fit(noise(4, 20, 20))._repr_html_()

        for html in (before, after):
            assert name in html
            assert "37" in html
        assert "<span>Not fitted</span>" in before
        assert "<span>Fitted</span>" in after

    def test_in_a_pipeline(self, quick):
        pipeline = make_pipeline(quick(), LogisticRegression())

        html = pipeline._repr_html_()

        assert html.index(type(pipeline[0]).__name__) < html.index("LogisticRegression")

    def test_text_names_what_is_not_the_default(self):
        assert repr(PixelAutoencoder(z=37, gamma=0.5)) == "PixelAutoencoder(gamma=0.5, z=37)"


class TestParameters:
    def test_are_stored_as_given(self, quick):
        estimator = quick.func
        for name, parameter in inspect.signature(estimator).parameters.items():
            value = object()
            assert getattr(estimator(**{name: value}), name) is value, name
            assert getattr(estimator(), name) == parameter.default, name

    def test_defaults_that_all_three_share(self, quick):
        expected = {
            "z": 128,
            "encoder": "auto",
            "loss_network": "alexnet",
            "max_epochs": 50,
            "validation_fraction": 0.2,
            "patience": 10,
            "gamma": 0.0,
            "device": "auto",
            "random_state": None,
            "callbacks": None,
        }

        parameters = quick.func().get_params()

        assert {name: parameters[name] for name in expected} == expected

    def test_only_z_may_be_positional(self, quick):
        assert quick.func(64).z == 64
        with pytest.raises(TypeError, match="positional"):
            quick.func(64, "features")

    def test_clone_and_set_params(self, quick):
        encoder = quick(z=5, gamma=0.5, image_shape=(64, 64))

        again = clone(encoder).set_params(z=6)

        assert again.get_params() == {**encoder.get_params(), "z": 6}
        assert encoder.z == 5

    def test_fit_leaves_them_as_they_are(self, quick, frames):
        encoder = quick()
        before = encoder.get_params()

        encoder.fit(frames)

        assert encoder.get_params() == before


class TestWrongParameters:
    @pytest.mark.parametrize("z", [0, -1, 2.5, "64", None])
    def test_z(self, quick, frames, z):
        with pytest.raises(ValueError, match=r"'z' parameter.*\[1, inf\)"):
            quick(z=z).fit(frames)

    @pytest.mark.parametrize("encoder", ["Image", "img", "", None, 1])
    def test_encoder(self, quick, frames, encoder):
        with pytest.raises(ValueError, match=r"'encoder' parameter(?=.*'image')(?=.*'features')"):
            quick(encoder=encoder).fit(frames)

    @pytest.mark.parametrize(
        ("name", "wrong"),
        [
            ("max_epochs", 0),
            ("batch_size", 0),
            ("lr", 0.0),
            ("lr", -1e-3),
            ("patience", 0),
            ("gamma", -1.0),
            ("verbose", -1),
            ("random_state", "seed"),
            ("image_shape", 64),
            ("callbacks", "bar"),
        ],
    )
    def test_out_of_range(self, quick, frames, name, wrong):
        with pytest.raises(ValueError, match=f"'{name}' parameter"):
            quick(**{name: wrong}).fit(frames)

    def test_wrong_parameters_wait_until_fit(self):
        assert FeaturePredictionEncoder(z=0, encoder="none", loss_network=3).z == 0

    def test_loss_network_of_unknown_name(self, quick, frames):
        with pytest.raises(ValueError, match=r"[Uu]nknown loss_network 'alexnett'.*'alexnet'"):
            quick(loss_network="alexnett", encoder="features").fit(frames)

    @pytest.mark.parametrize("loss_network", [3, None, ["alexnet", 3]], ids=str)
    def test_loss_network_of_wrong_type(self, quick, frames, loss_network):
        with pytest.raises((ValueError, TypeError), match=r"loss_network.*must be"):
            quick(loss_network=loss_network, encoder="features").fit(frames)

    def test_loss_network_that_cannot_take_the_images(self, frames):
        network = torch.nn.Conv2d(3, 1, kernel_size=65)

        with pytest.raises(ValueError, match="64 x 64 pixels"):
            FeaturePredictionEncoder(loss_network=network).fit(frames)


class TestNotFitted:
    @pytest.mark.parametrize("method", ["transform", "score"])
    def test_images_before_fit(self, quick, frames, method):
        with pytest.raises(NotFittedError, match=r"not fitted yet.*'fit'"):
            getattr(quick(), method)(frames)

    @pytest.mark.parametrize("estimator", [PerceptualAutoencoder, PixelAutoencoder])
    def test_inverse_transform_before_fit(self, estimator):
        with pytest.raises(NotFittedError, match=r"not fitted yet.*'fit'"):
            estimator().inverse_transform(np.zeros((1, 128)))

    def test_feature_names_before_fit(self, quick):
        with pytest.raises(NotFittedError):
            quick().get_feature_names_out()

    def test_after_a_fit_that_was_refused(self, quick, frames):
        encoder = quick(loss_network="none", encoder="features")
        with pytest.raises(ValueError, match="loss_network"):
            encoder.fit(frames)

        with pytest.raises(NotFittedError):
            encoder.transform(frames)


class TestDevice:
    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_gpu_that_is_not_there(self, quick, frames):
        with pytest.raises(ValueError, match=r"no CUDA device.*\"cpu\""):
            quick(device="cuda").fit(frames)

    def test_unknown_device(self, quick, frames):
        with pytest.raises(ValueError, match="device is 'toaster'"):
            quick(device="toaster").fit(frames)


class TestOutput:
    @pytest.mark.parametrize(("library", "kind"), [("pandas", pd), ("polars", pl)])
    def test_table(self, frames, library, kind):
        encoder = PixelAutoencoder(z=3, max_epochs=1, random_state=0).set_output(transform=library)

        table = encoder.fit_transform(frames)

        assert isinstance(table, kind.DataFrame)
        assert list(table.columns) == encoder.get_feature_names_out().tolist()
        np.testing.assert_array_equal(
            table.to_numpy(), encoder.set_output(transform="default").transform(frames)
        )
        assert encoder.inverse_transform(table).shape == frames.shape

    def test_index_and_names_of_a_table_of_rows(self, frames):
        rows = pd.DataFrame(frames[:, ::4, ::4, 0].reshape(16, -1)).add_prefix("pixel")
        rows.index = [f"image{i}" for i in range(16)]
        encoder = PixelAutoencoder(z=2, image_shape=(16, 16), max_epochs=1, random_state=0)
        encoder.set_output(transform="pandas")

        table = encoder.fit_transform(rows)

        assert table.index.tolist() == rows.index.tolist()
        assert encoder.feature_names_in_.tolist() == rows.columns.tolist()
        with pytest.raises(ValueError, match="feature names"):
            encoder.transform(rows[rows.columns[::-1]])

    def test_names_of_columns_are_those_of_the_class_and_a_number(self, quick, frames):
        encoder = quick(z=2).set_output(transform="polars").fit(frames)

        prefix = type(encoder).__name__.lower()
        assert encoder.transform(frames).columns == [f"{prefix}0", f"{prefix}1"]


class TestRefit:
    def test_on_images_of_another_size(self, quick, noise):
        encoder = quick().fit(noise(6, 64, 64, 3))

        encoder.fit(noise(6, 32, 48))

        assert encoder.image_shape_ == (32, 48)
        assert encoder.n_features_in_ == 32 * 48
        assert encoder.transform(noise(2, 32, 48)).shape == (2, 3)

    def test_on_images_after_a_table(self, noise):
        images = noise(6, 16, 16)
        table = pd.DataFrame(images.reshape(6, -1)).add_prefix("pixel")
        encoder = PixelAutoencoder(z=2, image_shape=(16, 16), max_epochs=1).fit(table)

        encoder.fit(images)

        assert not hasattr(encoder, "feature_names_in_")
