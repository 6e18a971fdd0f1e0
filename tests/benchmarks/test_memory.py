"""The memory benchmark measures a real fit."""

import json

from benchmarks.__main__ import main


def test_peak_memory_counts_the_images(tmp_path, capsys):
    out = tmp_path / "memory.json"
    main(["memory", "--images", "300", "--out", str(out)])
    record = json.loads(out.read_text())
    assert record["peak_gib"] >= record["peak_before_fit_gib"] > record["images_gib"] > 0
    assert "300 images" in capsys.readouterr().out
