"""The memory benchmark measures real fits, each in a process of its own."""

import json

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.memory import VirtualImages, measure


def check(collection, n_images):
    assert collection["images"] == n_images
    assert collection["images_gib"] == n_images * 64 * 64 * 3 / 2**30
    peaks = [collection[f"peak{of}_gib"] for of in ("", "_of_fit", "_before_fit")]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[-1] > 0.05


def test_virtual_images(tmp_path, capsys):
    out = tmp_path / "memory.json"

    small = ["--loss-network", "pooling", "--encoder", "features"]
    main(["memory", "--virtual", "--images", "300", *small, "--out", str(out)])

    record = json.loads(out.read_text())
    check(*record["collections"], 300)
    assert record["settings"]["virtual"]
    assert "| 300 " in capsys.readouterr().out


@pytest.mark.parametrize("encoder", ["image", "features"])
def test_images_in_memory(encoder):
    check(measure(40, virtual=False, encoder=encoder, loss_network="pooling", max_epochs=1), 40)


def test_virtual_images_depend_on_their_place_alone():
    images = VirtualImages(5_000)

    np.testing.assert_array_equal(images[990:1_010][3:15], images[993:1_005])
    assert len(np.unique(images[900:1_100].reshape(200, -1), axis=0)) == 200
