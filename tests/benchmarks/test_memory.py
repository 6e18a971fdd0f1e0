"""The memory benchmark measures real fits, each in a process of its own."""

import json

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.memory import VirtualImages


@pytest.mark.parametrize("virtual", [[], ["--virtual"]], ids=["in memory", "virtual"])
def test_peaks_of_fit_and_transform(tmp_path, capsys, virtual):
    out = tmp_path / "memory.json"
    small = ["--loss-network", "pooling", "--encoder", "features", "--out", str(out)]

    main(["memory", "--images", "300", "600", *virtual, *small])

    record = json.loads(out.read_text())
    assert [row["images"] for row in record["collections"]] == [300, 600]
    for row in record["collections"]:
        assert row["peak_gib"] >= row["peak_of_fit_gib"] >= row["peak_before_fit_gib"] > 0.05
        assert row["images_gib"] == row["images"] * 64 * 64 * 3 / 2**30
    assert record["settings"]["virtual"] == bool(virtual)
    assert "| 600 " in capsys.readouterr().out


def test_virtual_images_depend_on_their_place_alone():
    images = VirtualImages(5_000)

    np.testing.assert_array_equal(images[990:1_010][3:15], images[993:1_005])
    assert len(np.unique(images[0:2_000].reshape(2_000, -1), axis=0)) == 2_000
