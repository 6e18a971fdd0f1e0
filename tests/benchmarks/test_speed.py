"""The textbook loop learns, and the speed comparison runs for real on a few frames."""

import matplotlib.image
import numpy as np
import pytest
import torch

from benchmarks import textbook
from benchmarks.__main__ import main
from benchmarks.records import read_records, write_records
from benchmarks.studies import speed

IMAGES = 32


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run a tiny comparison, and return its record and the folder it lies in."""
    folder = tmp_path_factory.mktemp("speed")
    arguments = (
        f"speed --out {folder / 'speed.jsonl'} --data-home {folder / 'frames'} --images {IMAGES} "
        "--repeats 1 --procedures I-I-PS --seconds 0.01 --textbook-batch 8 --n-jobs 1"
    )
    main(arguments.split())
    (record,) = read_records(folder / "speed.jsonl")
    return record, folder


@pytest.fixture
def made_up():
    """Make a record in which the package's speed, the loop's and a few others are known."""
    measured = {
        "package I-F-FP": [900.0, 1000.0, 300.0],
        "textbook I-F-FP": [300.0, 400.0, 100.0],
        "fit I-F-FP": [600.0, 800.0, 200.0],
        "once I-F-FP": [1.0, 2.0, 3.0],
        "bare loop": [1000.0, 1000.0, 400.0],
        "arithmetic": [9e10, 1e11, 3e10],
        "matrix product": [1e11, 1e11, 1e11],
        **{series: [100.0, 200.0, 300.0] for series in speed.EMBEDDING},
    }
    settings = {"images": 4096, "repeats": 3, "z": 64, "threads": 2, "textbook_batch": 512}
    machine = {"cpu": "a processor", "cores": 2, "torch": "2.14"}
    return {
        "settings": settings,
        "machine": machine,
        "flops_per_image": 1e8,
        "measured": measured,
    }


@pytest.mark.parametrize("procedure", ["I-F-FP", "F-I-PS", "I-I-PW"])
def test_textbook_learns(procedure):
    images = np.full((8, 64, 64, 3), (255, 128, 0), dtype=np.uint8)
    torch.manual_seed(0)
    images_per_second, first = textbook.train(procedure, images, steps=1, z=8, batch_size=8)
    torch.manual_seed(0)
    _, mean_of_more = textbook.train(procedure, images, steps=4, z=8, batch_size=8)
    assert images_per_second > 0
    assert mean_of_more < first


def test_textbook_networks_have_the_papers_sizes():
    def n_parameters(procedure):
        networks = textbook.make_networks(procedure, z=64, n_features=9408)
        return [sum(p.numel() for p in network.parameters()) for network in networks]

    assert n_parameters("I-I-PW") == [691_104 + 65_600, 3_626_019]
    assert n_parameters("F-F-FP") == [19_400_768, 19_410_112]


@pytest.mark.slow
def test_every_contender_is_timed(run):
    record, _ = run
    procedures = ("I-F-FP", "I-I-PS")
    kinds = ("package", "textbook", "fit", "once")
    expected = {f"{kind} {procedure}" for kind in kinds for procedure in procedures}
    expected |= {"bare loop", "arithmetic", "matrix product", *speed.EMBEDDING}
    assert record["measured"].keys() == expected
    for values in record["measured"].values():
        assert len(values) == 1
        assert min(values) > 0
    assert record["settings"]["images"] == IMAGES
    # What is done once takes time, so a fit is slower than its epochs.
    assert record["measured"]["fit I-F-FP"][0] < record["measured"]["package I-F-FP"][0]


@pytest.mark.slow
def test_arithmetic_is_counted(run):
    """Compare with the layers' sizes by hand: two operations per weight and place."""
    record, _ = run
    convolutions = [(32, 3, 31), (64, 32, 14), (128, 64, 6), (256, 128, 2)]
    places = [n_out * n_in * 16 * side**2 for n_out, n_in, side in convolutions]
    places += [1024 * 64, 64 * 2048]
    forwards = 2 * sum(places)
    backwards = 2 * forwards - 2 * places[0]  # no gradient for the images
    # What is left is the last layer, from 2048 units to as many components as "auto" has chosen.
    components = (record["flops_per_image"] - forwards - backwards) / (3 * 2 * 2048)
    assert components == pytest.approx(round(components))
    assert 1 < components <= min(IMAGES, 512)


@pytest.mark.slow
def test_picture_is_wide_and_not_empty(run):
    picture = matplotlib.image.imread(run[1] / "speed.png")
    assert picture.shape[1] == 1200
    assert picture[..., :3].std() > 0.1


def test_ratios_are_taken_within_repeats(made_up):
    ratio = speed.median_ratio(made_up, "package I-F-FP", "textbook I-F-FP")
    assert ratio == (3.0, 2.5, 3.0)
    rows = {row.split("|")[1].strip(): row for row in speed.ratio_table(made_up).split("\n")[2:]}
    met = rows["FeaturePredictionEncoder (I-F-FP) / its textbook loop"]
    missed = rows["training with skorch (I-F-FP) / the same step in a bare loop"]
    assert "3.00" in met
    assert met.split("|")[-2].strip() == "yes"
    assert "0.90" in missed
    assert missed.split("|")[-2].strip() == "no"
    # Nothing is said of what was not measured.
    assert not any("PerceptualAutoencoder" in row for row in rows)


def test_blocks_hold_tables_picture_and_costs(made_up, tmp_path):
    write_records(tmp_path / "speed.jsonl", [made_up])
    block = speed.block(tmp_path)
    assert speed.report(made_up) in block
    assert "900 (300 to 1,000)" in block
    assert block.endswith("](speed.png)")
    # 200 images/s in the loss network and to embed, 900 in an epoch: 5 + 10 * 1.11 ms an image.
    costs = speed.costs_block(tmp_path)
    assert "5.00 ms in the loss network, once per fit, 1.11 ms in each epoch" in costs
    assert "5.00 ms to embed" in costs
    assert "take 269 minutes" in costs
