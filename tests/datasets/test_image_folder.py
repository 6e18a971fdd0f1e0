import os
import shutil

import numpy as np
import pytest
from PIL import Image

from skfp import ImageLoader, PixelAutoencoder
from skfp.datasets import fetch_image_folder


@pytest.fixture
def photos(tmp_path):
    """Make two classes of coloured images, one in a folder of its own, beside other files."""
    root = tmp_path / "photos"
    names = ["b/2.png", "b/1.JPG", "a/deep/3.png", "a/0.png"]
    for shade, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (60 * shade, 100, 200)).save(file)
    (root / "b" / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    Image.new("L", (8, 8)).save(root / ".hidden" / "thumbnail.png")
    return root


@pytest.fixture
def fetch(photos, tmp_path):
    def fetch(path=photos, **parameters):
        return fetch_image_folder(path, data_home=tmp_path / "home", **parameters)

    return fetch


def test_images_in_order_with_their_classes(photos, fetch):
    data = fetch(size=(16, 24))
    files = [photos / name for name in ("a/0.png", "a/deep/3.png", "b/1.JPG", "b/2.png")]
    assert data.filenames == [str(file) for file in files]
    assert data.target_names == ["a", "b"]
    assert data.target.tolist() == [0, 0, 1, 1]
    assert data.target.dtype == np.int64
    np.testing.assert_array_equal(data.images, ImageLoader((16, 24)).transform(files))
    assert "4 images in 2 classes" in data.DESCR


def test_grey_squares(fetch):
    assert fetch(size=20, mode="L").images.shape == (4, 20, 20)


def test_images_without_a_class(photos, fetch):
    shutil.move(photos / "b" / "2.png", photos / "2.png")
    data = fetch()
    assert data.target.tolist() == [-1, 0, 0, 1]
    assert data.filenames[0] == str(photos / "2.png")
    data = fetch(photos / "b")
    assert len(data.images) == 1
    assert data.target is None
    assert data.target_names == []


def test_files_are_read_once(fetch, monkeypatch):
    first = fetch()
    assert isinstance(first.images, np.memmap)
    monkeypatch.setattr(ImageLoader, "transform", None)
    again = fetch(size=64)
    np.testing.assert_array_equal(again.images, first.images)
    assert again.filenames == first.filenames
    with pytest.raises(TypeError):
        fetch(mode="L")


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "rewritten", "touched"])
def test_files_are_read_again_when_the_folder_changes(photos, fetch, tmp_path, change):
    fetch()
    file = photos / "a" / "0.png"
    if change == "added":
        shutil.copy(file, photos / "a" / "1.png")
    elif change == "removed":
        file.unlink()
    elif change == "renamed":
        file.rename(photos / "b" / "0.png")
    elif change == "rewritten":
        Image.new("RGB", (40, 30), "white").save(file)
    else:
        os.utime(file, (0, 0))
    reads = []
    read = ImageLoader.transform
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageLoader, "transform", lambda *args: reads.append(1) or read(*args))
        data = fetch()
    assert reads
    np.testing.assert_array_equal(data.images, ImageLoader().transform(data.filenames))
    # The pixels of the earlier content are gone.
    assert len(list((tmp_path / "home").rglob("images.uint8"))) == 1


def test_unreadable_files_are_named_and_left_out(photos, fetch):
    (photos / "a" / "0.png").write_bytes(b"no image")
    for i in range(3):
        (photos / "b" / f"broken {i}.png").write_bytes(b"")
    for _ in range(2):  # read, and from the cache
        with pytest.warns(UserWarning, match=r"4 of 7 .*a/0.png, b/broken 0.png, .* 1 more"):
            data = fetch()
        assert data.target.tolist() == [0, 1, 1]
        assert [os.path.basename(name) for name in data.filenames] == ["3.png", "1.JPG", "2.png"]
        np.testing.assert_array_equal(data.images, ImageLoader().transform(data.filenames))


def test_nothing_to_read(photos, fetch, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*elsewhere"):
        fetch(tmp_path / "elsewhere")
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no image in .*empty"):
        fetch(tmp_path / "empty")
    (tmp_path / "empty" / "a" / "0.png").write_bytes(b"")
    with pytest.raises(ValueError, match="None of the 1 images"):
        fetch(tmp_path / "empty")
    assert not list((tmp_path / "home").rglob("index.json"))


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": (1, 2, 3)}, {"mode": "P"}])
def test_wrong_parameters_are_named(fetch, wrong):
    (parameter,) = wrong
    with pytest.raises(ValueError, match=parameter):
        fetch(**wrong)


def test_an_encoder_takes_the_images(fetch):
    images = fetch().images
    assert PixelAutoencoder(z=2, max_epochs=1).fit_transform(images).shape == (4, 2)
