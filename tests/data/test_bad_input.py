"""Bad input is refused with the right exception, and words that help the user out."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse

from skfp import PerceptualAutoencoder, PixelAutoencoder


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def fitted(X):
    return PixelAutoencoder(z=2, max_epochs=1, random_state=0).fit(X)


class TestValues:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_not_finite(self, quick, fitted, X, value, dtype):
        floats = (X / 255).astype(dtype)
        floats[3, 4, 5, 1] = value

        with pytest.raises(ValueError, match=r"NaN or inf.*finite"):
            quick().fit(floats)
        with pytest.raises(ValueError, match=r"NaN or inf.*finite"):
            fitted.transform(floats)
        with pytest.raises(ValueError, match=r"NaN or inf.*finite"):
            fitted.score(floats)

    def test_not_finite_far_into_many_images(self, quick):
        many = np.zeros((2_000, 16, 16), dtype=np.float32)
        many[1_500, 3, 3] = np.nan

        with pytest.raises(ValueError, match="the first is image 1500"):
            quick().fit(many)

    @pytest.mark.parametrize(
        "strings",
        [
            ["first.png", "second.png"],
            np.array(["first.png", "second.png"]),
            np.array([["a", "b"], ["c", "d"]]),
            np.full((4, 16, 16, 3), "a"),
            np.full((4, 16, 16, 3), b"a"),
        ],
        ids=["list of paths", "array of paths", "table", "images of strings", "images of bytes"],
    )
    def test_strings(self, quick, fitted, strings):
        with pytest.raises(ValueError, match=r"not numbers.*Expected images"):
            quick().fit(strings)
        with pytest.raises(ValueError, match=r"not numbers.*Expected images"):
            fitted.transform(strings)

    @pytest.mark.parametrize("shape", [(4, 300), (4, 16, 16), (4, 16, 16, 3)], ids=str)
    @pytest.mark.parametrize("item", [object(), {"a": 1}], ids=["object", "dict"])
    def test_objects(self, quick, fitted, shape, item):
        objects = np.full(shape, item, dtype=object)

        with pytest.raises(TypeError, match="must be a string or a real number"):
            quick().fit(objects)
        with pytest.raises(TypeError, match="must be a string or a real number"):
            fitted.transform(objects)

    @pytest.mark.parametrize("item", ["a", b"a", "", 10**400, 1j, [1]], ids=repr)
    def test_objects_that_are_no_numbers(self, quick, fitted, item):
        objects = np.full((4, 16, 16), 0.5, dtype=object)
        objects[1, 2, 3] = item

        for method in (quick().fit, fitted.transform):
            with pytest.raises((TypeError, ValueError), match=r"not an array of numbers.*\n?.*Exp"):
                method(objects)

    @pytest.mark.parametrize("dtype", ["M8[s]", "m8[D]", "V5", [("r", "u1"), ("g", "u1")]], ids=str)
    def test_values_that_are_no_brightness(self, quick, fitted, dtype):
        for method in (quick().fit, fitted.transform):
            with pytest.raises(ValueError, match=r"not numbers.*Expected images"):
                method(np.zeros((4, 16, 16), dtype))

    def test_lists_that_are_no_arrays(self, quick):
        for ragged in ([[1, 2], [3]], [[[0.5] * 16] * 16, [[0.5] * 16] * 15]):
            with pytest.raises(ValueError, match="Expected images"):
                quick().fit(ragged)

    def test_an_object_alone(self, quick, fitted):
        for method in (quick().fit, fitted.transform):
            with pytest.raises((TypeError, ValueError), match="Expected"):
                method(np.array({}, dtype=object))

    @pytest.mark.parametrize("order", "<>")
    def test_extended_precision(self, quick, X, order):
        extended = (X / 255).astype(np.dtype(np.longdouble).newbyteorder(order))

        assert np.isfinite(quick().fit_transform(extended)).all()

    def test_complex_numbers(self, quick, X):
        with pytest.raises(ValueError, match="Complex data not supported"):
            quick().fit(X.astype(complex))

    def test_sparse_rows(self, quick, X):
        with pytest.raises(TypeError, match=r"[Ss]parse.*dense"):
            quick(image_shape=(64, 64, 3)).fit(sparse.csr_matrix(X.reshape(8, -1)))

    def test_range_too_wide_to_scale(self, quick):
        wide = np.zeros((4, 16, 16))
        wide[0, 0, :2] = -1e308, 1e308

        with pytest.raises(ValueError, match=r"Scale the images to \[0, 1\]"):
            quick().fit(wide)

    def test_training_that_diverges(self, quick, X):
        with pytest.raises(ValueError, match=r"diverged.*Lower lr"):
            quick(lr=1e30, batch_size=2).fit(X)


class TestCollections:
    """What people put images into."""

    @pytest.mark.parametrize(
        "paths",
        [
            "folder",
            Path("folder"),
            [Path("a.png"), Path("b.png")],
            pd.Series(["a.png", "b.png"]),
            pd.DataFrame({"path": ["a.png", "b.png"]}),
        ],
        ids=["folder", "path of a folder", "paths", "series", "frame"],
    )
    def test_paths_are_sent_to_the_loader(self, quick, paths):
        with pytest.raises(ValueError, match="ImageLoader"):
            quick().fit(paths)

    def test_no_array(self, quick):
        with pytest.raises(ValueError, match=r"dict.*Expected 2D array"):
            quick().fit({})
        with pytest.raises(ValueError, match=r"0 sample\(s\)"):
            quick().fit(iter([]))
        with pytest.raises(TypeError, match=r"DataLoader.*X\.dataset"):
            quick().fit(torch.utils.data.DataLoader([1]))

    @pytest.mark.parametrize("mode", ["P", "CMYK", "1", "LA"])
    def test_pil_images_are_read_by_their_colours(self, X, mode):
        colours = [Image.fromarray(image).convert(mode) for image in X]
        expected = [np.asarray(c.convert("L" if mode == "1" else "RGB")) for c in colours]
        fitted = PixelAutoencoder(z=2, max_epochs=1, random_state=0).fit(colours)

        assert fitted.image_shape_ == expected[0].shape
        np.testing.assert_array_equal(
            fitted.transform(colours), fitted.transform(np.stack(expected))
        )

    def test_column_of_arrays(self, fitted, X):
        column = pd.DataFrame({"image": list(X)})["image"]

        np.testing.assert_array_equal(fitted.transform(column), fitted.transform(X))

    def test_list_of_tensors(self, fitted, X):
        embedding = fitted.transform([torch.from_numpy(image) for image in X])

        assert isinstance(embedding, torch.Tensor)
        np.testing.assert_array_equal(embedding, fitted.transform(X))

    def test_one_grey_image(self, noise):
        fitted = PixelAutoencoder(z=2, max_epochs=1).fit(noise(5, 20, 30))

        with pytest.raises(ValueError, match=r"one image.*X\[None\]"):
            fitted.transform(noise(20, 30))

    def test_rows_that_are_no_square(self, quick, noise):
        with pytest.warns(UserWarning, match=r"2914 values.*54 by 54.*image_shape"):
            quick().fit(noise(4, 2914))

    def test_rows_that_look_like_rgb_are_pointed_out(self, quick, noise):
        with pytest.warns(UserWarning, match=r"image_shape=\(20, 20, 3\)"):
            quick().fit(noise(6, 1200))

    def test_validation_images_are_named(self, quick, X):
        with pytest.raises(ValueError, match=r"X_val.*\(32, 32, 3\)"):
            quick().fit(X, X_val=X[:, ::2, ::2])


class TestShapes:
    @pytest.mark.parametrize("shape", [(), (64,), (2, 64, 64, 3, 1), (1, 2, 8, 64, 64, 3)], ids=str)
    def test_number_of_dimensions(self, quick, fitted, shape):
        wrong = np.zeros(shape)

        with pytest.raises(ValueError, match=r"(2D array|dimensions.*Expected images)"):
            quick().fit(wrong)
        with pytest.raises(ValueError, match=r"(2D array|dimensions.*Expected images)"):
            fitted.transform(wrong)

    def test_single_image(self, quick, X):
        with pytest.raises(ValueError, match=r"X\[None\]"):
            quick().fit(X[0])

    @pytest.mark.parametrize("shape", [(0, 8), (8, 0), (8, 0, 3), (8, 8, 0)], ids=str)
    @pytest.mark.parametrize("resize", ["auto", 64])
    def test_no_pixels(self, quick, shape, resize):
        for X in (np.zeros((4, *shape)), [np.zeros(shape)] * 4):
            with pytest.raises(ValueError, match=r"no pixels.*Expected images"):
                quick(resize=resize).fit(X)

    @pytest.mark.parametrize(
        ("shape", "sides"),
        [((1, 1), "1 by 1"), ((1, 64), "1 by 64"), ((64, 1, 3), "64 by 1"), ((3, 1, 8), "1 by 8")],
        ids=str,
    )
    def test_lines_of_one_pixel(self, quick, shape, sides):
        with pytest.raises(ValueError, match=rf"{sides} pixels.*at least 2 by 2"):
            quick().fit(np.zeros((6, *shape), dtype=np.uint8))

    def test_rows_of_one_pixel(self, quick):
        with pytest.raises(ValueError, match="at least 2 by 2"):
            quick(image_shape=(1, 64)).fit(np.zeros((6, 64)))

    def test_images_of_different_sizes(self, quick):
        with pytest.raises(ValueError, match="different shapes"):
            quick().fit([np.zeros((64, 64, 3)), np.zeros((32, 32, 3))])

    def test_rows_that_do_not_fit_image_shape(self, quick, X):
        rows = X.reshape(8, -1)[:, :-1]

        with pytest.raises(ValueError, match=r"12287 values, but image_shape \(64, 64, 3\).*12288"):
            quick(image_shape=(64, 64, 3)).fit(rows)

    @pytest.mark.parametrize("image_shape", [(4096,), (1, 64, 64, 1), ()], ids=str)
    def test_image_shape_of_wrong_length(self, quick, X, image_shape):
        with pytest.raises(ValueError, match=r"image_shape.*\(height, width, channels\)"):
            quick(image_shape=image_shape).fit(X[..., 0].reshape(8, -1))

    def test_image_shape_other_than_that_of_the_images(self, quick, X):
        with pytest.raises(ValueError, match=r"\(64, 64, 3\).*image_shape is \(32, 32, 3\)"):
            quick(image_shape=(32, 32, 3)).fit(X)

    @pytest.mark.parametrize(
        "change",
        [
            lambda X: X[:, :32],
            lambda X: X[:, :48, :48],
            lambda X: np.pad(X, ((0, 0), (0, 16), (0, 16), (0, 0))),
            lambda X: X[..., 0],
            lambda X: X[..., :1],
            lambda X: X[..., [0, 1, 2, 2]],
            lambda X: X[:, :32].transpose(0, 3, 1, 2),
        ],
        ids=["half", "smaller", "larger", "grey", "one channel", "RGBA", "half, channels first"],
    )
    def test_other_than_in_fit(self, fitted, X, change):
        words = r"fitted on images of shape \(64, 64, 3\).*(Resize|convert)"

        with pytest.raises(ValueError, match=words):
            fitted.transform(change(X))
        with pytest.raises(ValueError, match=words):
            fitted.score(change(X))

    def test_rows_other_than_in_fit(self, fitted, X):
        with pytest.raises(ValueError, match=r"(12287.*64, 64, 3|12287 features.*12288)"):
            fitted.transform(X.reshape(8, -1)[:, :-1])

    def test_X_val_with_an_error_of_its_own(self, quick, X):
        class Broken(torch.utils.data.Dataset):
            def __len__(self):
                return 3

            def __getitem__(self, row):
                return json.loads("{")

        with pytest.raises(ValueError, match=r"X_val does not fit to X.*Expecting property name"):
            quick().fit(X, X_val=Broken())

    def test_X_val_other_than_X(self, quick, X):
        with pytest.raises(ValueError, match=r"\(32, 64, 3\).*\(64, 64, 3\)"):
            quick().fit(X, X_val=X[:, :32])

    @pytest.mark.parametrize("estimator", [PerceptualAutoencoder, PixelAutoencoder])
    def test_embeddings_of_another_size(self, X, estimator):
        fitted = estimator(z=2, max_epochs=1).fit(X)

        with pytest.raises(ValueError, match=r"z=2 columns"):
            fitted.inverse_transform(np.zeros((4, 3)))

    def test_embeddings_that_are_not_finite(self, fitted):
        with pytest.raises(ValueError, match="NaN"):
            fitted.inverse_transform([[0.0, np.nan]])


class TestNumberOfImages:
    @pytest.mark.parametrize("shape", [(0, 64, 64, 3), (0, 64, 64), (0, 4096)], ids=str)
    def test_none(self, quick, fitted, shape):
        with pytest.raises(ValueError, match=r"0 sample\(s\).*minimum of 1"):
            quick().fit(np.zeros(shape))
        with pytest.raises(ValueError, match=r"0 sample\(s\).*minimum of 1"):
            fitted.transform(np.zeros(shape))

    def test_empty_list(self, quick):
        with pytest.raises(ValueError, match=r"0 sample\(s\)|Expected 2D array"):
            quick().fit([])

    def test_one(self, quick, X):
        with pytest.raises(ValueError, match=r"one image.*at least 2.*X_val"):
            quick().fit(X[:1])

    def test_one_may_be_embedded(self, fitted, X):
        assert fitted.transform(X[:1]).shape == (1, 2)

    def test_validation_images_but_none(self, quick, X):
        with pytest.raises(ValueError, match=r"0 sample\(s\)"):
            quick().fit(X, X_val=X[:0])

    @pytest.mark.parametrize("fraction", [0, 0.0, 1.0, -0.1, 1.5, "half", None])
    def test_validation_fraction_that_leaves_nothing_to_validate_on(self, quick, X, fraction):
        with pytest.raises(ValueError, match=r"'validation_fraction' parameter.*\(0.0, 1.0\)"):
            quick(validation_fraction=fraction).fit(X)

    def test_validation_fraction_that_leaves_nothing_to_train_on(self, quick, X):
        with pytest.raises(ValueError, match=r"validation_fraction=0.99 of 8 images.*[Ll]ower it"):
            quick(validation_fraction=0.99).fit(X)
