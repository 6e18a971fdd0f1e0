"""Which values are black and white: found in fit, given by the user, and kept ever after."""

import functools
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skfp import FeaturePredictionEncoder, PixelAutoencoder

pixels = functools.partial(PixelAutoencoder, z=3, max_epochs=1, batch_size=8, random_state=0)


@pytest.fixture(scope="module")
def X():
    """Dark and bright squares at random places, uint8."""
    random = np.random.default_rng(0)
    images = random.integers(0, 60, (12, 64, 64, 3), dtype=np.uint8)
    for image in images:
        row, column = random.integers(0, 40, 2)
        image[row : row + 24, column : column + 24] = random.integers(128, 256, 3)
    images.flat[:2] = 0, 255
    return images


@pytest.fixture(scope="module")
def masks(X):
    return X[..., 0] > 100


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(n_class=5, return_X_y=True)
    return images.reshape(-1, 8, 8)[:300] > 7, labels[:300]


def assert_same(encoder, images, others):
    np.testing.assert_allclose(encoder.transform(images), encoder.transform(others), atol=1e-5)


@pytest.fixture
def silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


SCALES = {
    "bool": lambda m: m,
    "uint8 of 0 and 1": lambda m: m.astype(np.uint8),
    "int64 of 0 and 1": lambda m: m.astype(np.int64),
    "floats of 0 and 1": lambda m: m.astype(np.float32),
    "floats of 0 and 0.05": lambda m: m * 0.05,
    "12 bits in uint16": lambda m: m.astype(np.uint16) * 4080,
    "-1 and 1": lambda m: m * 2.0 - 1,
    "floats of 0 and 255": lambda m: m * 255.0,
}


@pytest.fixture(scope="module")
def embed():
    return lambda X: FeaturePredictionEncoder(
        8, loss_network=torch.nn.AvgPool2d(8), max_epochs=3, random_state=0
    ).fit_transform(X)


@pytest.fixture(scope="module")
def expected(embed, digits):
    return embed(digits[0].astype(np.uint8) * 255)


class TestFit:
    """The same pixels train the same encoder, whatever type and scale they come in."""

    @pytest.mark.filterwarnings("ignore:X uses only")
    @pytest.mark.parametrize("scale", SCALES)
    def test_classes_are_found_as_from_0_to_255(self, embed, expected, digits, scale):
        masks, labels = digits
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))

        embedding = embed(SCALES[scale](masks))

        np.testing.assert_allclose(embedding, expected, atol=1e-4)
        assert cross_val_score(classifier, embedding, labels).mean() > 0.85

    @pytest.mark.parametrize("store", [lambda X: X, lambda X: [*X], torch.tensor, pd.Series])
    def test_masks_in_any_container(self, masks, silent, store):
        store = store if store is not pd.Series else lambda X: pd.Series([*X])
        encoder = pixels().fit(store(masks))

        for others in (masks, masks.astype(np.uint8), masks.astype(np.uint8) * 255, masks * 1.0):
            assert_same(encoder, store(masks), store(others))

    @pytest.mark.parametrize(
        ("images", "expected"),
        [
            (lambda X: X, (0, 255)),
            (lambda X: X / 255, (0, 1)),
            (lambda X: X.astype(float), (0, 255)),
            (lambda X: X / 127.5 - 1, (-1, 1)),
            (lambda X: X.astype(np.uint16) * 16, (0, 4080)),
            (lambda X: X * 16.0 - 1000, (-1000, 3080)),
            (lambda X: X[:, :30] * 0, (0, 255)),
            (lambda X: X[:, :30] * 0.0, (0, 1)),
        ],
        ids=["uint8", "unit", "floats", "signed", "12 bits", "CT", "black", "black floats"],
    )
    def test_the_smallest_usual_range_that_holds_the_images(self, X, silent, images, expected):
        assert pixels().fit(images(X))._state.format.value_range == expected

    @pytest.mark.parametrize(
        ("images", "low", "high"),
        [
            (lambda X: X // 13, 0, 19),
            (lambda X: X / 255 * 0.05, 0, 0.05),
            (lambda X: X / 255 * 0.05 + 0.4, 0.4, 0.45),
        ],
    )
    def test_images_of_little_contrast_are_stretched_with_a_warning(self, X, images, low, high):
        with pytest.warns(UserWarning, match=r"only values from .*read as black.*value_range="):
            encoder = pixels().fit(images(X))

        assert encoder._state.format.value_range == pytest.approx((low, high))
        expected = pixels().fit((images(X) - low) / (high - low))
        np.testing.assert_allclose(
            encoder.transform(images(X)),
            expected.transform((images(X) - low) / (high - low)),
            atol=1e-4,
        )

    @pytest.mark.parametrize(
        "images",
        [lambda X: X / 255, lambda X: X.astype(float), lambda X: X.astype(np.uint16) * 16],
    )
    def test_a_hot_pixel_is_warned_of(self, X, images):
        hot = images(X)
        hot[0, 0, 0, 0] = 60_000

        with pytest.warns(UserWarning, match="Nearly all values of X lie between"):
            pixels().fit(hot)

    def test_a_given_range_is_that_of_all_images(self, X):
        encoder = pixels(value_range=(0, 510)).fit(X)

        half = pixels(value_range=(0, 1)).fit(X / 510)
        np.testing.assert_allclose(encoder.transform(X), half.transform(X / 510), atol=1e-5)

    def test_values_outside_a_given_range_are_clipped(self, X):
        encoder = pixels(value_range=(50, 200)).fit(X)

        assert_same(encoder, X, X.clip(50, 200))
        assert_same(encoder, X, X.astype(np.float32))

    def test_a_given_range_that_images_hardly_use(self, X):
        with pytest.warns(UserWarning, match=r"Nearly all.*value_range=\(0.0, 65535.0\)"):
            pixels(value_range=(0, 65535)).fit(X)

    def test_a_given_range_that_images_are_outside_of(self, X):
        with pytest.warns(UserWarning, match=r"nearly all outside value_range=\(0.0, 1.0\)"):
            pixels(value_range=(0, 1)).fit(X)

    @pytest.mark.parametrize("wrong", [(1, 0), (0, 0), (0,), (0, np.inf), (0, np.nan), (0, 1, 2)])
    def test_ranges_that_are_none(self, X, wrong):
        with pytest.raises(
            ValueError, match=r"value_range is .*Expected \"auto\" or \(low, high\)"
        ):
            pixels(value_range=wrong).fit(X)


STORES = {
    "uint8": lambda X: X,
    "unit": lambda X: X / 255,
    "floats": lambda X: X.astype(float),
    "signed": lambda X: X / 127.5 - 1,
    "int64": lambda X: X.astype(np.int64),
    "12 bits": lambda X: X.astype(np.uint16) * 16,
}
# What each encoder takes as the same images; what it refuses; the rest it warns of.
TAKES = {
    "uint8": {"uint8", "unit", "floats", "int64"},
    "int64": {"uint8", "unit", "floats", "int64"},
    "unit": {"uint8", "unit", "floats", "int64"},
    "floats": {"uint8", "floats", "int64"},
    "signed": {"uint8", "signed"},
    "12 bits": {"12 bits"},
}
REFUSES = {
    "uint8": {"signed", "12 bits"},
    "int64": {"signed", "12 bits"},
    "unit": {"signed", "12 bits"},
    "floats": {"12 bits"},
    "signed": {"floats", "int64", "12 bits"},
    "12 bits": set(),
}


@pytest.fixture(scope="module")
def fitted(X):
    return {name: pixels().fit(store(X)) for name, store in STORES.items()}


class TestTransform:
    """Images of another type or scale are read alike, or refused, or warned of."""

    @pytest.mark.parametrize("other", STORES)
    @pytest.mark.parametrize("name", STORES)
    def test_every_scale_after_every_other(self, fitted, X, name, other):
        encoder, images = fitted[name], STORES[other](X)

        if other in TAKES[name]:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert_same(encoder, STORES[name](X), images)
        elif other in REFUSES[name]:
            with pytest.raises(ValueError, match=r"fitted on values from.*value_range="):
                encoder.transform(images)
        else:
            with pytest.warns(UserWarning, match=r"fitted on values from.*value_range="):
                encoder.transform(images)

    def test_one_voxel_of_30_000(self, X):
        ct = X[..., 0] * 16.0 - 1000
        hot = ct.copy()
        hot[0, 0, 0] = 30_000

        with pytest.raises(ValueError, match=r"-1000 to 30000.*value_range=.*clips"):
            pixels().fit(ct).transform(hot)
        encoder = pixels(value_range=(-1000, 3080)).fit(ct)
        assert_same(encoder, hot, hot.clip(-1000, 3080))

    @pytest.mark.parametrize("name", ["uint8", "unit"])
    def test_a_hot_pixel_does_not_decide_the_scale(self, fitted, X, name):
        hot = X / 255
        hot[0, 0, 0, 0] = 100

        with pytest.raises(ValueError, match=r"nearly all below 2.*value_range="):
            fitted[name].transform(hot)

    @pytest.mark.parametrize("name", ["uint8", "floats"])
    def test_a_batch_of_zeros(self, fitted, X, name):
        assert_same(fitted[name], X[:3] * 0, X[:3] * 0.0)

    def test_little_noise_outside_the_range(self, fitted, X, silent):
        noisy = (X / 255 * 1.05 - 0.02).astype(np.float32)
        noisy[0, 0, 0, 0] = 1.04

        np.testing.assert_allclose(
            fitted["unit"].transform(noisy), fitted["uint8"].transform(noisy), atol=1e-5
        )

    def test_dark_images_are_not_made_bright(self, fitted, X):
        dark = X // 40

        assert_same(fitted["uint8"], dark, dark / 255)
        assert_same(fitted["uint8"], dark, dark.astype(np.int32))

    @pytest.mark.parametrize("dtype", [np.uint8, np.int64])
    def test_zeros_and_ones_after_photographs(self, fitted, X, dtype):
        with pytest.warns(UserWarning, match="uses only 0 to 1 of 0 to 255"):
            fitted["uint8"].transform((X > 100).astype(dtype))

    def test_photographs_after_zeros_and_ones(self, X, masks):
        encoder = pixels().fit(masks.astype(np.uint8))

        with pytest.warns(UserWarning, match="holds other integers"):
            encoder.transform(X[..., 0])

    def test_unit_floats_after_other_small_numbers(self, X):
        with pytest.warns(UserWarning, match="X uses only"):
            encoder = pixels().fit(X // 16)
        with pytest.warns(UserWarning, match="holds floats from 0 to 0.9375"):
            encoder.transform(X // 16 / 16)

    @pytest.mark.parametrize(
        ("value_range", "fit", "other"),
        [((0, 255), "uint8", "unit"), ((0, 1), "unit", "uint8"), ((0, 4080), "12 bits", "uint8")],
    )
    def test_another_scale_than_the_given_range(self, X, value_range, fit, other):
        encoder = pixels(value_range=value_range).fit(STORES[fit](X))

        with pytest.warns(
            UserWarning, match=r"fitted on values.*(uses only|outside|like images of 8 bits)"
        ):
            encoder.transform(STORES[other](X))

    def test_validation_images_of_another_scale(self, X):
        expected = pixels().fit(X, X_val=X[:4]).validation_loss_

        assert pixels().fit(X, X_val=X[:4] / 255).validation_loss_ == pytest.approx(expected)
        with pytest.raises(ValueError, match=r"X_val.*-1 to 1"):
            pixels().fit(X, X_val=X[:4] / 127.5 - 1)


class TestPartialFit:
    def test_a_dark_first_batch(self, X):
        with pytest.warns(UserWarning, match=r"only values from 0 to 19.*value_range="):
            encoder = pixels().partial_fit(X // 13)
        with pytest.raises(ValueError, match=r"from 0 to 19.*0 to 255.*value_range="):
            encoder.partial_fit(X)

    def test_a_given_range_takes_a_dark_first_batch(self, X):
        with pytest.warns(UserWarning, match="Nearly all values"):
            encoder = pixels(value_range=(0, 255)).partial_fit(X // 13)

        encoder.partial_fit(X)

        assert encoder._state.format.value_range == (0, 255)

    def test_a_black_first_batch(self, X, silent):
        encoder = pixels().partial_fit(X * 0).partial_fit(X)

        assert_same(encoder, X, X / 255)


STORED = {
    "bool": lambda X: X > 100,
    "0 and 1": lambda X: (X > 100).astype(np.uint8),
    "uint8": lambda X: X,
    "12 bits": lambda X: X.astype(np.uint16) * 16,
    "signed": lambda X: (X / 127.5 - 1).astype(np.float32),
}


@pytest.fixture(scope="module", params=STORED)
def stored(request, X):
    images = STORED[request.param](X)
    return images, pixels().fit(images)


@pytest.fixture(scope="module")
def clipping(X):
    return X.astype(np.float32), pixels(value_range=(50, 200)).fit(X.astype(np.float32))


class TestKept:
    """Files, pickles and exports read images as the encoder does."""

    def test_pickle_and_save(self, stored, clipping, tmp_path):
        for images, encoder in (stored, clipping):
            encoder.save(tmp_path / "encoder")
            for again in (
                PixelAutoencoder.load(tmp_path / "encoder"),
                pickle.loads(pickle.dumps(encoder)),
            ):
                assert again.value_range == encoder.value_range
                np.testing.assert_array_equal(again.transform(images), encoder.transform(images))

    def test_torch(self, stored, clipping):
        for images, encoder in (stored, clipping):
            tensors = torch.from_numpy(images)
            tensors = tensors.float() if tensors.dtype == torch.uint16 else tensors
            with torch.no_grad():
                embedding = encoder.to_torch()(tensors)
            np.testing.assert_allclose(embedding, encoder.transform(images), atol=1e-5)

    def test_onnx(self, stored, tmp_path):
        onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
        images, encoder = stored
        encoder.to_onnx(tmp_path / "encoder.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")

        # bool stays bool, uint8 stays uint8.
        given = images if images.dtype in (bool, np.uint8) else images.astype(np.float32)
        (embedding,) = session.run(None, {"images": given})

        np.testing.assert_allclose(embedding, encoder.transform(images), atol=1e-4)

    def test_onnx_clips_to_a_given_range(self, clipping, tmp_path):
        onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
        images, encoder = clipping
        encoder.to_onnx(tmp_path / "encoder.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")

        (embedding,) = session.run(None, {"images": images})

        np.testing.assert_allclose(embedding, encoder.transform(images), atol=1e-4)

    def test_decoded_images_come_back_on_the_scale_of_fit(self, stored):
        images, encoder = stored

        decoded = encoder.inverse_transform(encoder.transform(images))

        assert decoded.dtype == (np.uint8 if images.dtype == np.uint8 else np.float32)
        low, high = images.min(), images.max()
        assert low <= decoded.min() < decoded.max() <= high


class TestLists:
    def test_images_of_different_types(self, X):
        with pytest.raises(ValueError, match=r"different types: uint8 first, and float64 in row 1"):
            pixels().fit([X[0], X[1] / 255, X[2]])
        with pytest.raises(ValueError, match="different types"):
            pixels().fit([torch.from_numpy(X[0]), torch.from_numpy(X[1] / 255)])
        with pytest.raises(ValueError, match="different types"):
            pixels().fit([X[0].ravel(), X[1].ravel() / 255])

    def test_masks_among_bytes(self, X, masks):
        encoder = pixels().fit(X[..., 0])

        assert_same(encoder, [masks[0], X[1, ..., 0]], [masks[0] * np.uint8(255), X[1, ..., 0]])

    def test_data_sets_of_floats_are_floats(self, X):
        data = torch.utils.data.TensorDataset(torch.from_numpy(X / 255).float())
        encoder = pixels().fit(data)

        decoded = encoder.inverse_transform(encoder.transform(data))

        assert decoded.dtype == np.float32
        assert 0 < decoded.mean() < 1
