"""Each row of the table in inputs.md is what happens."""

import io
import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from skfp import ImageLoader, PixelAutoencoder

PAGE = Path(__file__).parents[2] / "examples/docs/inputs.md"
pytestmark = pytest.mark.filterwarnings("ignore:.*X uses only values:UserWarning")

X = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
X.flat[:2] = 0, 255
GREY = X[..., 0]
MASKS = GREY > 127
# What the networks get.
RGB, SHADES, BLACK_WHITE = X / 255, np.stack([GREY / 255] * 3, -1), np.stack([MASKS] * 3, -1)
LARGE = X.repeat(2, axis=1).repeat(3, axis=2)
SMALLER = np.stack([np.asarray(Image.fromarray(image).resize((64, 64))) for image in LARGE])
FOUR = np.concatenate([X, X[..., :1]], axis=3)


def pil(images):
    return [Image.fromarray(image) for image in images]


def encoded(images):
    files = [io.BytesIO() for _ in images]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file, "PNG")
    return [file.getvalue() for file in files]


def cells(images):
    return [{"bytes": file, "path": None} for file in encoded(images)]


def over_white(images):
    opacity = images[..., 3:] / 255
    return images[..., :3] / 255 * opacity + 1 - opacity


def resized(images, size):
    return np.stack([
        F.interpolate(
            torch.from_numpy(image).permute(2, 0, 1)[None] / 255, size, mode="bilinear",
            antialias=size[0] < image.shape[0],
        )[0].permute(1, 2, 0).numpy()
        for image in images
    ])  # fmt: skip


def turned(folder):
    exif = Image.Exif()
    exif[0x0112] = 3
    files = []
    for image in X:
        files.append(io.BytesIO())
        Image.fromarray(np.ascontiguousarray(image[::-1, ::-1])).save(files[-1], "PNG", exif=exif)
    return [Image.open(file) for file in files]


def saved(folder, images):
    paths = [folder / f"{row}.png" for row in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def memmap(folder):
    np.save(folder / "images.npy", X)
    return np.load(folder / "images.npy", mmap_mode="r")


def hdf5(folder):
    return h5py.File(folder / "images.h5", "w").create_dataset("images", data=X)


def hugging_face(folder):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image()})
    return datasets.Dataset.from_dict({"image": pil(X)}, features=features)["image"]


def loaded(folder):
    return ImageLoader(64).transform(saved(folder, LARGE))


def loaded_deep(folder):
    paths = saved(folder, GREY.astype(np.uint16) * 16)
    return ImageLoader(64, value_range="auto").fit(paths).transform(paths)


def loaded_with_a_broken_one(folder):
    paths = saved(folder, X)
    paths[1].write_text("no image")
    loader = ImageLoader(64, on_error="warn")
    with pytest.warns(UserWarning, match="1 of 4 images cannot be read"):
        images = loader.transform(paths)
    assert loader.unreadable_rows_.tolist() == [1]
    return images


# The input, made in a folder; what the networks get, (n, height, width, channels); parameters.
CASES = {
    "uint8 images": (lambda _: X, RGB),
    "bool images": (lambda _: MASKS, BLACK_WHITE),
    "masks of 0 and 1": (lambda _: MASKS.astype(np.uint8), BLACK_WHITE),
    "floats from 0 to 1": (lambda _: X / 255, RGB),
    "floats from -1 to 1": (lambda _: X / 127.5 - 1, RGB),
    "floats from 0 to 255": (lambda _: X.astype(np.float32), RGB),
    "12-bit pixels in uint16": (lambda _: GREY.astype(np.uint16) * 16, SHADES),
    "low contrast: floats from 0 to 0.05": (lambda _: X / 255 * 0.05, RGB),
    "any values, `value_range=(low, high)`": (
        lambda _: X * 4.0 - 1000, np.clip(RGB * 1020 / 1000, 0, 1), {"value_range": (-1000, 0)},
    ),
    "grey images (n, height, width)": (lambda _: GREY, SHADES),
    "grey images (n, height, width, 1)": (lambda _: GREY[..., None], SHADES),
    "images (n, channels, height, width)": (lambda _: X.transpose(0, 3, 1, 2), RGB),
    "rows (n, pixels), `image_shape`": (
        lambda _: X.reshape(4, -1), RGB, {"image_shape": (64, 64, 3)},
    ),
    "four channels": (lambda _: FOUR, FOUR / 255),
    'four channels, `channels="rgba"`': (lambda _: FOUR, over_white(FOUR), {"channels": "rgba"}),
    "2, 5 or 13 channels": (lambda _: np.tile(FOUR, 4)[..., :13], np.tile(FOUR, 4)[..., :13] / 255),
    "images under 64 pixels": (lambda _: X[:, :8, :8], resized(X[:, :8, :8], (64, 64))),
    'images under 64 pixels, `resize="tile"`': (
        lambda _: X[:, :32, :32], np.tile(RGB[:, :32, :32], (1, 2, 2, 1)), {"resize": "tile"},
    ),
    "images of any size, `resize=(height, width)`": (
        lambda _: [X[0], X[1, :40], X[2, :, :50]],
        resized([X[0], X[1, :40], X[2, :, :50]], (96, 80)),
        {"resize": (96, 80)},
    ),
    "a list of arrays or tensors": (lambda _: list(X), RGB),
    "a generator, the values of a dict": (lambda _: (image for image in X), RGB),
    "PIL images": (turned, RGB),
    "PIL images of 16 bits": (lambda _: pil(GREY.astype(np.uint16) * 16), SHADES),
    "bytes of image files, open files": (lambda _: encoded(X), RGB),
    'cells {"bytes", "path"} of Hugging Face': (lambda _: cells(X), RGB),
    "a column of Hugging Face": (hugging_face, RGB),
    "a torch data set of (image, label)": (
        lambda _: TensorDataset(torch.from_numpy(X), torch.arange(4)), RGB,
    ),
    "a list of (image, label)": (lambda _: [(image, 0) for image in X], RGB),
    "a column of a pandas table": (lambda _: pd.DataFrame({"image": list(X)})["image"], RGB),
    "a column of a polars table": (lambda _: pl.DataFrame({"image": X})["image"], RGB),
    "a torch tensor": (lambda _: torch.from_numpy(X), RGB),
    "a `numpy.memmap`": (memmap, RGB),
    "an HDF5 or zarr array": (hdf5, RGB),
    "paths, after `ImageLoader`": (loaded, SMALLER / 255),
    "16-bit files, after `ImageLoader().fit`": (
        loaded_deep, np.stack([(GREY / 4095 * 16 * 255).round() / 255] * 3, -1),
    ),
    'files that cannot be read, `on_error="warn"`': (
        loaded_with_a_broken_one, RGB * np.array([1, 0, 1, 1]).reshape(4, 1, 1, 1),
    ),
}  # fmt: skip


def rows():
    """Read the names of the table's rows."""
    table = PAGE.read_text().split("| --- | --- |\n")[1].split("\n\n")[0]
    return [re.match(r"\| (.*?) \| ", line).group(1) for line in table.splitlines()]


def test_each_row_has_a_case_and_each_case_a_row():
    assert rows() == list(CASES)


@pytest.mark.parametrize("row", CASES)
def test_row(row, tmp_path):
    make, expected, *parameters = CASES[row]
    estimator = PixelAutoencoder(z=2, max_epochs=1, random_state=0, **dict(*parameters))

    images, _ = estimator._check_images(make(tmp_path), reset=True)
    pixels = images.read(slice(None))

    pixels = pixels / 255 if pixels.dtype == torch.uint8 else pixels
    pixels = np.broadcast_to(pixels.permute(0, 2, 3, 1), expected.shape)
    np.testing.assert_allclose(pixels, expected, atol=1e-5)


def test_a_torch_tensor_embeds_as_a_tensor():
    encoder = PixelAutoencoder(z=2, max_epochs=1, random_state=0).fit(X)

    assert torch.equal(
        encoder.transform(torch.from_numpy(X)), torch.from_numpy(encoder.transform(X))
    )


@pytest.mark.parametrize("row", ["low contrast: floats from 0 to 0.05"])
@pytest.mark.filterwarnings("default")
def test_rows_that_warn(row):
    estimator = PixelAutoencoder(z=2, max_epochs=1, random_state=0)

    with pytest.warns(UserWarning, match=r"X uses only values from 0 to 0\.05"):
        estimator._check_images(CASES[row][0](None), reset=True)
