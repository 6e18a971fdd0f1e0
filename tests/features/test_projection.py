"""Principal components of the features, which feature prediction learns in place of them."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from skfp import FeaturePredictionEncoder
from skfp._data import Preprocess, check_images
from skfp._features import FeatureExtractor, FeatureStore, PCAProjection, compute_rows
from skfp._features.cache import Cache
from skfp._loss_network import load_loss_network


@pytest.fixture
def features():
    """Thirty rows of ten features, whose variances fall by half from one direction to the next."""
    random = np.random.default_rng(0)
    rotation = np.linalg.qr(random.normal(size=(10, 10)))[0]
    rows = random.normal(size=(30, 10)) * 2.0 ** -np.arange(10) @ rotation + 5
    return rows.astype(np.float32)


@pytest.fixture
def extractor(features):
    return FeatureExtractor(
        FeatureStore(features), torch.nn.Identity(), features.shape[1], Cache(None)
    )


class TestProjection:
    def test_is_that_of_scikit_learn(self, extractor, features):
        expected = PCA(3, svd_solver="full").fit(features)

        projection = extractor.fit_projection(3)

        np.testing.assert_allclose(projection.mean, expected.mean_, rtol=1e-5)
        overlap = np.abs(projection.basis.numpy() @ expected.components_.T)
        np.testing.assert_allclose(overlap, np.eye(3), atol=1e-2)
        share = expected.explained_variance_ratio_.sum()
        assert projection.explained_variance_ratio.item() == pytest.approx(share, rel=1e-3)

    def test_residual_is_the_squared_distance_to_the_components(self, extractor, features):
        projection = extractor.fit_projection(3)

        rows = projection(torch.from_numpy(features))

        assert rows.shape == (30, 4)
        reached = projection.inverse(rows[:, :-1]).numpy()
        np.testing.assert_allclose(rows[:, -1], ((features - reached) ** 2).sum(1), rtol=1e-3)

    def test_all_of_them_lose_nothing(self, extractor, features):
        projection = extractor.fit_projection(10)

        rows = projection(torch.from_numpy(features))

        np.testing.assert_allclose(projection.inverse(rows[:, :-1]), features, atol=1e-4)
        np.testing.assert_allclose(rows[:, -1], 0, atol=1e-4)
        assert projection.explained_variance_ratio.item() == pytest.approx(1, abs=1e-5)

    def test_never_more_than_the_sample_determines(self, extractor):
        assert extractor.fit_projection(10_000).basis.shape == (10, 10)

    def test_auto_takes_as_many_as_explain_98_percent(self, extractor, features):
        explained = PCA(svd_solver="full").fit(features).explained_variance_ratio_.cumsum()

        projection = extractor.fit_projection("auto")

        assert 1 < len(projection.basis) == np.argmax(explained >= 0.98) + 1
        assert projection.explained_variance_ratio >= 0.98

    def test_auto_takes_no_more_than_512(self):
        noise = np.random.default_rng(0).normal(size=(1500, 700)).astype(np.float32)
        extractor = FeatureExtractor(FeatureStore(noise), torch.nn.Identity(), 700, Cache(None))
        assert len(extractor.fit_projection("auto").basis) == 512

    def test_equal_features_have_a_finite_projection(self):
        rows = FeatureStore(np.full((6, 4), 0.5, dtype=np.float32))
        projection = FeatureExtractor(rows, torch.nn.Identity(), 4, Cache(None)).fit_projection(2)

        coefficients = projection(rows.read(slice(None)))

        assert coefficients.isfinite().all()
        np.testing.assert_allclose(coefficients, 0, atol=1e-6)

    def test_rows_of_all_images(self, extractor, features):
        projection = extractor.fit_projection(3)

        rows = extractor.projected(projection).read(slice(None))

        torch.testing.assert_close(rows, projection(torch.from_numpy(features)))

    def test_rows_are_not_mistaken_for_those_of_another_mean(self, features, tmp_path):
        cache = Cache(tmp_path, "these images")
        extractor = FeatureExtractor(
            FeatureStore(features), torch.nn.Identity(), features.shape[1], cache
        )
        projection = extractor.fit_projection(3)
        other = PCAProjection(projection.mean + 1, projection.basis, torch.tensor(1.0))

        for one in (projection, other):
            rows = extractor.projected(one).read(slice(None))
            torch.testing.assert_close(rows, one(torch.from_numpy(features)))

    def test_residual_is_never_negative(self):
        projection = PCAProjection(
            torch.zeros(2), torch.tensor([[0.6, 0.8]]) * 1.0001, torch.tensor(1.0)
        )

        assert projection(torch.tensor([[3.0, 4.0]]))[0, -1] == 0


class TestTargetComponents:
    """What a user sees of the compression: the parameter `target_components`."""

    @pytest.mark.parametrize(("asked", "expected"), [(5, 5), (None, 9_408)])
    def test_decoder_predicts_so_many_values(self, frames, asked, expected):
        encoder = FeaturePredictionEncoder(
            z=2, target_components=asked, max_epochs=1, random_state=0
        ).fit(frames)

        with torch.inference_mode():
            assert encoder.decoder_(torch.zeros(1, 2)).shape == (1, expected)

    def test_losses_are_on_one_scale_for_any_number_of_components(self, frames):
        losses = [
            FeaturePredictionEncoder(
                z=8, target_components=k, max_epochs=1, random_state=0, lr=1e-6
            )
            .fit(frames)
            .score(frames)
            for k in (2, 8, 16)
        ]
        # Untrained decoders predict about the mean features: equation 3 is their variance.
        layers = torch.nn.Sequential(Preprocess(), load_loss_network("alexnet"))
        variance = compute_rows(check_images(frames, "uint8"), layers, 9_408).var(axis=0).mean()

        np.testing.assert_allclose(losses, -variance, rtol=0.2)

    def test_fewer_components_leave_a_greater_loss(self, frames):
        few, many = (
            FeaturePredictionEncoder(
                z=8, target_components=k, max_epochs=12, batch_size=8, random_state=0
            )
            .fit(frames)
            .score(frames)
            for k in (1, 16)
        )

        assert many > few

    @pytest.mark.parametrize("wrong", [0, "all", 2.5])
    def test_refused(self, frames, wrong):
        with pytest.raises(ValueError, match="'target_components' parameter"):
            FeaturePredictionEncoder(target_components=wrong).fit(frames)
