"""The smaller studies: what they measure, that they go on, and how they are summarised."""

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.records import read_records, write_records
from benchmarks.studies import (
    baselines,
    encoders,
    engines,
    loss_networks,
    memory,
    photographs,
    serving,
    small_images,
    study,
)


def rerun_without(path, arguments, lost):
    """Delete the record that `lost` is true of, run again, and return which records are new."""
    before = read_records(path)
    write_records(path, [record for record in before if not lost(record)])
    assert main(arguments) == 0
    after = read_records(path)
    assert len(after) == len(before)
    return [record for record in after if record not in before]


class TestStudy:
    @pytest.mark.slow
    def test_goes_on_with_what_is_missing(self, tmp_path):
        path = tmp_path / "study.jsonl"
        arguments = (
            f"study --out {path} --data-home {tmp_path}/home --n-jobs 1 --rollouts 3 "
            "--labelled-rollouts 4 --test-rollouts 2 --z 4 --max-epochs 1 --seeds 0 "
            "--variants default paper scaled-half augmented"
        ).split()
        assert main(arguments) == 0
        assert path.with_suffix(".png").stat().st_size > 10_000
        new = rerun_without(path, arguments, lambda record: record["variant"] == "scaled-half")
        assert [record["variant"] for record in new] == ["scaled-half"]
        seconds = {r["variant"]: r["training"]["seconds"] for r in read_records(path)}
        assert seconds["paper"] >= seconds["default"]

    def test_table_has_mean_and_spread_over_seeds_and_the_least_time(self):
        records = [self.record("default", seed, measure) for seed, measure in enumerate((0.5, 1.0))]
        row = study.table(records).splitlines()[2]
        cells = [cell.strip() for cell in row.split("|")[2:-1]]
        assert cells == ["24.00 ± 8.00", "1.00", "10", "1", "2"]

    def test_every_variant_has_a_mark_of_its_own(self):
        records = [self.record(name, i, 0.1 * (1 + i)) for i, name in enumerate(study.VARIANTS)]
        bars = study.draw(records).axes[0].containers
        assert len({bar.lines[0].get_marker() for bar in bars}) == len(study.VARIANTS)

    @staticmethod
    def record(variant, rank, measure):
        return {
            "variant": variant,
            "seed": rank,
            "settings": {},
            "test_measure": measure,
            "training": {"seconds": 10 + rank},
            "machine": {"cores": 1 + rank},
        }

    def test_copies_are_shifted_or_mirrored_images(self):
        images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        copies = study.augment(images, copies=3, seed=0)
        assert copies.shape == (6, 32, 32, 3)
        inner = images[1, 4:-4, 4:-4]
        patches = [
            copy[top : top + 24, left : left + 24]
            for copy in (copies[5], copies[5][:, ::-1])
            for top in range(9)
            for left in range(9)
        ]
        assert any((patch == inner).all() for patch in patches)


class TestSmallImages:
    def test_goes_on_with_what_is_missing(self, tmp_path, capsys):
        path = tmp_path / "small_images.jsonl"
        arguments = (
            f"small_images --out {path} --datasets digits --seeds 0 --images 40 80 40 --z 4 "
            "--max-epochs 1"
        ).split()
        assert main(arguments) == 0
        assert "| Digits, 8 pixels" in capsys.readouterr().out
        lost = {"method": "encoder", "resize": "tile"}.items()
        (new,) = rerun_without(path, arguments, lambda record: record.items() >= lost)
        assert new["training"]["n_epochs"] == 1
        assert "80 labelled" in small_images.block(tmp_path)

    def test_the_gain_is_taken_seed_by_seed(self):
        records = [
            {
                "dataset": "digits",
                "method": "frozen",
                "resize": way,
                "seed": seed,
                "settings": {},
                "accuracy": {"linear": accuracy + seed / 10, "mlp": accuracy},
            }
            for way, accuracy in (("auto", 0.75), ("tile", 0.5))
            for seed in (0, 1)
        ]
        linear, _ = small_images.summary(records[:3])
        assert (linear["auto"], linear["gain"]) == ([0.75], [0.25])
        linear, mlp = small_images.summary(records)
        assert linear["gain"] == pytest.approx([0.25, 0.25])
        assert mlp["gain"] == [0.25, 0.25]


class TestBaselines:
    @pytest.mark.slow
    def test_goes_on_with_what_is_missing(self, tmp_path, capsys):
        pytest.importorskip("lightly")
        path = tmp_path / "baselines.jsonl"
        arguments = (
            f"baselines --out {path} --datasets digits --seeds 0 --max-epochs 1 "
            "--rows feature-prediction frozen simclr"
        ).split()
        assert main(arguments) == 0
        assert "| SimCLR" in capsys.readouterr().out
        assert path.with_suffix(".png").stat().st_size > 10_000
        (new,) = rerun_without(path, arguments, lambda record: record["row"] == "simclr")
        seconds = {r["row"]: r["training"]["seconds"] for r in read_records(path)}
        assert seconds["feature-prediction"] <= 1.2 * seconds["simclr"]
        assert set(new["measured"]["100"]) == {"linear", "k-NN", "MLP"}
        tuned = new["training"]["tuned"]
        assert tuned[str(new["training"]["lr"])] == max(tuned.values())

    def record(self, row, seed, test, dataset="CIFAR-10", **changes):
        probes = {name: {"test": test, "validation": 0} for name in ("linear", "k-NN", "MLP")}
        return {
            "dataset": dataset,
            "row": row,
            "seed": seed,
            "settings": baselines.OWN._replace(budget=baselines.OWN.budget._asdict())._asdict(),
            "machine": {"threads": 2, "cpu": "a processor"},
            "training": {"seconds": 60, "n_images": 9},
            "images_per_second": 100.0 if row == "frozen" else 1000.0,
            "measured": {"100": probes, "6000": probes},
            **changes,
        }

    def test_tables_and_picture(self, tmp_path):
        rows = [("feature-prediction", 0.8), ("frozen", 0.7), ("pca", 0.4)]
        records = [
            self.record(row, seed, test + seed / 10) for row, test in rows for seed in (0, 1)
        ]
        records += [self.record(row, 0, test, "LunarLander") for row, test in rows[:2]]
        write_records(tmp_path / "baselines.jsonl", records)

        lines = baselines.short_block(tmp_path).splitlines()
        cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[:5]]
        labels = "CIFAR-10 ↑, 100 / 6,000 labels"
        assert cells[0] == ["embedding", labels, "LunarLander, px ↓", "images/s"]
        assert cells[2][1:] == ["0.850 / 0.850", "25.60", "1,000"]
        assert cells[4][1:] == ["0.450 / 0.450", "-", "1,000"]
        assert "LunarLander" in baselines.block(tmp_path)

        first, second = baselines.draw(records).axes[:2]
        assert len(first.containers) == 2  # pixels are in the table alone
        assert second.yaxis_inverted()  # less is better


class TestPhotographs:
    def test_measures_and_prints_a_table(self, tmp_path, capsys):
        path = tmp_path / "photographs.jsonl"
        arguments = ["photographs", "--images", "8", "--side", "96", "--repeats", "1"]
        assert main([*arguments, "--out", str(path)]) == 0

        assert "| `defaults`" in capsys.readouterr().out
        assert "8 images of 96 by 96 pixels" in photographs.block(tmp_path)


@pytest.mark.slow
def test_serving_compares_each_form_with_torch(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(serving, "ENCODERS", ("image",))
    sizes = ["--fit-images", "32", "--images", "32", "--z", "4", "--max-epochs", "1"]
    main(["serving", *sizes, "--repeats", "1", "--out", str(tmp_path / "serving.jsonl")])

    rows = {record["form"]: record for record in read_records(tmp_path / "serving.jsonl")}
    assert rows["torch"]["neighbours_kept"] > 0.99
    assert rows["int8"]["bytes"] < 0.6 * rows["float16"]["bytes"] < 0.4 * rows["float32"]["bytes"]
    assert all(record["seconds_to_start"][0] > 0 for record in rows.values())
    assert capsys.readouterr().out.strip() in serving.block(tmp_path)


class TestLossNetworks:
    @pytest.mark.slow
    def test_goes_on_with_what_is_missing(self, tmp_path, capsys):
        path = tmp_path / "loss_networks.jsonl"
        arguments = (
            f"loss_networks --out {path} --data-home {tmp_path}/home --memory {tmp_path}/memory "
            "--datasets lunarlander --networks alexnet-relu2 alexnet-relu1 --seeds 0 1 "
            "--epochs 1 2 --z 4 --images 60 60 30"
        ).split()
        assert main(arguments) == 0
        assert len(read_records(path)) == 2 * 2 + 1 + 3
        assert "| AlexNet relu1" in capsys.readouterr().out
        assert path.with_suffix(".png").stat().st_size > 10_000
        lost = {"network": "alexnet-relu1", "epochs": 2}.items()
        (new,) = rerun_without(path, arguments, lambda record: record.items() >= lost)
        assert new["training"]["n_epochs"] == 2
        assert set(new["embedding"]) == {"frozen", "encoder"}
        block = loss_networks.block(tmp_path)
        assert "60 unlabelled images" in block

    @staticmethod
    def record(network, epochs, seed, measure, *, dataset="fashion-mnist", speed=100.0):
        return {
            "dataset": dataset,
            "network": network,
            "epochs": epochs,
            "seed": seed,
            "settings": {},
            "test_measure": measure,
            "training": {} if epochs is None else {"seconds": 30.0, "n_images": 5904},
            "embedding": {"frozen": speed} | ({} if epochs is None else {"encoder": 40 * speed}),
        }

    def test_the_gain_is_taken_seed_by_seed(self):
        records = [
            *(self.record("both", None, seed, 0.8 + 0.01 * seed) for seed in (0, 1)),
            *(self.record("both", 8, seed, 0.9 + 0.01 * seed) for seed in (0, 1)),
            self.record("both", 2, 0, 0.7),
            self.record("alexnet-relu5", None, 0, 0.6),  # which has no encoder
        ]
        (row,) = loss_networks.summary(records, "fashion-mnist")
        assert row["gain"] == pytest.approx([0.1, 0.1])
        assert (row["ratio"], row["seeds"], row["features_seconds"]) == (40, 2, 100)
        text = loss_networks.table(records, "fashion-mnist")
        assert "+0.100 ± 0.000" in text
        assert "0.905 ± 0.005" in text

    def test_a_smaller_distance_is_a_gain(self):
        records = [
            self.record("both", epochs, 0, measure, dataset="lunarlander")
            for epochs, measure in ((None, 0.5), (8, 0.25))
        ]
        (row,) = loss_networks.summary(records, "lunarlander")
        assert row["gain"] == [8.0]

    def test_every_network_counts_with_its_own_largest_budget(self):
        records = [
            self.record("both", None, 0, 0.5),
            self.record("both", 8, 0, 0.6),
            self.record("alexnet-relu5", None, 0, 0.5),
            self.record("alexnet-relu5", 8, 0, 0.6),
            self.record("alexnet-relu5", 20, 0, 0.7),
        ]
        rows = loss_networks.summary(records, "fashion-mnist")
        gains = {row["name"]: row["gain"] for row in rows}
        assert gains == {"both": pytest.approx([0.1]), "alexnet-relu5": pytest.approx([0.2])}
        text = loss_networks.table(records, "fashion-mnist")
        assert "encoder, 8 epochs | encoder, 20 epochs" in text

    def test_every_network_has_a_mark_of_its_own(self):
        records = [
            self.record(name, epochs, 0, 0.5 + i / 20, speed=10.0 * (i + 1))
            for i, name in enumerate(loss_networks.NETWORKS)
            for epochs in (None, 8)
        ]
        lines = loss_networks.draw(records).axes[0].lines
        styles = {(line.get_marker(), line.get_color()) for line in lines}
        marked = {style for style in styles if style[0] not in ("None", "_")}
        assert len(marked) == len(loss_networks.NETWORKS)


def test_larger_encoders_take_more_arithmetic(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(encoders, "BATCH", 4)
    monkeypatch.setattr(encoders, "REPEATS", 1)
    main(["encoders", "--out", str(tmp_path / "encoders.jsonl")])
    rows = {record["encoder"]: record for record in read_records(tmp_path / "encoders.jsonl")}
    assert rows["small"]["mflop"] < rows["image"]["mflop"] / 3
    assert rows["large"]["mflop"] > 3 * rows["image"]["mflop"]
    assert rows["image"]["parameters"] == 756_704  # the paper's, at z = 64
    assert capsys.readouterr().out.strip() in encoders.block(tmp_path)


class TestMemory:
    @pytest.mark.slow
    def test_measures_in_a_process_of_its_own(self, tmp_path, monkeypatch, capsys):
        row = {"virtual": True, "encoder": "features", "loss_network": "pooling"}
        monkeypatch.setattr(memory, "ROWS", {"300": row})
        main(["memory", "--out", str(tmp_path / "memory.jsonl")])
        (record,) = read_records(tmp_path / "memory.jsonl")
        assert record["settings"]["images"] == record["images"] == 300
        assert record["images_gib"] == 300 * 64 * 64 * 3 / 2**30
        peaks = [record[f"peak{of}_gib"] for of in ("", "_of_fit", "_before_fit")]
        assert peaks == sorted(peaks, reverse=True)
        assert peaks[-1] > 0.05
        assert "| 300 " in capsys.readouterr().out

    def test_virtual_images_depend_on_their_place_alone(self):
        images = memory.VirtualImages(5_000)
        np.testing.assert_array_equal(images[990:1_010][3:15], images[993:1_005])
        assert len(np.unique(images[900:1_100].reshape(200, -1), axis=0)) == 200


class TestEngines:
    @pytest.mark.slow
    def test_measures_one_worker_and_one_process(self, tmp_path, capsys):
        for module in ("dask", "distributed", "zarr", "accelerate"):
            pytest.importorskip(module)
        out = tmp_path / "engines.jsonl"
        few = (
            "engines --images 40 --train-images 40 --processes 1 --repeats 1 --epochs 1 "
            f"--data-home {tmp_path}/home --out {out}"
        )
        assert main(few.split()) == 0
        speeds = read_records(out)[0]["images_per_second"]
        assert list(speeds) == ["plain loop", "dask, 1 workers", "accelerate, 1 processes"]
        assert all(speed > 0 for (speed,) in speeds.values())
        assert "40 LunarLander frames" in capsys.readouterr().out

    def test_ratios_are_taken_within_a_repeat(self):
        speeds = {
            "plain loop": [100.0, 200.0],
            "dask, 1 workers": [90.0, 180.0],
            "dask, 2 workers": [180.0, 360.0],
            "accelerate, 1 processes": [10.0, 10.0],
            "accelerate, 2 processes": [15.0, 15.0],
        }
        machine = {"cores": 2, "cpu": "a processor", "torch": "2"}
        settings = {"images": 2, "train_images": 2, "chunk": 1, "batch_size": 1, "repeats": 2}
        record = {"images_per_second": speeds, "machine": machine, "settings": settings}
        lines = engines.report(record).splitlines()
        rows = {line.split("|")[1].strip(): line for line in lines if "|" in line}
        assert "2.00 (2.00 to 2.00)" in rows["dask, 2 workers"]
        assert "0.90 (0.90 to 0.90)" in rows["dask, 1 workers"]
        assert "1.50 (1.50 to 1.50)" in rows["accelerate, 2 processes"]
