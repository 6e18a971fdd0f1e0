"""Data sets of every kind become splits that share no image."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.records import read_records
from benchmarks.splits import Budget, divide, load_splits

BUDGET = Budget(None, 6, None)


def numbered(n, *shape):
    """Make images that differ: each has its number everywhere."""
    return np.tile(np.arange(n, dtype=np.uint8).reshape(-1, *[1] * len(shape)), (1, *shape))


def numbers(images):
    return [int(image.flat[0]) for image in images]


def check(splits, n_images):
    (labelled, y), (test, y_test) = splits.labelled, splits.test
    together = [*numbers(splits.unlabelled), *numbers(labelled), *numbers(test)]
    assert len(together) == len(set(together)) == n_images
    for images, target in ((labelled, y), (test, y_test)):
        np.testing.assert_array_equal(target, np.array(numbers(images)) % 2)


def test_files_of_cifar10(tmp_path):
    images = numbered(20, 3072)
    rows = np.concatenate([images[:, :1] % 2, images], axis=1)
    (tmp_path / "data_batch_1.bin").write_bytes(rows[:14].tobytes())
    (tmp_path / "test_batch.bin").write_bytes(rows[14:].tobytes())
    splits = load_splits("cifar10", Budget(100, 6, 100), data_home=tmp_path, verify=False)
    check(splits, 20)
    assert splits.unlabelled.shape == (8, 32, 32, 3)
    assert numbers(splits.labelled[0]) == [8, 9, 10, 11, 12, 13]


def test_a_folder_of_class_folders(tmp_path):
    for number, image in enumerate(numbered(40, 70, 80)):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    splits = load_splits(f"folder:{tmp_path}/photos", Budget(), data_home=tmp_path)
    check(splits, 40)
    sizes = len(splits.unlabelled), len(splits.labelled[0]), len(splits.test[0])
    assert sizes == (24, 8, 8)
    assert np.bincount(splits.test[1]).tolist() == [4, 4]


def test_a_file_of_arrays(tmp_path):
    images, file = numbered(40, 8, 8), tmp_path / "tiny.npz"
    parts = {"train": slice(24), "val": slice(24, 32), "test": slice(32, 40)}
    arrays = {f"{name}_images": images[rows] for name, rows in parts.items()}
    labels = {f"{name}_labels": np.arange(40)[rows, None] % 2 for name, rows in parts.items()}
    np.savez(file, **arrays, **labels)
    splits = load_splits(f"npz:{file}", Budget())
    check(splits, 40)
    assert sorted(numbers(splits.test[0])) == list(range(32, 40))
    assert len(splits.unlabelled) == 24


def test_images_without_a_class_are_unlabelled():
    unlabelled, labelled = divide(np.array([-1, 0, 0, -1, 1, 1]), (1, 1))
    assert {0, 3} <= set(unlabelled)
    assert len(labelled) == 2


def test_records_tell_of_files_that_were_not_verified(tmp_path):
    path = tmp_path / "r.jsonl"
    arguments = (
        f"comparison --dataset digits --images 20 80 20 --procedures mean --repeats 1 --out {path}"
    ).split()
    assert main([*arguments, "--no-verify"]) == main(arguments) == 0
    settings = [r["settings"] for r in read_records(path)]
    assert sorted(s.get("verified", True) for s in settings) == [False, True]


@pytest.mark.parametrize("name", ["mnist", "folder:", "zip:a"])
def test_an_unknown_data_set_is_refused_with_a_list(name, capsys):
    with pytest.raises(SystemExit):
        main(["comparison", "--dataset", name])
    assert "folder:PATH for a folder of class folders" in capsys.readouterr().err
