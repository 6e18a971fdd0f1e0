import functools
import gzip
import hashlib
import http.server
import re
import struct
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from scipy.io import savemat

from skfp.datasets import _cifar10, fetch_cifar10, fetch_fashion_mnist, fetch_stl10, fetch_svhn

N = 20
DEBIAN_FILES = Path("/usr/share/datasets/fashion-mnist")


def some_images(*shape):
    return np.random.default_rng(0).integers(256, size=(N, *shape), dtype=np.uint8)


def some_labels():
    return np.arange(N) % 10


def write_stl10(folder, subset="train"):
    """Write STL-10 files, whose labels count from 1 and whose pixels go down the columns."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = some_images(96, 96, 3), some_labels()
    images.transpose(0, 3, 2, 1).tofile(folder / f"{subset}_X.bin")
    if subset != "unlabeled":
        (labels + 1).astype(np.uint8).tofile(folder / f"{subset}_y.bin")
    return images, labels


def write_svhn(folder, subset="train"):
    """Write an SVHN file, which counts images last and labels the digit 0 with 10."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = some_images(32, 32, 3), some_labels()
    content = {
        "X": images.transpose(1, 2, 3, 0),
        "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8),
    }
    savemat(folder / f"{subset}_32x32.mat", content, do_compression=True)
    return images, labels


def write_fashion_mnist(folder, subset="train"):
    """Write Fashion-MNIST files, packed in the IDX format."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = some_images(28, 28), some_labels()
    part = "train" if subset == "train" else "t10k"
    header = struct.pack(">HBB3I", 0, 8, 3, N, 28, 28)
    packed = gzip.compress(header + images.tobytes())
    (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(packed)
    header = struct.pack(">HBBI", 0, 8, 1, N)
    packed = gzip.compress(header + labels.astype(np.uint8).tobytes())
    (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(packed)
    return images, labels


def write_cifar10(folder, subset="train"):
    """Write CIFAR-10's binary files: a label, then a plane for each colour."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = some_images(32, 32, 3), some_labels()
    planes = images.transpose(0, 3, 1, 2).reshape(N, -1)
    records = np.concatenate([labels[:, None].astype(np.uint8), planes], axis=1)
    files = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
    for name, part in zip(files[subset], np.split(records, len(files[subset])), strict=True):
        part.tofile(folder / name)
    return images, labels


SETS = {
    "stl10": (fetch_stl10, write_stl10),
    "svhn": (fetch_svhn, write_svhn),
    "fashion_mnist": (fetch_fashion_mnist, write_fashion_mnist),
    "cifar10": (fetch_cifar10, write_cifar10),
}

each_set = pytest.mark.parametrize(
    ("name", "fetch", "write"), [(name, *functions) for name, functions in SETS.items()]
)


@pytest.fixture
def publisher(tmp_path):
    """Serve a folder over HTTP on this machine; yield the folder and its address."""
    folder = tmp_path / "publisher"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=folder)
    ) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@each_set
@pytest.mark.parametrize("place", ["", "skfp"])
@pytest.mark.parametrize("subset", ["train", "test"])
def test_files_in_the_published_format_are_read(tmp_path, name, fetch, write, place, subset):
    images, labels = write(tmp_path / place / name if place else tmp_path, subset)
    data = fetch(subset=subset, data_home=tmp_path, download=False, verify=False)
    np.testing.assert_array_equal(data.images, images)
    np.testing.assert_array_equal(data.target, labels)
    assert data.images.dtype == np.uint8
    assert data.target.dtype == np.int64
    assert len(data.target_names) == 10
    assert f"{subset} part" in data.DESCR
    assert f"{N}" in data.DESCR


@pytest.mark.parametrize(
    ("name", "folder"), [("stl10", "stl10_binary"), ("cifar10", "cifar-10-batches-bin")]
)
def test_folder_of_the_unpacked_archive_is_found(tmp_path, name, folder):
    fetch, write = SETS[name]
    images, _ = write(tmp_path / folder)
    data = fetch(subset="train", data_home=tmp_path, download=False, verify=False)
    np.testing.assert_array_equal(data.images, images)


def test_some_batches_of_cifar10_are_read_unverified(tmp_path):
    images, labels = write_cifar10(tmp_path)
    for i in (2, 5):
        (tmp_path / f"data_batch_{i}.bin").unlink()
    data = fetch_cifar10(data_home=tmp_path, download=False, verify=False)
    kept = np.repeat([True, False, True, True, False], N // 5)
    np.testing.assert_array_equal(data.images, images[kept])
    np.testing.assert_array_equal(data.target, labels[kept])
    with pytest.raises(FileNotFoundError, match="data_batch_5"):
        fetch_cifar10(data_home=tmp_path, download=False)


@pytest.mark.parametrize(("name", "subset"), [("stl10", "unlabeled"), ("svhn", "extra")])
def test_default_part_is_the_encoders(tmp_path, name, subset):
    fetch, write = SETS[name]
    images, labels = write(tmp_path, subset)
    data = fetch(data_home=tmp_path, verify=False)
    np.testing.assert_array_equal(data.images, images)
    if name == "stl10":
        assert data.target is None
    else:
        np.testing.assert_array_equal(data.target, labels)


def test_images_are_not_copied(tmp_path):
    write_stl10(tmp_path)
    write_svhn(tmp_path)
    for fetch in (fetch_stl10, fetch_svhn):
        data = fetch(subset="train", data_home=tmp_path, verify=False)
        # As they lie in the file, channels or columns first: a copy would be in C order.
        assert data.images.base is not None
        assert not data.images.flags.c_contiguous


@each_set
def test_altered_files_are_refused(tmp_path, name, fetch, write):
    write(tmp_path)
    with pytest.raises(
        ValueError, match=r"altered: .*(MD5|SHA1) .*[0-9a-f]{32}.*[0-9a-f]{32}"
    ) as error:
        fetch(subset="train", data_home=tmp_path)
    assert any(str(path) in str(error.value) for path in tmp_path.iterdir())


@each_set
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.98])
def test_truncated_files_are_refused_even_unverified(tmp_path, name, fetch, write, kept):
    write(tmp_path)
    for path in list(tmp_path.iterdir()):
        content = path.read_bytes()
        path.write_bytes(content[: int(kept * len(content))])
        with pytest.raises(ValueError, match=r"truncated") as error:
            fetch(subset="train", data_home=tmp_path, verify=False)
        assert path.name in str(error.value)
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["stl10", "svhn"])
def test_only_the_published_bytes_pass_verification(tmp_path, monkeypatch, name):
    fetch, write = SETS[name]
    images, _ = write(tmp_path)
    files = [[path.name, md5(path)] for path in sorted(tmp_path.iterdir())]
    monkeypatch.setattr(torchvision.datasets.STL10, "train_list", files)
    monkeypatch.setitem(torchvision.datasets.SVHN.split_list, "train", ["no address", *files[0]])
    data = fetch(subset="train", data_home=tmp_path, download=False)
    np.testing.assert_array_equal(data.images, images)
    for path in list(tmp_path.iterdir()):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ValueError, match="altered") as error:
            fetch(subset="train", data_home=tmp_path, download=False)
        assert str(path) in str(error.value)
        path.write_bytes(content)


def test_labels_out_of_range_are_refused(tmp_path):
    write_stl10(tmp_path)
    np.arange(N, dtype=np.uint8).tofile(tmp_path / "train_y.bin")
    with pytest.raises(ValueError, match="10 classes"):
        fetch_stl10(subset="train", data_home=tmp_path, verify=False)


def test_svhn_of_other_images_is_refused(tmp_path):
    content = {"X": np.zeros((48, 48, 3, 2), np.uint8), "y": np.ones((2, 1), np.uint8)}
    savemat(tmp_path / "train_32x32.mat", content)
    with pytest.raises(ValueError, match="32 x 32"):
        fetch_svhn(subset="train", data_home=tmp_path, verify=False)


def test_a_single_image_is_read(tmp_path):
    content = {"X": np.zeros((32, 32, 3, 1), np.uint8), "y": np.array([[10]], np.uint8)}
    savemat(tmp_path / "test_32x32.mat", content)
    data = fetch_svhn(subset="test", data_home=tmp_path, verify=False)
    assert data.images.shape == (1, 32, 32, 3)
    assert data.target.tolist() == [0]


@each_set
def test_missing_files_are_named_with_their_place(tmp_path, name, fetch, write):
    write(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="download=False") as error:
        fetch(subset="train", data_home=tmp_path, download=False)
    for path in (tmp_path / "elsewhere").iterdir():
        assert path.name in str(error.value)
    assert str(tmp_path / "skfp" / name) in str(error.value)
    assert not (tmp_path / "skfp").exists()
    if name == "fashion_mnist":
        assert "dataset-fashion-mnist" in str(error.value)


def publish(monkeypatch, folder, address, name):
    """Point torchvision at files on this machine instead of the publisher's."""
    write = SETS[name][1]
    written = write(folder)
    if name == "stl10":
        archive = folder / "stl10_binary.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            for path in sorted(folder.glob("*.bin")):
                tar.add(path, f"stl10_binary/{path.name}")
        monkeypatch.setattr(torchvision.datasets.STL10, "url", address + archive.name)
        monkeypatch.setattr(torchvision.datasets.STL10, "tgz_md5", md5(archive))
    elif name == "cifar10":
        archive = folder / "cifar-10-binary.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            for path in sorted(folder.glob("*.bin")):
                tar.add(path, f"cifar-10-batches-bin/{path.name}")
        monkeypatch.setattr(_cifar10, "_ARCHIVE", (address + archive.name, md5(archive)))
    elif name == "svhn":
        file = "train_32x32.mat"
        entry = [address + file, file, md5(folder / file)]
        monkeypatch.setitem(torchvision.datasets.SVHN.split_list, "train", entry)
    else:
        resources = [(path.name, md5(path)) for path in folder.iterdir()]
        monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
        monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [address])
    return written


@each_set
def test_missing_files_are_downloaded(tmp_path, monkeypatch, publisher, name, fetch, write):
    images, labels = publish(monkeypatch, *publisher, name)
    data = fetch(subset="train", data_home=tmp_path, verify=False)
    np.testing.assert_array_equal(data.images, images)
    np.testing.assert_array_equal(data.target, labels)
    again = fetch(subset="train", data_home=tmp_path, verify=False, download=False)
    np.testing.assert_array_equal(again.images, images)
    assert all(path.is_file() for path in (tmp_path / "skfp" / name).iterdir())


@each_set
def test_damaged_download_leaves_nothing(tmp_path, monkeypatch, publisher, name, fetch, write):
    folder, address = publisher
    publish(monkeypatch, folder, address, name)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileNotFoundError, match="could not be downloaded") as error:
        fetch(subset="train", data_home=tmp_path, verify=False)
    assert str(tmp_path / "skfp" / name) in str(error.value)
    assert list((tmp_path / "skfp" / name).iterdir()) == []


@pytest.mark.parametrize("member", ["../../../evil.txt", "stl10_binary/../../evil.txt", "link"])
def test_archive_cannot_write_outside_of_its_folder(tmp_path, monkeypatch, publisher, member):
    """Even where it has the publisher's checksum."""
    folder, address = publisher
    publish(monkeypatch, folder, address, "stl10")
    archive = folder / "stl10_binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        if member == "link":
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
            tar.addfile(link)
            member = "link/evil.txt"
        tar.add(__file__, member)
        for name in ("train_X.bin", "train_y.bin"):
            tar.add(folder / name, f"stl10_binary/{name}")
    monkeypatch.setattr(torchvision.datasets.STL10, "tgz_md5", md5(archive))

    with pytest.raises(FileNotFoundError, match="could not be downloaded"):
        fetch_stl10(subset="train", data_home=tmp_path / "home", verify=False)

    assert not list(tmp_path.rglob("evil.txt"))
    assert list((tmp_path / "home" / "skfp" / "stl10").iterdir()) == []


@each_set
def test_no_network_is_explained(tmp_path, monkeypatch, name, fetch, write):
    # Port 1 of this machine answers nobody.
    publish(monkeypatch, tmp_path / "publisher", "http://127.0.0.1:1/", name)
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded .*Put ") as error:
        fetch(subset="train", data_home=tmp_path)
    assert str(tmp_path / "skfp" / name) in str(error.value)


@each_set
@pytest.mark.parametrize(
    "wrong", [{"subset": "validation"}, {"data_home": 3}, {"download": "no"}, {"verify": None}]
)
def test_wrong_parameters_are_named(tmp_path, name, fetch, write, wrong):
    (parameter,) = wrong
    with pytest.raises(ValueError, match=re.escape(f"'{parameter}' parameter of fetch_{name}")):
        fetch(**{"data_home": tmp_path, **wrong})


@pytest.mark.skipif(not DEBIAN_FILES.exists(), reason="needs Debian's dataset-fashion-mnist")
@pytest.mark.parametrize(("subset", "n_images"), [("train", 60_000), ("test", 10_000)])
def test_debian_package_is_found_and_passes_verification(tmp_path, monkeypatch, subset, n_images):
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    data = fetch_fashion_mnist(subset=subset, download=False)
    assert data.images.shape == (n_images, 28, 28)
    np.testing.assert_array_equal(np.bincount(data.target), n_images // 10)
    direct = fetch_fashion_mnist(subset=subset, data_home=DEBIAN_FILES, download=False)
    np.testing.assert_array_equal(direct.images, data.images)
