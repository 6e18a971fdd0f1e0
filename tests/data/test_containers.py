"""Whatever holds images gives the numbers of one array, to encoders and to ImageLoader."""

import io

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from skorch.helper import SliceDataset
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from skfp import ImageLoader, PixelAutoencoder

HEIGHT, WIDTH = 20, 30


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def cells(images):
    return [{"bytes": png(image), "path": None} for image in images]


class Photos(Dataset):
    """A map-style data set, whose items `make` makes of arrays."""

    def __init__(self, images, make):
        self.images, self.make = images, make

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.make(self.images[index])


def hugging_face(images, **options):
    datasets = pytest.importorskip("datasets")
    features = {"image": datasets.Image(**options), "label": datasets.Value("int64")}
    rows = {"image": [Image.fromarray(image) for image in images], "label": range(len(images))}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def tensors(images):
    """Floats, channels first."""
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255


# Of the pixels in memory; images of mixed sizes may be in most of these too.
CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "generator": lambda X: (image for image in X),
    "map": lambda X: map(Image.fromarray, X),
    "values of a dict": lambda X: dict(enumerate(X)).values(),
    "deque": lambda X: __import__("collections").deque(X),
    "array of objects": lambda X: pd.Series(list(X)).to_numpy(),
    "PIL images": lambda X: [Image.fromarray(image) for image in X],
    "bytes": lambda X: [png(image) for image in X],
    "bytearrays": lambda X: [bytearray(png(image)) for image in X],
    "open files": lambda X: [io.BytesIO(png(image)) for image in X],
    "cells": cells,
    "images with labels": lambda X: [(image, 1) for image in X],
    "images with labels in lists": lambda X: [[image, 1] for image in X],
    "images zipped with labels": lambda X: zip(X, range(len(X)), strict=True),
    "tensors with labels": lambda X: [(torch.from_numpy(image), 1) for image in X],
    "dicts": lambda X: [{"label": 1, "image": Image.fromarray(image)} for image in X],
    "dicts of another key": lambda X: [{"label": 1, "photo": image} for image in X],
    "data set": lambda X: Photos(X, lambda image: (image, 1)),
    "data set of PIL images": lambda X: Photos(X, Image.fromarray),
    "data set of cells": lambda X: Photos(X, lambda image: cells([image])[0]),
    "Subset": lambda X: Subset(Photos(X[::-1], lambda image: (image, 1)), range(len(X))[::-1]),
    "SliceDataset": lambda X: SliceDataset(Photos(X, lambda image: (image, 1))),
    "Hugging Face": hugging_face,
    "Hugging Face column": lambda X: hugging_face(X)["image"],
    "Hugging Face column, not decoded": lambda X: hugging_face(X, decode=False)["image"],
    "Hugging Face batch": lambda X: hugging_face(X)[:]["image"],
    "pandas": lambda X: pd.Series(list(X), index=range(7, 7 + len(X))),
    "pandas frame": lambda X: pd.DataFrame({"image": list(X)}),
    "pandas frame of PIL images": lambda X: pd.DataFrame({"i": [Image.fromarray(i) for i in X]}),
    "pandas bytes": lambda X: pd.Series([png(image) for image in X]),
    "pandas cells": lambda X: pd.DataFrame({"image": cells(X)}),
    "polars objects": lambda X: pl.Series("image", list(X), dtype=pl.Object),
    "polars frame of objects": lambda X: pl.DataFrame(
        {"image": pl.Series(list(X), dtype=pl.Object)}
    ),
    "polars bytes": lambda X: pl.DataFrame({"image": [png(image) for image in X]}),
    "polars cells": lambda X: pl.DataFrame({"image": cells(X)}),
}
# All of one size.
ARRAYS = {
    "tensor": torch.from_numpy,
    "memoryview": memoryview,
    "Hugging Face, as numpy": lambda X: hugging_face(X).with_format("numpy")["image"],
    "Hugging Face, as torch": lambda X: hugging_face(X).with_format("torch")["image"],
    "polars array": lambda X: pl.Series("image", X),
    "polars frame of arrays": lambda X: pl.DataFrame({"image": X}),
    "polars nested lists": lambda X: pl.DataFrame({"image": X.tolist()}),
    "TensorDataset": lambda X: TensorDataset(torch.from_numpy(X), torch.arange(len(X))),
}


@pytest.fixture(scope="module")
def images(noise):
    return noise(6, HEIGHT, WIDTH, 3)


@pytest.fixture(scope="module")
def mixed(images):
    """Images of three sizes, one of them grey."""
    return [images[0], images[1, :10], images[2, :, :12], images[3, ..., 0]]


@pytest.fixture(scope="module")
def fitted(images):
    return PixelAutoencoder(z=2, max_epochs=1, random_state=0).fit(images)


@pytest.fixture(scope="module")
def fitted_to_any_size(images):
    return PixelAutoencoder(z=2, max_epochs=1, random_state=0, resize=(64, 96)).fit(images)


def as_colour(image):
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


@pytest.mark.parametrize("contain", [*CONTAINERS.values(), *ARRAYS.values()],
                         ids=[*CONTAINERS, *ARRAYS])  # fmt: skip
class TestOneSize:
    def test_in_encoders(self, fitted, images, contain):
        embedding = np.asarray(fitted.transform(contain(images)))

        np.testing.assert_array_equal(embedding, fitted.transform(images))

    def test_in_the_loader(self, images, contain):
        if contain in (ARRAYS["memoryview"], ARRAYS["polars nested lists"]):
            pytest.skip("one array already")

        np.testing.assert_array_equal(ImageLoader(None).transform(contain(images)), images)


@pytest.mark.parametrize("name", ["generator", "images with labels", "data set", "SliceDataset",
                                  "Hugging Face column", "polars cells"])  # fmt: skip
def test_fit_is_that_on_an_array(fitted, images, name):
    again = PixelAutoencoder(z=2, max_epochs=1, random_state=0).fit(CONTAINERS[name](images))

    assert again.validation_loss_ == fitted.validation_loss_
    np.testing.assert_array_equal(again.transform(images), fitted.transform(images))


# Without those of plain arrays only, where one that is grey has no place among colours.
MIXED = {
    name: contain
    for name, contain in CONTAINERS.items()
    if name not in ("list", "tuple", "generator", "values of a dict", "deque", "pandas",
                    "pandas frame", "array of objects", "polars objects",
                    "polars frame of objects", "Subset")
}  # fmt: skip


@pytest.mark.parametrize("contain", MIXED.values(), ids=MIXED)
def test_mixed_sizes(fitted_to_any_size, mixed, contain):
    embedding = fitted_to_any_size.transform(contain(mixed))

    expected = [fitted_to_any_size.transform(as_colour(image)[None])[0] for image in mixed]
    np.testing.assert_allclose(embedding, expected, rtol=1e-4, atol=1e-6)
    read = ImageLoader((16, 24)).transform(contain(mixed))
    loaded = [ImageLoader((16, 24)).transform([image])[0] for image in mixed]
    np.testing.assert_array_equal(read, loaded)


@pytest.mark.parametrize("make", [list, lambda X: Photos(X, lambda image: (image, 1))])
def test_mixed_sizes_of_tensors_with_channels_first(fitted_to_any_size, mixed, make):
    first = [torch.from_numpy(as_colour(image)).permute(2, 0, 1) for image in mixed]

    embedding = fitted_to_any_size.transform(make(first))

    expected = fitted_to_any_size.transform([as_colour(image) for image in mixed])
    np.testing.assert_array_equal(embedding, expected)


def test_mixed_sizes_fit(mixed):
    encoder = PixelAutoencoder(z=2, max_epochs=1, random_state=0, resize=64)
    of_list = encoder.fit_transform([Image.fromarray(image) for image in mixed])
    of_column = encoder.fit_transform(hugging_face(mixed)["image"])

    assert of_list.shape == (4, 2)
    np.testing.assert_array_equal(of_column, of_list)


def test_mixed_sizes_without_resize_say_what_helps(images, mixed):
    for X in (mixed[:2], Photos(mixed[:2], lambda image: image)):
        with pytest.raises(ValueError, match=r"different shapes.*in row 1.*resize=\(height, width"):
            PixelAutoencoder().fit(X)


def test_image_folder(fitted_to_any_size, images, mixed, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    for row, image in enumerate(mixed):
        Image.fromarray(image).save(tmp_path / "ab"[row % 2] / f"{row}.png")
    order = [0, 2, 1, 3]
    expected = fitted_to_any_size.transform([as_colour(mixed[row]) for row in order])

    plain = ImageFolder(tmp_path)
    floats = ImageFolder(tmp_path, v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, True)]))

    np.testing.assert_array_equal(fitted_to_any_size.transform(plain), expected)
    np.testing.assert_allclose(fitted_to_any_size.transform(floats), expected, atol=1e-5)
    loaded = ImageLoader(16).transform([mixed[row] for row in order])
    np.testing.assert_array_equal(ImageLoader(16).transform(plain), loaded)


class TestKindsOfPixels:
    """What ImageLoader takes besides uint8 in memory."""

    @pytest.mark.parametrize(
        "convert",
        [
            lambda X: X[..., None],
            lambda X: X / 255,
            lambda X: (X / 255).astype(np.float16),
            lambda X: X.astype(np.uint16) * 257,
            lambda X: X.astype(">u2") * 257,
            lambda X: X.astype(np.float32) + 0.0,
            lambda X: torch.from_numpy(X),
            lambda X: torch.from_numpy(X)[:, None],
            lambda X: torch.from_numpy(X / 255)[:, None],
            lambda X: torch.from_numpy(X)[:, None].to(torch.bfloat16),
        ],
        ids=["(h, w, 1)", "floats", "half", "uint16", "big-endian", "floats to 255", "tensors",
             "channels first", "float tensors", "bfloat16"],
    )  # fmt: skip
    def test_of_grey(self, images, convert):
        grey = images[..., 0]

        loader = ImageLoader(None, mode="L").fit(list(convert(grey)))
        read = loader.transform(list(convert(grey)))

        tolerance = 0.5 if getattr(convert(grey), "dtype", 0) == torch.bfloat16 else 0
        np.testing.assert_allclose(read, grey, atol=tolerance)

    def test_of_bool(self, images):
        masks = images[..., 0] > 127

        read = ImageLoader(None, mode="L").transform(list(masks))

        np.testing.assert_array_equal(read, masks * 255)

    def test_of_float_tensors(self, images):
        read = ImageLoader(None, value_range=(0, 1)).transform(list(tensors(images)))

        np.testing.assert_array_equal(read, images)

    def test_of_alpha(self, images):
        clear = np.concatenate([images, np.zeros_like(images[..., :1])], axis=3)

        assert (ImageLoader(None).transform(clear) == 255).all()
        assert (ImageLoader(None, background="black").transform(clear) == 0).all()

    def test_given_range_is_that_of_8_bits_too(self):
        masks = np.indices((4, HEIGHT, WIDTH)).sum(axis=0).astype(np.uint8) % 2

        read = ImageLoader(None, mode="L", value_range=(0, 1)).transform(masks)

        np.testing.assert_array_equal(read, masks * 255)

    @pytest.mark.parametrize("shape", [(1, 9, 3), (9, 1, 3), (1, 1, 3)])
    def test_of_one_pixel_in_height_or_width(self, noise, shape):
        image = noise(*shape)

        np.testing.assert_array_equal(ImageLoader(None).transform([image]), image[None])

    def test_of_five_channels_are_refused(self, noise):
        with pytest.raises(ValueError, match=r"Row 0.*\(20, 30, 5\).*1, 3 or 4 channels"):
            ImageLoader().transform(noise(2, HEIGHT, WIDTH, 5))


class TestRange:
    """ImageLoader finds the range of deep images in fit, and keeps it."""

    @pytest.mark.parametrize(
        ("top", "high"), [(1000, 1023), (4080, 4095), (16000, 16383), (60000, 65535)]
    )
    def test_of_usual_depths(self, images, top, high):
        deep = np.round(images[..., 0] / 255 * top).astype(np.uint16)

        loader = ImageLoader(None, mode="L").fit(deep)

        assert loader.value_range_ == (0, high)
        expected = (deep / high * 255).round()
        np.testing.assert_array_equal(loader.transform(deep), expected)
        np.testing.assert_array_equal(
            loader.transform(deep[:1] // 4), (deep[:1] // 4 / high * 255).round()
        )

    def test_without_fit_is_found_and_warned_of(self, images):
        deep = images[..., 0].astype(np.uint16) * 16

        with pytest.warns(UserWarning, match=r"range \(0.0, 4095.0\).*Call fit"):
            read = ImageLoader(None, mode="L").transform(deep)

        np.testing.assert_array_equal(read, (deep / 4095 * 255).round())

    def test_of_8_bits_is_not_looked_for(self, images):
        assert not hasattr(ImageLoader().fit(images), "value_range_")

    def test_of_other_values(self, images):
        heat = images[..., 0] - 300.0

        loader = ImageLoader(None, mode="L").fit(heat)

        assert loader.value_range_ == (-300, -45)
        np.testing.assert_array_equal(loader.transform(heat), images[..., 0])

    @pytest.mark.parametrize("wrong", [(1, 0), (0, 0), "full", (0, 1, 2), (0, float("nan"))])
    def test_that_is_none(self, images, wrong):
        with pytest.raises(ValueError, match="value_range"):
            ImageLoader(value_range=wrong).fit(images)


def test_a_data_loader_names_its_data_set(images):
    loader = DataLoader(TensorDataset(torch.from_numpy(images)))

    for estimator in (PixelAutoencoder(), ImageLoader()):
        with pytest.raises(TypeError, match=r"DataLoader.*X\.dataset"):
            estimator.fit(loader)


def test_a_generator_without_images():
    for estimator in (PixelAutoencoder(), ImageLoader()):
        with pytest.raises(ValueError, match=r"0 sample\(s\).*minimum of 1"):
            estimator.fit(image for image in ())


def test_data_sets_of_floats_decode_and_reconstruct(images):
    """The kind of values is that of the items, not of the data set."""
    dataset = TensorDataset(tensors(images), torch.arange(len(images)))
    encoder = PixelAutoencoder(z=2, max_epochs=1, random_state=0).fit(dataset)

    assert encoder.inverse_transform(encoder.transform(dataset)).dtype == np.float32
    np.testing.assert_allclose(encoder.transform(images.transpose(0, 3, 1, 2)),
                               encoder.transform(dataset), atol=1e-5)  # fmt: skip
