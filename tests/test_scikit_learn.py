"""The encoders as parts of scikit-learn: pipelines, grids, clones, pickles and tables."""

import inspect

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skfp import FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@parametrize_with_checks([FeaturePredictionEncoder(z=2, max_epochs=1, random_state=0)])
def test_estimator_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def labelled(lander):
    """Frames, and whether the lander is in the right half."""
    return lander.images, np.where(lander.positions[:, 0] > 0, "right", "left")


class TestPipeline:
    @pytest.fixture(scope="class")
    def pipeline(self, labelled):
        pipeline = Pipeline(
            [
                ("enc", FeaturePredictionEncoder(z=128, max_epochs=2, random_state=0)),
                ("clf", MLPClassifier(random_state=0)),
            ]
        )
        return pipeline.fit(*labelled)

    def test_predicts(self, pipeline, labelled):
        X, y = labelled

        assert set(pipeline.predict(X)) <= {"left", "right"}
        assert pipeline.predict_proba(X).shape == (len(X), 2)
        assert pipeline.score(X, y) > 0.9

    def test_clones_without_what_it_has_learned(self, pipeline, labelled):
        X, y = labelled

        again = clone(pipeline)

        assert not hasattr(again["enc"], "encoder_")
        assert again["enc"].get_params() == pipeline["enc"].get_params()
        np.testing.assert_array_equal(again.fit(X, y).predict_proba(X), pipeline.predict_proba(X))

    def test_dumps_and_loads(self, pipeline, labelled, tmp_path):
        X, _ = labelled
        joblib.dump(pipeline, tmp_path / "pipeline.joblib")

        loaded = joblib.load(tmp_path / "pipeline.joblib")

        np.testing.assert_array_equal(loaded.predict(X), pipeline.predict(X))
        np.testing.assert_array_equal(loaded.predict_proba(X), pipeline.predict_proba(X))

    def test_is_searched_over_z(self, labelled):
        X, y = labelled
        pipeline = Pipeline(
            [
                ("enc", FeaturePredictionEncoder(max_epochs=1, random_state=0)),
                ("clf", MLPClassifier(hidden_layer_sizes=(), random_state=0)),
            ]
        )

        search = GridSearchCV(pipeline, {"enc__z": [2, 16]}, cv=2, error_score="raise").fit(X, y)

        assert [params["enc__z"] for params in search.cv_results_["params"]] == [2, 16]
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        z = search.best_params_["enc__z"]
        assert search.best_estimator_["enc"].transform(X).shape == (len(X), z)

    def test_regression_of_positions_from_rows(self, lander):
        rows = lander.images.reshape(len(lander.images), -1)
        pipeline = make_pipeline(
            PixelAutoencoder(z=8, image_shape=(64, 64, 3), max_epochs=1, random_state=0),
            StandardScaler(),
            Ridge(),
        )

        assert pipeline.fit(rows, lander.positions).predict(rows).shape == (len(rows), 2)

    def test_validation_images_reach_the_encoder(self, labelled):
        X, y = labelled
        pipeline = make_pipeline(
            PixelAutoencoder(z=2, max_epochs=1, random_state=0), MLPClassifier(max_iter=5)
        )

        pipeline.fit(X, y, pixelautoencoder__X_val=X[:4])

        encoder = pipeline[0]
        assert encoder.validation_loss_ == pytest.approx(-encoder.score(X[:4]), rel=1e-4)


class TestSearch:
    def test_encoder_alone_by_its_own_score(self, frames):
        search = GridSearchCV(
            PixelAutoencoder(max_epochs=2, batch_size=4, random_state=0),
            {"lr": [1e-7, 1e-3]},
            cv=2,
            error_score="raise",
        ).fit(frames)

        assert search.best_params_ == {"lr": 1e-3}
        assert search.best_score_ < 0


class TestPickle:
    def test_all_methods_after_loading(self, trained, frames, tmp_path):
        joblib.dump(trained, tmp_path / "encoder.joblib")

        loaded = joblib.load(tmp_path / "encoder.joblib")

        embedding = trained.transform(frames)
        np.testing.assert_array_equal(loaded.transform(frames), embedding)
        assert loaded.score(frames) == trained.score(frames)
        assert loaded.history_ == trained.history_
        if hasattr(trained, "inverse_transform"):
            decoded = trained.inverse_transform(embedding)
            np.testing.assert_array_equal(loaded.inverse_transform(embedding), decoded)

    def test_training_images_are_not_kept(self, noise, tmp_path):
        """The file holds networks, whatever the number of images."""
        sizes = []
        for n_images in (4, 104):
            encoder = PixelAutoencoder(z=2, max_epochs=1, batch_size=128)
            joblib.dump(encoder.fit(noise(n_images, 64, 64, 3)), tmp_path / "encoder.joblib")
            sizes.append((tmp_path / "encoder.joblib").stat().st_size)

        assert abs(sizes[1] - sizes[0]) < 10_000


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
            "encoder": "image",
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


class TestOutput:
    @pytest.mark.parametrize(
        ("estimator", "prefix"),
        [
            (FeaturePredictionEncoder, "featurepredictionencoder"),
            (PerceptualAutoencoder, "perceptualautoencoder"),
            (PixelAutoencoder, "pixelautoencoder"),
        ],
    )
    def test_feature_names(self, frames, estimator, prefix):
        encoder = estimator(z=3, max_epochs=1).fit(frames)

        assert encoder.get_feature_names_out().tolist() == [f"{prefix}{i}" for i in range(3)]

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

    def test_in_a_pipeline(self, labelled):
        X, y = labelled
        pipeline = make_pipeline(
            PixelAutoencoder(z=2, max_epochs=1, random_state=0), MLPClassifier(max_iter=5)
        ).set_output(transform="pandas")

        pipeline.fit(X, y)

        assert pipeline[-1].feature_names_in_.tolist() == ["pixelautoencoder0", "pixelautoencoder1"]


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
