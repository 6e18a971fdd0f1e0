"""Collections that are not in memory: read a few rows at a time, with the numbers of arrays."""

import copy
import pickle

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from PIL import Image
from torch.utils.data import IterableDataset, Subset, TensorDataset

import skfp._images.sources
from skfp import FeaturePredictionEncoder, PixelAutoencoder
from skfp._data import check_images
from skfp._data.tensors import to_device
from skfp._features import BATCH_SIZE
from skfp._images.arrays import as_array
from skfp._images.sources import Source, as_source

N_IMAGES = 300


class RowsOnly:
    """An array that gives slices of its rows alone, and remembers which it was asked for."""

    def __init__(self, array, chunks=None):
        self.array, self.chunks = array, chunks
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self.slices = []

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        self.slices.append((rows.start, rows.stop))
        return self.array[rows]

    def __array__(self, *args, **kwargs):
        raise AssertionError("read as a whole")


class Photos(torch.utils.data.Dataset):
    """A map-style data set, whose items `make` makes of arrays."""

    def __init__(self, images, make):
        self.images, self.make = images, make

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.make(self.images[index])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


def memory_map(array, folder, mode="r"):
    np.save(folder / "images.npy", array)
    return np.load(folder / "images.npy", mmap_mode=mode)


def hdf5(array, folder, **options):
    file = h5py.File(folder / "images.h5", "w")
    return file.create_dataset("images", data=array, **options)


def zarr_array(array, folder, chunk=7):
    chunks = (chunk, *array.shape[1:])
    made = zarr.create_array(
        folder / "images.zarr", shape=array.shape, dtype=array.dtype, chunks=chunks
    )
    made[:] = array
    return made


CONTAINERS = {
    "memmap": memory_map,
    "part of a memmap": lambda X, folder: memory_map(np.repeat(X, 2, axis=0), folder)[::2],
    "copy-on-write memmap": lambda X, folder: memory_map(X, folder, "c"),
    "hdf5": hdf5,
    "hdf5 in chunks": lambda X, folder: hdf5(X, folder, chunks=(5, *X.shape[1:]), compression=1),
    "zarr": zarr_array,
    "rows only": lambda X, folder: RowsOnly(X),
    "tensors": lambda X, folder: Photos(X, torch.from_numpy),
    "arrays with labels": lambda X, folder: Photos(X, lambda image: (image, 3)),
    "PIL images": lambda X, folder: Photos(X, Image.fromarray),
    "TensorDataset": lambda X, folder: TensorDataset(torch.from_numpy(X), torch.arange(len(X))),
    "Subset": lambda X, folder: Subset(Photos(X[::-1], lambda image: image), range(len(X))[::-1]),
}


@pytest.fixture(scope="module")
def images(noise):
    return noise(N_IMAGES, 20, 28, 3)


@pytest.fixture(scope="module")
def few(images):
    return images[:30]


@pytest.fixture(scope="module")
def fitted(few):
    return PixelAutoencoder(z=2, max_epochs=1, random_state=0).fit(few)


@pytest.fixture
def contained(images, tmp_path, request):
    return CONTAINERS[request.param](images, tmp_path)


each_container = pytest.mark.parametrize("contained", CONTAINERS, indirect=True)


class TestSameNumbersAsArrays:
    @pytest.mark.parametrize("store", CONTAINERS)
    def test_fit_transform_and_score(self, few, fitted, tmp_path, store):
        contained = CONTAINERS[store](few, tmp_path)
        again = PixelAutoencoder(z=2, max_epochs=1, random_state=0).fit(contained)

        assert again.validation_loss_ == fitted.validation_loss_
        embedding = again.transform(contained)
        assert type(embedding) is np.ndarray
        np.testing.assert_array_equal(embedding, fitted.transform(few))
        assert again.score(contained) == fitted.score(few)
        assert again.n_features_in_ == fitted.n_features_in_

    @pytest.mark.parametrize("store", CONTAINERS)
    def test_feature_prediction_and_its_cache(self, few, tmp_path, store):
        encoder = FeaturePredictionEncoder(z=2, max_epochs=1, memory=tmp_path, random_state=0)
        embedding = encoder.fit_transform(few)
        n_entries = len(list(tmp_path.rglob("*.pkl")))

        again = encoder.fit_transform(CONTAINERS[store](few, tmp_path))

        np.testing.assert_array_equal(again, embedding)
        assert len(list(tmp_path.rglob("*.pkl"))) == n_entries > 0  # read, not computed again

    @pytest.mark.parametrize("store", ["memmap", "hdf5", "rows only", "arrays with labels"])
    @pytest.mark.parametrize(
        "convert",
        [
            lambda X: X > 127,
            lambda X: (X / 255).astype(np.float16),
            lambda X: (X / 255).astype(">f4"),
            lambda X: X.astype(">i2") - 100,
            lambda X: X / 255,
            lambda X: (X / 255).astype(np.longdouble),
        ],
        ids=["bool", "float16", "big-endian float32", "big-endian int16", "float64", "longdouble"],
    )
    def test_types(self, images, tmp_path, store, convert):
        array = convert(images[:20])
        stored = CONTAINERS[store](array, tmp_path)
        plain = array.astype(array.dtype.newbyteorder("="))

        first, second = (PixelAutoencoder(z=2, max_epochs=1, random_state=0) for _ in range(2))

        np.testing.assert_array_equal(first.fit_transform(stored), second.fit_transform(plain))

    @pytest.mark.parametrize("store", ["memmap", "hdf5", "zarr", "rows only", "tensors"])
    def test_flattened_rows(self, few, fitted, tmp_path, store):
        rows = few.reshape(len(few), -1)
        stored = CONTAINERS[store](rows, tmp_path)
        encoder = PixelAutoencoder(
            z=2, max_epochs=1, random_state=0, image_shape=few.shape[1:]
        ).fit(stored)

        np.testing.assert_array_equal(encoder.transform(stored), fitted.transform(few))
        np.testing.assert_array_equal(fitted.transform(stored), fitted.transform(few))

    def test_validation_images(self, images, tmp_path):
        plain, stored = (PixelAutoencoder(z=2, max_epochs=1, random_state=0) for _ in range(2))
        plain.fit(images[:40], X_val=images[40:60])
        stored.fit(zarr_array(images[:40], tmp_path), X_val=hdf5(images[40:60], tmp_path))

        assert stored.validation_loss_ == plain.validation_loss_

    def test_partial_fit(self, images, tmp_path):
        plain, stored = (PixelAutoencoder(z=2, random_state=0) for _ in range(2))
        plain.partial_fit(images[:40])
        stored.partial_fit(hdf5(images[:40], tmp_path))

        np.testing.assert_array_equal(stored.transform(images), plain.transform(images))

    def test_the_estimator_does_not_keep_them(self, few, tmp_path):
        encoder = PixelAutoencoder(z=2, max_epochs=1).fit(hdf5(few, tmp_path))

        assert len(pickle.loads(pickle.dumps(encoder)).transform(few)) == len(few)


class TestReading:
    @each_container
    @pytest.mark.parametrize(
        "rows", [slice(3, 9), slice(None), [8], [4, 2, 2, 299, 0], np.arange(250, 40, -3)], ids=str
    )
    def test_rows_in_the_order_asked_for(self, images, contained, rows):
        source = as_source(contained)

        assert (source.shape, source.dtype) == (images.shape, images.dtype)
        np.testing.assert_array_equal(source[rows], images[rows])

    def test_arrays_in_memory_stay_as_they_are(self, images):
        assert as_source(images) is images
        assert as_source(images[::2, ::-1]).base is images

    def test_neighbours_come_in_one_slice(self, images):
        rows = RowsOnly(images)

        read = as_source(rows)[[12, 10, 11, 50, 10]]

        assert rows.slices == [(10, 13), (50, 51)]
        np.testing.assert_array_equal(read, images[[12, 10, 11, 50, 10]])

    def test_a_chunk_is_read_once(self, images):
        rows = RowsOnly(images, chunks=(10, 20, 28, 3))

        read = as_source(rows)[[9, 1, 4, 10, 35, 39, 299]]

        assert rows.slices == [(1, 11), (35, 40), (299, 300)]
        np.testing.assert_array_equal(read, images[[9, 1, 4, 10, 35, 39, 299]])

    def test_batches_alone_are_read(self, images, monkeypatch):
        monkeypatch.setattr(skfp._images.sources, "CHUNK_BYTES", 50 * images[0].nbytes)
        rows = RowsOnly(images)
        encoder = PixelAutoencoder(z=2, max_epochs=1, batch_size=64).fit(rows)
        assert rows.slices.pop(0) == (0, 50)  # enough to tell the range of values
        assert max(stop - start for start, stop in rows.slices) <= 64
        assert sum(stop - start for start, stop in rows.slices) == N_IMAGES

        rows.slices.clear()
        encoder.transform(rows)

        assert rows.slices.pop(0) == (0, 50)
        assert max(stop - start for start, stop in rows.slices) == BATCH_SIZE
        assert sum(stop - start for start, stop in rows.slices) == N_IMAGES

    def test_the_range_of_floats_is_found_chunk_by_chunk(self, images, monkeypatch):
        monkeypatch.setattr(skfp._images.sources, "CHUNK_BYTES", 10 * images[0].size * 8)
        rows = RowsOnly(images / 255)

        check_images(as_array(rows), "float")

        assert rows.slices == [(start, start + 10) for start in range(0, N_IMAGES, 10)]

    def test_nan_is_named_by_its_place(self, images, tmp_path):
        floats = images / 255
        floats[203, 4, 5, 1] = np.nan

        with pytest.raises(ValueError, match=r"NaN or infinity.*image 203"):
            PixelAutoencoder().fit(hdf5(floats, tmp_path))

    @pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.uint16])
    def test_held_on_a_device(self, images, monkeypatch, dtype):
        monkeypatch.setattr(skfp._images.sources, "CHUNK_BYTES", 1_000)
        source = as_source(RowsOnly(images.astype(dtype)))

        held = to_device(source, torch.device("cpu"))

        np.testing.assert_array_equal(held.numpy(), images)

    def test_private_pages_are_kept(self, images, fitted, tmp_path):
        changed = memory_map(np.zeros_like(images), tmp_path, mode="c")
        changed[:] = images

        fitted.transform(changed)

        np.testing.assert_array_equal(changed, images)
        np.testing.assert_array_equal(fitted.transform(changed), fitted.transform(images))

    def test_pages_of_a_mapped_file_do_not_stay_in_memory(self, tmp_path, resident_bytes):
        shape = (20_000, 64, 64, 3)
        mapped = np.memmap(tmp_path / "sparse", dtype=np.uint8, mode="w+", shape=shape)
        source = as_source(mapped)
        before = resident_bytes()
        most = 0
        for start in range(0, len(source), 250):
            assert not source[start : start + 250].any()
            most = max(most, resident_bytes() - before)

        assert source.nbytes > 2 * 10**8
        assert most < 10**8


class TestRefusals:
    @pytest.mark.parametrize(
        ("collection", "words"),
        [
            (Stream(), "cannot be indexed.*map-style.*partial_fit"),
            (TensorDataset(torch.zeros(0, 20, 28)), r"0 sample\(s\).*minimum of 1"),
            (RowsOnly(np.zeros((0, 20, 28))), r"shape \(0, 20, 28\).*Expected images"),
            (RowsOnly(np.zeros((3, 0))), r"shape \(3, 0\).*Expected images"),
            (RowsOnly(np.zeros((3, 2, 20, 28, 3))), "Expected images"),
            (TensorDataset(torch.zeros(3)), "Expected images"),
            (TensorDataset(torch.zeros(3, 1, 8)), "at least 2 by 2"),
            (Photos([16, 18], lambda side: np.zeros((side, side))), "different shapes.*row 1"),
            (
                Photos(["u1", "f4"], lambda dtype: np.zeros((16, 16), dtype)),
                "different shapes or types.*uint8 first.*float32 in row 1",
            ),
        ],
        ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
    )
    def test_collections(self, collection, words):
        with pytest.raises(ValueError, match=words):
            PixelAutoencoder(z=2, max_epochs=1).fit(collection)

    @pytest.mark.parametrize("item", [{"image": 1}, "a.png", 3, (), None], ids=str)
    def test_items_that_are_no_images(self, fitted, item):
        dataset = Photos([0, 1], lambda _: item)

        with pytest.raises(TypeError, match=r"Row 0 of X.*is not an image"):
            PixelAutoencoder().fit(dataset)
        with pytest.raises(TypeError, match=r"Row 0 of X.*is not an image"):
            fitted.transform(dataset)

    def test_other_images_than_in_fit(self, fitted, noise, tmp_path):
        with pytest.raises(ValueError, match="fitted on images of shape"):
            fitted.transform(hdf5(noise(4, 28, 20, 3), tmp_path))

    def test_arrays_that_give_other_rows_than_they_say(self, images):
        class Short(RowsOnly):
            def __getitem__(self, rows):
                return self.array[rows][:1]

        with pytest.raises(ValueError, match=r"shape \(1, 20, 28, 3\) for .*Expected"):
            PixelAutoencoder().fit(Short(images))

    @pytest.mark.parametrize("dtype", ["S3", "V4"])
    def test_of_no_numbers(self, tmp_path, dtype):
        with pytest.raises(ValueError, match="not numbers"):
            PixelAutoencoder().fit(hdf5(np.zeros((4, 16, 16), dtype), tmp_path))

    @pytest.mark.parametrize("dtype", [complex, "datetime64[s]"])
    def test_of_numbers_that_are_no_brightness(self, tmp_path, dtype):
        with pytest.raises((TypeError, ValueError), match=r"Complex|Expected"):
            PixelAutoencoder().fit(RowsOnly(np.zeros((4, 16, 16), dtype)))


class TestOut:
    """`transform(X, out=...)` writes into what it is given."""

    @each_container
    def test_memmap(self, images, fitted, contained, tmp_path):
        out = np.lib.format.open_memmap(
            tmp_path / "embedding.npy", mode="w+", dtype=np.float32, shape=(N_IMAGES, 2)
        )

        embedding = fitted.transform(contained, out=out)

        assert embedding is out
        out.flush()
        np.testing.assert_array_equal(np.load(tmp_path / "embedding.npy"), fitted.transform(images))

    @pytest.mark.parametrize(
        "make",
        [
            lambda folder: np.empty((N_IMAGES, 2), np.float32),
            lambda folder: np.empty((2, N_IMAGES), np.float32).T,
            lambda folder: hdf5(np.zeros((N_IMAGES, 2), np.float32), folder),
            lambda folder: zarr_array(np.zeros((N_IMAGES, 2), np.float32), folder),
        ],
        ids=["array", "transposed", "hdf5", "zarr"],
    )
    def test_arrays(self, images, fitted, tmp_path, make):
        out = make(tmp_path)

        assert fitted.transform(torch.from_numpy(images), out=out) is out

        np.testing.assert_array_equal(out[:], fitted.transform(images))

    @pytest.mark.parametrize(
        ("out", "words"),
        [
            (np.empty((N_IMAGES, 3), np.float32), r"shape \(300, 3\).*shape \(300, 2\)"),
            (np.empty((N_IMAGES - 1, 2), np.float32), r"shape \(299, 2\).*shape \(300, 2\)"),
            (np.empty((N_IMAGES, 2)), "type float64.*type float32"),
            (np.empty((N_IMAGES, 2), ">f4"), "type >f4.*type float32"),
            (np.broadcast_to(np.float32(7), (N_IMAGES, 2)), "read-only.*writeable.*r+"),
        ],
        ids=["columns", "rows", "type", "byte order", "read-only"],
    )
    def test_wrong_arrays(self, images, fitted, out, words):
        before = out.copy()

        with pytest.raises(ValueError, match=words):
            fitted.transform(images, out=out)

        np.testing.assert_array_equal(out, before)

    @pytest.mark.parametrize("out", [[], "embedding.npy", torch.zeros(N_IMAGES, 2)], ids=repr)
    def test_no_arrays(self, images, fitted, out):
        with pytest.raises(TypeError, match=r"out is a .*Expected a writeable array"):
            fitted.transform(images, out=out)

    def test_in_a_table(self, images, fitted):
        encoder = copy.deepcopy(fitted).set_output(transform="pandas")
        out = np.empty((N_IMAGES, 2), np.float32)

        table = encoder.transform(images, out=out)

        assert isinstance(table, pd.DataFrame)
        np.testing.assert_array_equal(table, out)

    def test_is_no_metadata_to_be_routed(self):
        assert not hasattr(PixelAutoencoder(), "set_transform_request")


def test_a_source_is_no_array(images):
    assert isinstance(as_array(RowsOnly(images)), Source)
